"""One HTTP rule as a list of conditions over a request: what the engine runs once it has found a candidate.

Each condition is a function of a request. The engine (`policy.engine`) leaves out those that its indexes
have answered already.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from policy.anatomy import Element
from policy.model import HeaderTest, HttpRule, QueryTest
from policy.patterns import Pattern
from policy.verdicts import Request

Condition = Callable[[Request], Any]

Headers = Sequence[tuple[bytes, bytes]]


# The functions below are made once for each pattern: ten thousand rules that ask the same question then run
# the same function, which stays in the processor's cache.
_shared = lru_cache(maxsize=65536)


def of_method(rule: HttpRule) -> Condition | None:
    """The method matches."""
    return None if rule.method is None else _method(rule.method)


@_shared
def _method(pattern: Pattern) -> Condition:
    matches = pattern.matcher()
    return lambda request: matches(request.method)


def of_host(rule: HttpRule, *, suffix_known: bool = False) -> Condition | None:
    """The host matches. `suffix_known`: it is known to end with the pattern's suffix."""
    if rule.host is None:
        return None
    if suffix_known and rule.host.suffix and not rule.host.head:
        return _host_before(rule.host.middle_matcher(), -len(rule.host.suffix))
    return _host(rule.host)


@_shared
def _host(pattern: Pattern) -> Condition:
    matches = pattern.matcher()
    return lambda request: matches(request.host)


@_shared
def _host_before(middle: Callable[[bytes], Any], end: int) -> Condition:
    return lambda request: middle(request.host[:end])


def of_path(rule: HttpRule, *, head_known: bool = False, tail_known: bool = False) -> Condition | None:
    """The path matches: a pattern with its query string, `pathExact` and `pathPrefix` without.

    `head_known`, `tail_known`: the path is known to begin with the pattern's head, to end with its suffix.
    """
    if rule.path is not None:
        if tail_known and head_known and rule.path.suffix:
            return _path_between(rule.path.middle_matcher(), len(rule.path.head), len(rule.path.suffix))
        if head_known and rule.path.head:
            return _path_from(rule.path.rest_matcher(), len(rule.path.head))
        return _path(rule.path)
    if rule.path_exact is not None:
        return _begins(rule.path_exact, _WHOLE) if not head_known else _ends(len(rule.path_exact), _WHOLE)
    if rule.path_prefix is not None:
        return _begins(rule.path_prefix, _PART) if not head_known else _ends(len(rule.path_prefix), _PART)
    return None


# What may follow a path that is meant whole, and one that others may stand below.
_WHOLE = (b"", b"?")
_PART = (b"", b"/", b"?")


@_shared
def _path_from(rest: Callable[[bytes], Any], after: int) -> Condition:
    return lambda request: rest(request.path[after:])


@_shared
def _path_between(middle: Callable[[bytes], Any], head: int, tail: int) -> Condition:
    def between(request: Request) -> Any:
        path = request.path
        # What is head and what is suffix must not be the same bytes.
        return len(path) >= head + tail and middle(path[head : len(path) - tail])

    return between


def of_path_around(pattern: Pattern, element: Element) -> Condition:
    """The path matches, given that its part number `element.place` is the element's text."""
    return _around(*pattern.around_matchers(element), element.place)


@_shared
def _around(before: Callable[[bytes], Any], after: Callable[[bytes], Any] | None, place: int) -> Condition:
    expected = place + (1 if after is None else 2)

    def around(request: Request) -> Any:
        parts = request.path.split(b"/", place + 1)
        if len(parts) != expected or not before(b"/".join(parts[:place])):
            return False
        return after is None or after(parts[-1])

    return around


@_shared
def _path(pattern: Pattern) -> Condition:
    head, after = pattern.head, len(pattern.head)
    if not head:
        matches = pattern.matcher()
        return lambda request: matches(request.path)
    rest = pattern.rest_matcher()

    def path(request: Request) -> Any:
        value = request.path
        return value.startswith(head) and rest(value[after:])

    return path


@_shared
def all_of(conditions: tuple[Condition, ...]) -> tuple[Condition, ...]:
    """The same conditions as one shared tuple."""
    return conditions


