"""Finding the few rules that could match a request among ten thousand, at a cost that does not grow.

Rules become a tree of indexes. Each level answers one question that all rules below it ask: a look-up by
value where rules name plain words (method, host, path, a header), a search among literal prefixes where path
patterns begin with one (`/jobs/` of `/jobs/[0-9]+`), one RE2 set where patterns remain. At a leaf is
a handful of rules, tested one by one for what no index has answered.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from typing import Any, Protocol

import re2

from policy import conditions
from policy.conditions import Condition
from policy.errors import PolicyError
from policy.model import HttpRule
from policy.patterns import Pattern, options
from policy.verdicts import Request

# Up to this many rules, testing them one by one costs less than an index does.
FEW = 3
# What one RE2 set may use. A set keeps each state of its automaton that a path has led to; one of 10,000
# patterns needs some 100 bytes for each pattern in each state.
_SET_MEMORY = 16 << 20
_MOST_SET_MEMORY = 1 << 30
# Matched by no request (targets hold no NUL): shows that a set's automaton could be built at all.
_PROBE = b"\x00"


class TooCostly(PolicyError):
    """Rules that could stall the node together: their patterns are too large for one automaton."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A rule's remaining conditions, and what it stands for."""

    conditions: tuple[Condition, ...]
    rule: HttpRule
    order: int

    def matches(self, request: Request) -> bool:
        """Whether every remaining condition holds."""
        return all(condition(request) for condition in self.conditions)


class Node(Protocol):
    """An index over rules."""

    steps: int
    """Instructions that one byte of a request may visit, at the worst (bounds the time for a long path)."""

    def candidates(self, request: Request) -> Sequence[Leaf]:
        """The rules that could match: all that do, and few others."""


class Leaves:
    """No index: the rules themselves."""

    __slots__ = ("leaves", "steps")

    def __init__(self, leaves: Sequence[Leaf], steps: int = 0) -> None:
        self.leaves = tuple(leaves)
        self.steps = steps

    def candidates(self, request: Request) -> Sequence[Leaf]:
        """All of them."""
        return self.leaves


@dataclass(frozen=True, slots=True)
class _Item:
    """A rule on its way down the tree, with the questions that are still open."""

    rule: HttpRule
    order: int
    deny: bool
    answered: frozenset[str] = frozenset()

    def without(self, question: str) -> _Item:
        return replace(self, answered=self.answered | {question})

    def leaf(self) -> Leaf:
        asked: list[Condition | None] = [
            make(self.rule) for question, make in _MAKERS.items() if question not in self.answered
        ]
        rest = conditions.of_rest(self.rule, deny=self.deny)
        return Leaf((*(one for one in asked if one is not None), *rest), self.rule, self.order)

    @property
    def steps(self) -> int:
        """Program sizes of the patterns that a leaf of this would run."""
        patterns = {"method": self.rule.method, "host": self.rule.host, "path": self.rule.path}
        open_ones = (p for question, p in patterns.items() if p and question not in self.answered)
        return sum(p.program for p in open_ones if not p.literals)


_MAKERS: dict[str, Callable[[HttpRule], Condition | None]] = {
    "method": conditions.of_method,
    "host": conditions.of_host,
    "path": conditions.of_path,
}


def build(rules: Iterable[HttpRule], *, deny: bool = False) -> Node:
    """The index over rules of one kind. Deny rules compare repeated headers and parameters otherwise."""
    return _by_method([_Item(rule, order, deny) for order, rule in enumerate(rules)])


def _leaves(items: Sequence[_Item]) -> Leaves:
    return Leaves([item.leaf() for item in items], sum(item.steps for item in items))


def _by_method(items: list[_Item]) -> Node:
    return _by_words("method", items, _by_host)


def _by_host(items: list[_Item]) -> Node:
    return _by_words("host", items, _by_path)


_GET: dict[str, Callable[[Request], bytes]] = {
    "method": attrgetter("method"),
    "host": attrgetter("host"),
    "path": attrgetter("path"),
}


def _pattern_of(question: str, rule: HttpRule) -> Pattern | None:
    return {"method": rule.method, "host": rule.host, "path": rule.path}[question]


