"""The indexes of the engine: each answers for the rules below it, or names the few that could match.

A node holds what requests are compared with; how rules are spread over nodes is `policy.engine`'s matter.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import re2

from policy.conditions import Condition
from policy.errors import PolicyError
from policy.patterns import Pattern, options
from policy.verdicts import Judgement, Request

# Prefixes of up to this many lengths are faster looked up, once for each length, than searched for.
FEW_LENGTHS = 5
# What one RE2 set may use: it keeps the states of its automaton that values have led to, and begins anew when
# they fill this. A state of MAX_STEPS instructions takes up to 8 kB, so that 4,000 of them fit.
_SET_MEMORY = 32 << 20
# Matched by no request (targets hold no NUL): shows that a set's automaton could be built at all.
_PROBE = b"\x00"


# One byte of a value may visit this many instructions of the patterns on one port: where nothing of the
# automaton can be cached, 3 to 10 ns each (measured; the most for counted repetitions behind a star). That is 25
# to 80 ms on a path of 8 KiB made for it, and a few milliseconds on others.
MAX_STEPS = 1_000


class TooCostly(PolicyError):
    """Patterns that no index tells apart, and that could stall the node together on a long path."""

    def __init__(self, steps: int) -> None:
        super().__init__(
            f"the rules on this port come to {steps} instructions for each byte of a path, "
            f"{MAX_STEPS} are allowed"
        )

    mend = "begin path patterns with plain text (/jobs/.*) or end them with it, or use pathPrefix"


class Node(Protocol):
    """An index over rules."""

    @property
    def steps(self) -> int:
        """Instructions that one byte of a request may visit, at the worst (bounds the time for a long path)."""

    def first(self, request: Request) -> Judgement | None:
        """The answer of a rule that matches, or None if none does."""

    def candidates(self, request: Request) -> Sequence[Leaf]:
        """The rules that could match: all that do, and few others."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A rule's remaining conditions, and what is answered where they hold."""

    conditions: tuple[Condition, ...]
    answer: Judgement
    order: int
    steps: int

    def first(self, request: Request) -> Judgement | None:
        """The answer, if every remaining condition holds."""
        for condition in self.conditions:
            if not condition(request):
                return None
        return self.answer

    def candidates(self, request: Request) -> Sequence[Leaf]:
        """Itself."""
        return (self,)


class Leaves:
    """No index: the rules themselves."""

    __slots__ = ("leaves", "steps")

    def __init__(self, leaves: Iterable[Leaf]) -> None:
        self.leaves = tuple(leaves)
        self.steps = sum(leaf.steps for leaf in self.leaves)

    def first(self, request: Request) -> Judgement | None:
        """The answer of the first that matches."""
        for leaf in self.leaves:
            for condition in leaf.conditions:
                if not condition(request):
                    break
            else:
                return leaf.answer
        return None

    def candidates(self, request: Request) -> Sequence[Leaf]:
        """All of them."""
        return self.leaves


def _together(keys: Iterable[bytes]) -> list[bytes]:
    """Copies that lie side by side in memory: between what else was read of a file they are a miss each."""
    return [bytes(bytearray(key)) for key in keys]


class ByWord:
    """A table by one part of the request; rules that name no plain words stand beside it."""

    __slots__ = ("_get", "_others", "_table", "steps")

    def __init__(
        self, get: Callable[[Request], bytes | None], table: Mapping[bytes, Node], others: Node | None
    ) -> None:
        self._get = get
        self._table: Mapping[Any, Node] = dict(zip(_together(table), table.values(), strict=True))
        self._others = others
        self.steps = max(node.steps for node in table.values()) + (others.steps if others else 0)

    def first(self, request: Request) -> Judgement | None:
        """Of the word, then of the others."""
        node = self._table.get(self._get(request))
        answer = node.first(request) if node is not None else None
        if answer is not None or self._others is None:
            return answer
        return self._others.first(request)

    def candidates(self, request: Request) -> Sequence[Leaf]:
        """Those of the word, then the others."""
        node = self._table.get(self._get(request))
        others = self._others
        if node is None:
            return others.candidates(request) if others is not None else ()
        found = node.candidates(request)
        return found if others is None else (*found, *others.candidates(request))


