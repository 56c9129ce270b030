"""Paths that were seen into the fewest patterns that match them and little else.

A path element is a parameter only if it looks like one (a number, a UUID, a hash, a date) and at least
`PROOF` different values of it were seen between the same neighbours. Words stay words, however many there
are: `/admin` never disappears into a wildcard. What was seen less often is allowed as it was seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# Two values of a kind happen by chance (/report/1, /report/2 may be two reports); three different ones, in the
# same place and of the same shape, seldom do.
PROOF = 3

# Shapes of parameters, the narrow ones first, and the pattern that stands for each.
_SHAPES = (
    *(
        (re.compile(text), text)
        for text in (
            "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
            "[0-9A-F]{8}-[0-9A-F]{4}-[0-9A-F]{4}-[0-9A-F]{4}-[0-9A-F]{12}",
            "[0-9]{4}-[0-9]{2}-[0-9]{2}",
            "[0-9]+",
        )
    ),
)
# Identifiers of one length, in which digits and letters mix: object ids, hashes.
_HASH = re.compile(r"(?=.*[0-9])(?=.*[a-f])[0-9a-f]{8,64}")


@dataclass(frozen=True, slots=True)
class Generalised:
    """A pattern (RE2, for all of a path with its query) and the paths that it stands for."""

    pattern: str
    paths: tuple[str, ...]
    parameters: int


def generalise(paths: Iterable[str]) -> list[Generalised]:
    """Patterns that together match every path, in the order of their text."""
    families: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for path in sorted(set(paths)):
        pieces = _pieces(path)
        families.setdefault(tuple(_shape(piece) for piece in pieces), []).append(pieces)
    found = [one for shapes, members in families.items() for one in _family(shapes, members)]
    return sorted(found, key=lambda one: one.pattern)


def _pieces(path: str) -> tuple[str, ...]:
    """A path cut so that each value is a piece, and what stands between them are pieces too."""
    return tuple(piece for piece in re.split(r"([/?&=])", path) if piece)


def _shape(piece: str) -> str:
    """The pattern of the parameter that a piece may be; a plain word is its own, escaped."""
    for recognise, pattern in _SHAPES:
        if recognise.fullmatch(piece):
            return pattern
    if _HASH.fullmatch(piece):
        return f"[0-9a-f]{{{len(piece)}}}"
    return escape(piece)


def _family(shapes: Sequence[str], members: list[tuple[str, ...]], at: int = 0) -> list[Generalised]:
    """Settle piece by piece: a parameter if there is proof of it, else each value by itself."""
    for place in range(at, len(shapes)):
        values = sorted({member[place] for member in members})
        if shapes[place] == escape(values[0]) or len(values) >= PROOF:
            continue
        settled = []
        for value in values:
            own = [*shapes[:place], escape(value), *shapes[place + 1 :]]
            settled += _family(own, [member for member in members if member[place] == value], place + 1)
        return settled
    paths = tuple("".join(member) for member in members)
    parameters = sum(shape != escape(piece) for shape, piece in zip(shapes, members[0], strict=True))
    return [Generalised("".join(shapes), paths, parameters)]


def escape(text: str) -> str:
    """Text as a pattern that matches just that."""
    return re.sub(r"([\\.+*?()\[\]{}|^$])", r"\\\1", text)
