"""Requests that are right but likely not meant: patterns that say something else, rules that decide nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import combinations, product
from typing import Any

from policy.anatomy import tokens
from policy.errors import Problem
from policy.model import HttpRule


def lint_patterns(rules: Sequence[HttpRule]) -> Iterator[Problem]:
    """Warnings about patterns, one by one."""
    for rule in rules:
        yield from _patterns(rule)


# `/jobs?page=2`: a name and a value after what was meant to begin a query.
_QUERY = re.compile(r"(?<![\\()*+?])\?[A-Za-z0-9_-]+=")


def _patterns(rule: HttpRule) -> Iterator[Problem]:
    path, host, method = rule.path, rule.host, rule.method
    meant = path is not None and path.text.endswith("$")
    for word in path.words if path else ():
        if word.endswith(b"/") and len(word) > 1 and not meant:
            text = word.decode()
            mend = f"write {text}.*, or {text}$ if just that is meant"
            yield _in(rule, "path", f"matches the path {text} itself and nothing below it", mend)
    if path and path.text.endswith("/*"):
        mend = f"write {path.text[:-1]}.*"
        yield _in(rule, "path", "the * repeats the / before it: patterns are no globs", mend)
    if path and _QUERY.search(path.text):
        yield _in(rule, "path", "the ? makes what is before it optional", r"write \? where a query begins")
    starts = [*path.words, path.head] if path else []
    if any(word and not word.startswith((b"/", b"*")) for word in starts):
        yield _in(rule, "path", f"{path} matches no path: all of a path is matched, and it begins with /")
    if host is not None and _bare_dot(host.source):
        yield _in(rule, "host", f"the dots of {host} match any character", r"write \. for a dot")
    for word in method.words if method else ():
        if word != word.upper():
            yield _in(
                rule, "method", f"methods are upper case: {word.decode()} is never sent", "write upper case"
            )


def _in(rule: HttpRule, name: str, message: str, mend: str = "") -> Problem:
    place = rule.place
    pointer = f"{place.pointer}/{name}"
    return Problem(place.file, place.line_of(pointer), pointer, message, mend)


def _bare_dot(source: bytes) -> bool:
    """Whether a `.` that is not repeated stands between letters or digits."""
    cut = tokens(source.removeprefix(b"^").removesuffix(b"$")) or []
    return any(
        dot.text == b"." and before.plain.isalnum() and after.plain.isalnum()
        for before, dot, after in zip(cut, cut[1:], cut[2:], strict=False)
    )


Conditions = tuple[Any, Any, Any, frozenset[Any]]
"""Method, host, path (None: any), and the tests of headers and query parameters."""

# A rule tests few headers; each more doubles the look-ups of what could cover it.
_MOST_TESTS = 6


def lint_shadowed(rules: Sequence[HttpRule], above: Sequence[HttpRule] = ()) -> Iterator[Problem]:
    """Rules that match nothing which another of them, or one of those `above`, does not; of two equal ones the
    later. They are found by look-up, as lists are long.
    """
    every = [rule for rule in (*above, *rules) if not rule.header_matches]
    first: dict[Conditions, HttpRule] = {}
    for rule in every:
        first.setdefault(_conditions(rule), rule)
    beginnings = _Beginnings(every)
    for rule in rules:
        if rule.header_matches:
            continue
        paths = {None, *beginnings.above(rule)}
        found = (first.get(one) for one in _wider(_conditions(rule), paths))
        other = next((one for one in found if one is not None and one is not rule), None)
        if other is not None:
            yield rule.place.problem(
                f"decides nothing: {other.name} matches all that it does", "remove one of the two"
            )


class _Beginnings:
    """Paths of which a list of rules allows all that begin so: `/jobs/.*`, and the prefix `/jobs`."""

    def __init__(self, rules: Sequence[HttpRule]) -> None:
        self._open = {
            rule.path.head: rule.path for rule in rules if rule.path and rule.path.parts.rest == b".*"
        }
        self._prefixes = {rule.path_prefix for rule in rules if rule.path_prefix}
        lengths = {len(begin) for begin in (*self._open, *self._prefixes)}
        self._lengths = sorted(lengths - {0}, reverse=True)

    def above(self, rule: HttpRule) -> Iterator[Any]:
        """The paths, as `_conditions` has them, that hold all that a rule's path does."""
        text, whole = _beginning(rule)
        for length in self._lengths:
            begin = text[:length]
            if len(begin) == length and begin in self._open:
                yield self._open[begin]
            if begin in self._prefixes and (
                text[length : length + 1] in (b"/", b"?") or (whole and text == begin)
            ):
                yield ("prefix", begin)


def _beginning(rule: HttpRule) -> tuple[bytes, bool]:
    """What each path begins with, and whether an element ends there."""
    if rule.path is not None:
        return (rule.path.words[0], True) if len(rule.path.words) == 1 else (rule.path.head, False)
    return rule.path_exact or rule.path_prefix or b"", True


def _conditions(rule: HttpRule) -> Conditions:
    everywhere = rule.path is not None and rule.path.text in (".*", "/.*")
    path = None if everywhere else rule.path or rule.path_exact or _prefix_key(rule)
    return rule.method, rule.host, path, frozenset((*rule.headers, *rule.query))


def _prefix_key(rule: HttpRule) -> tuple[str, bytes] | None:
    return None if not rule.path_prefix else ("prefix", rule.path_prefix)


def _wider(own: Conditions, paths: set[Any]) -> Iterator[Conditions]:
    """All conditions that are these, or leave some of them out, or have one of these paths."""
    method, host, path, tests = own
    kept = [frozenset(some) for n in range(len(tests) + 1) for some in combinations(tests, n)]
    if len(tests) > _MOST_TESTS:
        kept = [frozenset(), tests]
    for parts in product({method, None}, {host, None}, {path, *paths}):
        yield from ((*parts, some) for some in kept)