class ByPrefix:
    """Prefixes in order, each with those that it begins with itself.

    All prefixes of a value are the last one that does not sort after it, or begin that one: every string
    between a prefix of the value and the value itself begins with that prefix.
    """

    __slots__ = ("_get", "_lengths", "_nodes", "_others", "_parents", "_prefixes", "steps")

    def __init__(
        self, get: Callable[[Request], bytes], begins: Mapping[bytes, Node], others: Node | None
    ) -> None:
        self._get = get
        self._others = others
        self._prefixes = _together(sorted(begins))
        self._parents: dict[bytes, bytes | None] = {}
        self._nodes: dict[bytes, Node] = {}
        before: bytes | None = None
        for prefix in self._prefixes:
            above = self._parents[prefix] = self._beginning(prefix, before)
            self._nodes[prefix] = _both(begins[prefix], self._nodes[above]) if above else begins[prefix]
            before = prefix
        self._lengths = sorted({len(prefix) for prefix in self._prefixes}, reverse=True)
        self.steps = max(node.steps for node in self._nodes.values()) + (others.steps if others else 0)

    def _beginning(self, value: bytes, prefix: bytes | None) -> bytes | None:
        """The longest prefix of a value, given the last one that does not sort after it."""
        while prefix is not None and not value.startswith(prefix):
            prefix = self._parents[prefix]
        return prefix

    def _find(self, value: bytes) -> Node | None:
        """What stands at the longest prefix of a value."""
        if len(self._lengths) <= FEW_LENGTHS:
            for length in self._lengths:
                node = self._nodes.get(value[:length])
                if node is not None:
                    return node
            return None
        at = bisect_right(self._prefixes, value) - 1
        prefix = self._beginning(value, self._prefixes[at] if at >= 0 else None)
        return None if prefix is None else self._nodes[prefix]

    def first(self, request: Request) -> Judgement | None:
        """Of each prefix of the value, the longest first, then of the others."""
        node = self._find(self._get(request))
        answer = node.first(request) if node is not None else None
        if answer is not None or self._others is None:
            return answer
        return self._others.first(request)

    def candidates(self, request: Request) -> Sequence[Leaf]:
        """Those of each prefix of the value, and the others."""
        node = self._find(self._get(request))
        others = self._others
        if node is None:
            return others.candidates(request) if others is not None else ()
        found = node.candidates(request)
        return found if others is None else (*found, *others.candidates(request))


def _both(node: Node, above: Node) -> Node:
    """The rules at one prefix and at those that it begins with."""
    if isinstance(node, Leaf | Leaves) and isinstance(above, Leaf | Leaves):
        return Leaves((*_of(node), *_of(above)))
    return Both(node, above)


def _of(node: Leaf | Leaves) -> tuple[Leaf, ...]:
    return node.leaves if isinstance(node, Leaves) else (node,)


class Both:
    """Two indexes, both of which are asked."""

    __slots__ = ("_first", "_second", "steps")

    def __init__(self, first: Node, second: Node) -> None:
        self._first = first
        self._second = second
        self.steps = first.steps + second.steps

    def first(self, request: Request) -> Judgement | None:
        """Of the one, then of the other."""
        return self._first.first(request) or self._second.first(request)

    def candidates(self, request: Request) -> Sequence[Leaf]:
        """Those of the one, then of the other."""
        return (*self._first.candidates(request), *self._second.candidates(request))


class ByPatterns:
    """One automaton that says which of many patterns match."""

    __slots__ = ("_get", "_match", "_nodes", "_others", "steps")

    def __init__(
        self, get: Callable[[Request], bytes], nodes: dict[Pattern, Node], others: Node | None
    ) -> None:
        self._get = get
        self._nodes = list(nodes.values())
        self._others = others
        self._match = _set(list(nodes))
        below = max(node.steps for node in self._nodes) + (others.steps if others else 0)
        self.steps = sum(pattern.program for pattern in nodes) + below

    def first(self, request: Request) -> Judgement | None:
        """Of each pattern that matches, then of the others."""
        for at in self._match(self._get(request)) or ():
            answer = self._nodes[at].first(request)
            if answer is not None:
                return answer
        return self._others.first(request) if self._others is not None else None

    def candidates(self, request: Request) -> Sequence[Leaf]:
        """Those of each pattern that matches, and the others."""
        found: list[Leaf] = []
        for at in self._match(self._get(request)) or ():
            found += self._nodes[at].candidates(request)
        if self._others is not None:
            found += self._others.candidates(request)
        return found


def _set(patterns: Sequence[Pattern]) -> Callable[[bytes], list[int] | None]:
    """An RE2 set. All its patterns fold case alike, as they are of one question.

    Raises:
        TooCostly: they are too large together.
    """
    steps = sum(pattern.program for pattern in patterns)
    many = re2.Set.FullMatchSet(options(fold_case=patterns[0].fold_case, memory=_SET_MEMORY))
    try:
        for pattern in patterns:
            many.Add(pattern.source)
        many.Add(_PROBE)
        many.Compile()
    except re2.error:
        raise TooCostly(steps) from None
    # A set whose automaton does not fit its memory answers "nothing matches", silently.
    if steps > MAX_STEPS or not many.Match(_PROBE):
        raise TooCostly(steps)
    match: Callable[[bytes], list[int] | None] = many.Match
    return match