def _by_words(question: str, items: list[_Item], below: Callable[[list[_Item]], Node]) -> Node:
    """A table from the plain words that rules name to the rules below them; other rules beside it."""
    if len(items) <= FEW:
        return _leaves(items)
    table: dict[bytes, list[_Item]] = {}
    others: list[_Item] = []
    for item in items:
        pattern = _pattern_of(question, item.rule)
        for word in pattern.literals if pattern else ():
            table.setdefault(word, []).append(item.without(question))
        if not pattern or not pattern.literals:
            others.append(item)
    if not table:
        return below(items)
    nodes = {word: below(found) for word, found in table.items()}
    return ByWord(_GET[question], nodes, below(others) if others else None)


class ByWord:
    """A table by one part of the request; rules that name no plain words stand beside it."""

    __slots__ = ("_get", "_others", "_table", "steps")

    def __init__(
        self, get: Callable[[Request], bytes | None], table: Mapping[bytes, Node], others: Node | None
    ) -> None:
        self._get = get
        self._table: Mapping[Any, Node] = table
        self._others = others
        self.steps = max(node.steps for node in table.values()) + (others.steps if others else 0)

    def candidates(self, request: Request) -> Sequence[Leaf]:
        """Those of the word, then the others."""
        node = self._table.get(self._get(request))
        others = self._others
        if node is None:
            return others.candidates(request) if others is not None else ()
        found = node.candidates(request)
        return found if others is None else (*found, *others.candidates(request))


def _by_path(items: list[_Item]) -> Node:
    """By whole paths, then by what paths begin with; what says nothing of either stands beside it."""
    if len(items) <= FEW:
        return _leaves(items)
    whole: dict[bytes, list[_Item]] = {}
    begins: dict[bytes, list[_Item]] = {}
    others: list[_Item] = []
    for item in items:
        words, prefix = _path_words(item.rule)
        for word in words:
            whole.setdefault(word, []).append(item.without("path"))
        if not words:
            (begins.setdefault(prefix, []) if prefix else others).append(item)
    if not whole and not begins:
        return _by_header(items)
    return ByPath(
        {word: _by_header(found) for word, found in whole.items()},
        {prefix: _by_header(found) for prefix, found in begins.items()},
        _by_header(others) if others else None,
    )


def _path_words(rule: HttpRule) -> tuple[tuple[bytes, ...], bytes]:
    """The whole paths that a rule names, or what every path that it matches begins with."""
    if rule.path is not None:
        return rule.path.literals, rule.path.prefix
    return (), rule.path_exact or rule.path_prefix or b""


class ByPath:
    """Whole paths in a table; prefixes in order, each with those that it begins with itself.

    All prefixes of a path are the last one that does not sort after it, or begin that one: every string
    between a prefix of the path and the path itself begins with that prefix.
    """

    __slots__ = ("_chains", "_others", "_parents", "_prefixes", "_whole", "steps")

    def __init__(self, whole: dict[bytes, Node], begins: dict[bytes, Node], others: Node | None) -> None:
        self._whole = whole
        self._others = others
        self._prefixes = sorted(begins)
        self._parents: list[int] = []
        self._chains: list[tuple[Node, ...]] = []
        for prefix in self._prefixes:
            parent = self._last_of(prefix, len(self._parents) - 1)
            above = self._chains[parent] if parent >= 0 else ()
            self._parents.append(parent)
            self._chains.append(_joined((begins[prefix], *above)))
        longest = max((sum(node.steps for node in chain) for chain in self._chains), default=0)
        exact = max((node.steps for node in whole.values()), default=0)
        self.steps = longest + exact + (others.steps if others else 0)

    def _last_of(self, path: bytes, at: int) -> int:
        while at >= 0 and not path.startswith(self._prefixes[at]):
            at = self._parents[at]
        return at

    def candidates(self, request: Request) -> Sequence[Leaf]:
        """Those of the whole path, of each of its prefixes, and the others."""
        path = request.path
        found: Sequence[Leaf] = ()
        at = self._last_of(path, bisect_right(self._prefixes, path) - 1)
        if at >= 0:
            chain = self._chains[at]
            found = chain[0].candidates(request)
            for node in chain[1:]:
                found = (*found, *node.candidates(request))
        whole = self._whole.get(path)
        if whole is not None:
            found = (*whole.candidates(request), *found)
        return found if self._others is None else (*found, *self._others.candidates(request))


