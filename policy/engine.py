"""Finding the few rules that could match a request among ten thousand, at a cost that does not grow.

Rules become a tree of indexes. Each level answers one question that all rules below it ask: a look-up by
value where rules name plain words (method, host, path, a header), a search among literal prefixes where path
patterns begin or end with one (`/jobs/` of `/jobs/[0-9]+`), one RE2 set where patterns remain. At a leaf is
a handful of rules, tested one by one for what no index has answered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat
from operator import attrgetter

from policy import conditions
from policy.anatomy import Element
from policy.conditions import Condition
from policy.indexes import MAX_STEPS, ByPatterns, ByPrefix, ByWord, Leaf, Leaves, Node, TooCostly
from policy.model import HeaderTest, HttpRule
from policy.patterns import Pattern
from policy.verdicts import Judgement, Request

# Up to this many rules, testing them one by one costs less than an index does.
FEW = 3


@dataclass(frozen=True, slots=True)
class _Item:
    """A rule on its way down the tree, with the questions that indexes above have answered."""

    rule: HttpRule
    answer: Judgement
    order: int
    deny: bool
    answered: frozenset[str] = frozenset()
    element: Element | None = None
    """The plain path element by which it was found."""
    header: HeaderTest | None = None
    """The header by whose value it was found."""

    def without(self, question: str) -> _Item:
        return replace(self, answered=self.answered | {question})

    def open_pattern(self, question: str) -> Pattern | None:
        """The pattern that must still be matched."""
        return None if question in self.answered else _PATTERN[question](self.rule)

    def leaf(self) -> Leaf:
        asked = [
            None if "method" in self.answered else conditions.of_method(self.rule),
            None
            if "host" in self.answered
            else conditions.of_host(self.rule, suffix_known="suffix" in self.answered),
            None if "path" in self.answered else self._path(),
        ]
        rest = conditions.of_rest(self.rule, deny=self.deny, known=self.header)
        together = conditions.all_of((*(one for one in asked if one is not None), *rest))
        return Leaf(together, self.answer, self.order, self.steps)

    def _path(self) -> Condition | None:
        if self.element is not None and self.rule.path is not None:
            return conditions.of_path_around(self.rule.path, self.element)
        return conditions.of_path(
            self.rule, head_known="head" in self.answered, tail_known="tail" in self.answered
        )

    @property
    def steps(self) -> int:
        """Program sizes of the patterns that a leaf of this would run, and one for asking it at all."""
        patterns = [self.open_pattern(question) for question in _PATTERN]
        patterns += [test.value for test in self.rule.query]
        return 1 + sum(pattern.program for pattern in patterns if pattern and not pattern.words)


_PATTERN: dict[str, Callable[[HttpRule], Pattern | None]] = {
    "method": attrgetter("method"),
    "host": attrgetter("host"),
    "path": attrgetter("path"),
}
_GET: dict[str, Callable[[Request], bytes]] = {
    "method": attrgetter("method"),
    "host": attrgetter("host"),
    "path": attrgetter("path"),
}
Build = Callable[[list[_Item]], Node]


def build(rules: Iterable[HttpRule], answers: Iterable[Judgement], *, deny: bool = False) -> Node:
    """The index over rules of one kind, with what is answered where each of them matches.

    Deny rules compare repeated headers and parameters otherwise than allow rules.

    Raises:
        TooCostly: the patterns that no index tells apart could stall the node.
    """
    both = zip(rules, answers, strict=True)
    node = _by_method([_Item(rule, answer, order, deny) for order, (rule, answer) in enumerate(both)])
    if node.steps > MAX_STEPS:
        raise TooCostly(node.steps)
    return node


def cost(rules: Sequence[HttpRule], *, deny: bool) -> None:
    """Check rules of one list by themselves, before it is known which others they come into force with.

    Raises:
        TooCostly: as for `build`.
    """
    patterns = [pattern for rule in rules for get in _PATTERN.values() if (pattern := get(rule))]
    if len(rules) + sum(pattern.program for pattern in patterns) > MAX_STEPS:
        unused = Judgement("deny", False, "", "", False)
        build(rules, repeat(unused, len(rules)), deny=deny)


def _leaves(items: Sequence[_Item]) -> Node:
    leaves = [item.leaf() for item in items]
    # One alone stands for itself: each object on the way to it may be a miss of the cache.
    return leaves[0] if len(leaves) == 1 else Leaves(leaves)


def _by_method(items: list[_Item]) -> Node:
    return _by_words("method", items, below=_by_host, beside=_by_host)


def _by_host(items: list[_Item]) -> Node:
    return _by_words("host", items, below=_by_path, beside=_by_host_suffix)


def _by_path(items: list[_Item]) -> Node:
    return _by_words("path", items, below=_by_header, beside=_by_path_head)


def _by_words(question: str, items: list[_Item], *, below: Build, beside: Build) -> Node:
    """A table from the plain words that rules name to the rules below them; other rules beside it."""
    if len(items) <= FEW:
        return _leaves(items)
    table: dict[bytes, list[_Item]] = {}
    others: list[_Item] = []
    for item in items:
        pattern = item.open_pattern(question)
        words = pattern.words if pattern else ()
        for word in words:
            table.setdefault(word, []).append(item.without(question))
        if not words:
            others.append(item)
    if not table:
        return beside(items)
    nodes = {word: below(found) for word, found in table.items()}
    return ByWord(_GET[question], nodes, beside(others) if others else None)


def _by_path_head(items: list[_Item]) -> Node:
    """By the plain text that paths begin with; what says nothing of it stands beside."""
    keyed = [(_path_head(item.rule), item.without("head")) for item in items]
    return _by_prefixes(keyed, _GET["path"], _by_element)


def _by_element(items: list[_Item]) -> Node:
    """By one element of the path that many patterns name, wherever it stands: `jobs` of `/v[0-9]+/jobs/.*`."""
    if len(items) <= FEW:
        return _leaves(items)
    texts: dict[int, set[bytes]] = {}
    for item in items:
        for one in _elements(item):
            texts.setdefault(one.place, set()).add(one.text)
    place = max(texts, key=lambda one: len(texts[one]), default=0)
    if len(texts.get(place, ())) <= FEW:
        return _by_path_tail(items)
    table: dict[bytes, list[_Item]] = {}
    others: list[_Item] = []
    for item in items:
        element = next((one for one in _elements(item) if one.place == place), None)
        if element is None:
            others.append(item)
        else:
            table.setdefault(element.text, []).append(replace(item, element=element))
    nodes = {text: _by_header(own) for text, own in table.items()}
    return ByWord(partial(_element_of, place), nodes, _by_path_tail(others) if others else None)


def _elements(item: _Item) -> tuple[Element, ...]:
    pattern = item.open_pattern("path")
    return pattern.parts.elements if pattern else ()


def _element_of(place: int, request: Request) -> bytes | None:
    parts = request.path.split(b"/", place + 1)
    return parts[place] if place < len(parts) else None


def _by_path_tail(items: list[_Item]) -> Node:
    """By the plain text that paths end with, read backwards."""
    if len(items) <= FEW:
        return _leaves(items)
    keyed = [(_path_tail(item)[::-1], item.without("tail")) for item in items]
    return _by_prefixes(keyed, _path_backwards, _by_header)


def _path_tail(item: _Item) -> bytes:
    pattern = item.open_pattern("path")
    return pattern.suffix if pattern else b""


def _path_backwards(request: Request) -> bytes:
    return request.path[::-1]


def _path_head(rule: HttpRule) -> bytes:
    return rule.path.head if rule.path else rule.path_exact or rule.path_prefix or b""


def _by_host_suffix(items: list[_Item]) -> Node:
    """By the plain text that hosts end with, read backwards."""
    keyed = [(_host_suffix(item.rule)[::-1], item.without("suffix")) for item in items]
    return _by_prefixes(keyed, _host_backwards, _by_path)


def _host_suffix(rule: HttpRule) -> bytes:
    return rule.host.suffix if rule.host else b""


def _host_backwards(request: Request) -> bytes:
    return request.host[::-1]


def _by_prefixes(keyed: list[tuple[bytes, _Item]], get: Callable[[Request], bytes], below: Build) -> Node:
    groups: dict[bytes, list[_Item]] = {}
    for key, item in keyed:
        groups.setdefault(key, []).append(item)
    others = groups.pop(b"", None)
    if not groups:
        return below(others or [])
    nodes = {key: below(found) for key, found in groups.items()}
    return ByPrefix(get, nodes, below(others) if others else None)


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
        test = next(
            (test for test in item.rule.headers if test.name == name and test.value is not None), None
        )
        if test is None or test.value is None:
            others.append(item)
        else:
            table.setdefault(test.value, []).append(replace(item, header=test))
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
        pattern = item.open_pattern(question)
        (groups.setdefault(pattern, []) if pattern else others).append(item)
    if len(groups) < 2:
        return _by_patterns(items, rest)
    nodes = {
        pattern: _by_patterns([item.without(question) for item in found], rest)
        for pattern, found in groups.items()
    }
    return ByPatterns(_GET[question], nodes, _by_patterns(others, rest) if others else None)