@_shared
def _begins(begin: bytes, then: tuple[bytes, ...]) -> Condition:
    """Whole path elements: `/jobs` covers `/jobs` and `/jobs/1`, not `/jobsearch` (as in Gateway API)."""
    after = len(begin)

    def begins(request: Request) -> bool:
        path = request.path
        return path.startswith(begin) and path[after : after + 1] in then

    return begins


@_shared
def _ends(after: int, then: tuple[bytes, ...]) -> Condition:
    """The same, given that the path begins so."""
    return lambda request: request.path[after : after + 1] in then


def of_rest(rule: HttpRule, *, deny: bool, known: HeaderTest | None = None) -> tuple[Condition, ...]:
    """Headers and query parameters; `known`: a header that is known to have its value."""
    headers = [_header(test, deny) for test in rule.headers if test != known]
    return (*headers, *(_query(test, deny) for test in rule.query))


def values_of(headers: Headers, name: bytes) -> list[bytes]:
    """All values of a header, in order."""
    return [value for key, value in headers if key == name]


@_shared
def _header(test: HeaderTest, deny: bool) -> Condition:
    """A repeated header: an allow rule compares the joined value (as Envoy does), a deny rule each."""
    name, wanted = test.name, test.value
    if wanted is None:
        return lambda request: any(key == name for key, _ in request.headers)
    if deny:
        return lambda request: wanted in _sent(tuple(values_of(request.headers, name)))
    return lambda request: joined(request.headers, name) == wanted


# A long list in a header is taken apart once, not again for each of a thousand rules that look at it.
@lru_cache(maxsize=16)
def _sent(values: tuple[bytes, ...]) -> frozenset[bytes]:
    """All that a repeated header says: each field, each member of a list in one, and all of them joined."""
    members = (member.strip(b" \t") for value in values for member in value.split(b","))
    return frozenset((*values, *members, b",".join(values))) if values else frozenset()


def joined(headers: Headers, name: bytes) -> bytes | None:
    """The comma-joined value of a header (Envoy, getAllOfHeaderAsString), or None without one."""
    values = values_of(headers, name)
    return b",".join(values) if values else None


_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")


def _decode(text: bytes) -> bytes | None:
    """Percent-decoded, plus as a blank (WHATWG URL, application/x-www-form-urlencoded); None if malformed."""
    if b"%" not in text:
        return text.replace(b"+", b" ")
    if text.count(b"%") != len(_ESCAPE.findall(text)):
        return None
    return _ESCAPE.sub(lambda found: bytes((int(found[1], 16),)), text.replace(b"+", b" "))


@dataclass(frozen=True, slots=True)
class Parameters:
    """The decoded query parameters of a path: all values by name, None for a value that cannot be decoded."""

    values: Mapping[bytes, Sequence[bytes | None]]
    readable: bool
    """Whether every name could be decoded."""


# Several rules look at one request's query in turn; a few requests are judged at a time.
@lru_cache(maxsize=16)
def parameters(path: bytes, separators: str = "&") -> Parameters:
    """The parameters of a path's query string, split at any of these characters."""
    values: dict[bytes, list[bytes | None]] = {}
    readable = True
    for part in re.split(f"[{separators}]".encode(), path.partition(b"?")[2]):
        name, _, value = part.partition(b"=")
        decoded = _decode(name)
        if decoded is None:
            readable = False
        elif part:
            values.setdefault(decoded, []).append(_decode(value))
    return Parameters(values, readable)


@_shared
def _query(test: QueryTest, deny: bool) -> Condition:
    """A parameter: allow rules want each of its values to match, deny rules any, or one that is unreadable.

    Some servers separate parameters at semicolons too, so a deny rule looks at both readings.
    """
    name = test.name
    matches: Callable[[bytes], Any] = test.value.matcher() if test.value else lambda value: True

    def denied(request: Request) -> bool:
        for separators in ("&", "&;") if b";" in request.path else ("&",):
            found = parameters(request.path, separators)
            values = found.values.get(name, ())
            if not found.readable or any(value is None or matches(value) for value in values):
                return True
        return False

    def allowed(request: Request) -> bool:
        found = parameters(request.path)
        values = found.values.get(name, ())
        return found.readable and bool(values) and all(v is not None and matches(v) for v in values)

    return denied if deny else allowed