def _joined(chain: tuple[Node, ...]) -> tuple[Node, ...]:
    """One node for a chain of plain ones."""
    plain = [node for node in chain if isinstance(node, Leaves)]
    if len(plain) < len(chain):
        return chain
    return (Leaves([leaf for node in plain for leaf in node.leaves], sum(node.steps for node in plain)),)


def _by_header(items: list[_Item]) -> Node:
    """By the value of the header that most rules name; a deny rule looks into lists, which a table cannot."""
    if len(items) <= FEW or items[0].deny:
        return _by_patterns(items)
    names = Counter(test.name for item in items for test in item.rule.headers if test.value is not None)
    name, most = max(names.items(), key=lambda pair: pair[1], default=(b"", 0))
    if most <= FEW:
        return _by_patterns(items)
    table: dict[bytes, list[_Item]] = {}
    others: list[_Item] = []
    for item in items:
        value = next((test.value for test in item.rule.headers if test.name == name and test.value), None)
        (others if value is None else table.setdefault(value, [])).append(item)
    nodes = {value: _by_patterns(found) for value, found in table.items()}
    get = partial(_header_value, name)
    return ByWord(get, nodes, _by_patterns(others) if others else None)


def _header_value(name: bytes, request: Request) -> bytes | None:
    return conditions.joined(request.headers, name)


def _by_patterns(items: list[_Item], questions: tuple[str, ...] = ("path", "host")) -> Node:
    """One RE2 set for many patterns of the path, and below it of the host."""
    if len(items) <= FEW or not questions:
        return _leaves(items)
    question, rest = questions[0], questions[1:]
    groups: dict[Pattern, list[_Item]] = {}
    others: list[_Item] = []
    for item in items:
        pattern = None if question in item.answered else _pattern_of(question, item.rule)
        (groups.setdefault(pattern, []) if pattern else others).append(item)
    if len(groups) < 2:
        return _by_patterns(items, rest)
    nodes = {
        pattern: _by_patterns([item.without(question) for item in found], rest)
        for pattern, found in groups.items()
    }
    return ByPatterns(question, nodes, _by_patterns(others, rest) if others else None)


class ByPatterns:
    """One automaton that says which of many patterns match."""

    __slots__ = ("_get", "_match", "_nodes", "_others", "steps")

    def __init__(self, question: str, nodes: dict[Pattern, Node], others: Node | None) -> None:
        self._get = _GET[question]
        self._nodes = list(nodes.values())
        self._others = others
        self._match = _set(list(nodes))
        below = max(node.steps for node in self._nodes) + (others.steps if others else 0)
        self.steps = sum(pattern.program for pattern in nodes) + below

    def candidates(self, request: Request) -> Sequence[Leaf]:
        """Those of each pattern that matches, and the others."""
        found: list[Leaf] = []
        for at in self._match(self._get(request)) or ():
            found += self._nodes[at].candidates(request)
        if self._others is not None:
            found += self._others.candidates(request)
        return found


def _set(patterns: Sequence[Pattern]) -> Callable[[bytes], list[int] | None]:
    """An RE2 set with the memory that it needs. All patterns fold case alike: they are of one question."""
    memory = _SET_MEMORY
    while memory <= _MOST_SET_MEMORY:
        chosen = options(fold_case=patterns[0].fold_case, memory=memory)
        many = re2.Set.FullMatchSet(chosen)
        try:
            for pattern in patterns:
                many.Add(pattern.source)
            probe = many.Add(_PROBE)
            many.Compile()
        except re2.error:
            memory *= 4
            continue
        # A set whose automaton does not fit its memory answers "nothing matches", silently.
        if many.Match(_PROBE) and probe in many.Match(_PROBE):
            return many.Match  # type: ignore[no-any-return]
        memory *= 4
    raise TooCostly(f"{len(patterns)} patterns do not fit one automaton of {_MOST_SET_MEMORY >> 20} MiB")
