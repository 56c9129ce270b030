"""Paths that were seen into the fewest patterns that match them and little else.

A part of a path is a parameter only if it looks like one (a number, a UUID, a hash, a date) and at least
`PROOF` different values of it were seen between the same neighbours. Words stay words, however many there
are: `/admin` never disappears into a wildcard. What was seen less often is allowed as it was seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

# Two values of a kind happen by chance (/report/1, /report/2 may be two reports); three different ones, in the
# same place and of the same shape, seldom do.
PROOF = 3

_HEX = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_DATE = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
_TIME = "[0-9]{2}(?::|%3A)[0-9]{2}(?::|%3A)[0-9]{2}"
_NUMBER = "[0-9]+"
# Shapes of parameters, the narrow ones first, and the pattern that stands for each. A version (`v1`, `1.0`) is
# none: it says which program answers.
_SHAPES = tuple(
    (re.compile(text), text)
    for text in (
        # RFC 9562.
        _HEX,
        _HEX.replace("a-f", "A-F"),
        # RFC 3339.
        _DATE,
        f"{_DATE}T{_TIME}(?:\\.[0-9]+)?(?:Z|(?:[+-]|%2B)[0-9]{{2}}(?::|%3A)[0-9]{{2}})",
        _NUMBER,
        # A mail address (the usual part of RFC 5322's addr-spec).
        "[A-Za-z0-9._+-]+(?:@|%40)[A-Za-z0-9-]+(?:\\.[A-Za-z0-9-]+)+",
    )
)
# In the query a fraction is a measure (lat=52.5); in the path it may be a version (/1.0/).
_FRACTION = re.compile(r"-?[0-9]+\.[0-9]+|-[0-9]+")
_ANY_NUMBER = r"-?[0-9]+(?:\.[0-9]+)?"
# Identifiers of one length, in which digits and letters mix: object ids and hashes in hex, ULIDs in
# Crockford's base 32.
_MIXED = (
    (re.compile("(?=.*[0-9])(?=.*[a-f])[0-9a-f]{8,128}"), "[0-9a-f]"),
    (re.compile("(?=.*[0-9])(?=.*[A-F])[0-9A-F]{8,128}"), "[0-9A-F]"),
    (re.compile("(?=.*[A-Z])[0-7][0-9A-HJKMNP-TV-Z]{25}"), "[0-9A-HJKMNP-TV-Z]"),
)
# Base64 and its kin (RFC 4648 section 5): capitals, small letters, and digits in three places at least, which
# no name in camel case has.
_TOKEN = re.compile(r"(?=.*[A-Z])(?=.*[a-z])(?=(?:[^0-9]*[0-9]+[^0-9]+){2}.*[0-9])[A-Za-z0-9_-]{16,128}")
# No identifier is longer, and searching for its shape takes time that grows with the square of its length.
_LONGEST = 128
_EXTENSION = re.compile(r"(.+)(\.[a-z][a-z0-9]{0,4})")


@dataclass(frozen=True, slots=True)
class Generalised:
    """A pattern (RE2, for all of a path with its query) and the paths that it stands for."""

    pattern: str
    paths: tuple[str, ...]
    parameters: int


@dataclass(frozen=True, slots=True)
class _Family:
    """Paths that are alike but for what may be parameters; the first `settled` pieces are decided."""

    shapes: tuple[str, ...]
    members: list[tuple[str, ...]]
    settled: int = 0


def generalise(paths: Iterable[str]) -> list[Generalised]:
    """Patterns that together match every path, in the order of their text."""
    families: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for path in sorted(set(paths)):
        pieces = cut(path)
        families.setdefault(_shapes(pieces), []).append(pieces)
    found: list[Generalised] = []
    for shapes, members in families.items():
        found += _settle(_Family(shapes, members))
    return sorted(found, key=lambda one: one.pattern)


def cut(path: str) -> tuple[str, ...]:
    """A path in pieces: the even ones are separators (and the names of query parameters), the odd ones values."""
    plain, mark, query = path.partition("?")
    pieces = re.split(r"(/+)", plain)
    if not mark:
        return tuple(pieces)
    for at, pair in enumerate(query.split("&")):
        name, equals, value = pair.partition("=")
        pieces += [f"{'&' if at else '?'}{name}{equals}", value]
    return tuple(pieces)


def _shapes(pieces: tuple[str, ...]) -> tuple[str, ...]:
    """For each piece the pattern of the parameter that it may be; a plain word is its own, escaped."""
    query = next((at for at, piece in enumerate(pieces) if piece.startswith("?")), len(pieces))
    # Before the query, values stand at even places: cutting at separators begins with a value.
    return tuple(
        _value_shape(piece)
        if at > query and (at - query) % 2
        else _element_shape(piece)
        if at < query
        else escape(piece)
        for at, piece in enumerate(pieces)
    )


@lru_cache(maxsize=4096)
def _element_shape(piece: str) -> str:
    """The shape of a path element, whose extension stays (`/img/331.png`)."""
    shape = _shape(piece)
    extended = _EXTENSION.fullmatch(piece) if shape is None else None
    if extended is not None:
        stem = _shape(extended[1])
        shape = None if stem is None else stem + escape(extended[2])
    return escape(piece) if shape is None else shape


@lru_cache(maxsize=4096)
def _value_shape(piece: str) -> str:
    if _FRACTION.fullmatch(piece):
        return _ANY_NUMBER
    return _shape(piece) or escape(piece)


def _shape(piece: str) -> str | None:
    if len(piece) > _LONGEST:
        return None
    for recognise, pattern in _SHAPES:
        if recognise.fullmatch(piece):
            return pattern
    for recognise, one in _MIXED:
        if recognise.fullmatch(piece):
            return f"{one}{{{len(piece)}}}"
    return f"[A-Za-z0-9_-]{{{len(piece)}}}" if _TOKEN.fullmatch(piece) else None


def _settle(family: _Family) -> list[Generalised]:
    """Decide piece by piece: a parameter if there is proof of it, else each value by itself."""
    found: list[Generalised] = []
    left = [family]
    while left:
        one = left.pop()
        if len(one.members) < PROOF:
            found += [Generalised(escape("".join(member)), ("".join(member),), 0) for member in one.members]
        else:
            left += _split(one, found)
    return found


def _split(family: _Family, found: list[Generalised]) -> list[_Family]:
    """The families that a family falls into at its first unproven piece; without one it is a pattern."""
    shapes = list(family.shapes)
    for place in range(family.settled, len(shapes)):
        if shapes[place] == escape(family.members[0][place]):
            continue
        groups: dict[str, list[tuple[str, ...]]] = {}
        for member in family.members:
            groups.setdefault(member[place], []).append(member)
        if len(groups) == 1:
            shapes[place] = escape(family.members[0][place])
        elif len(groups) < PROOF:
            before, after = shapes[:place], shapes[place + 1 :]
            return [
                _Family((*before, escape(value), *after), members, place + 1)
                for value, members in groups.items()
            ]
    paths = tuple("".join(member) for member in family.members)
    parameters = sum(shape != escape(piece) for shape, piece in zip(shapes, family.members[0], strict=True))
    found.append(Generalised("".join(shapes), paths, parameters))
    return []


def escape(text: str) -> str:
    """Text as a pattern that matches just that."""
    return re.sub(r"([\\.+*?()\[\]{}|^$])", r"\\\1", text)
