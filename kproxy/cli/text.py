"""Text for people on a terminal: nothing that a request held may move the cursor or change a colour."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tabulate import tabulate

MAX_CELL = 160
"""Most of one text in a table: a path of 8 KiB would push everything else off the screen."""


def printable(text: str) -> str:
    r"""Escape what is not printable: ESC becomes `\x1b`, a line break `\n`, U+202E (right to left) `\u202e`.

    Paths, hosts and methods in an access log are written by whoever sends requests.
    """
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def cell(text: str, most: int = MAX_CELL) -> str:
    """The same, cut where it is long, with its whole length."""
    shown = printable(text[:most])
    return shown if len(text) <= most else f"{shown}… ({len(text)} characters)"


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns under their headers; a cell may have several lines, each of which must be printable."""
    return tabulate(list(rows), headers, tablefmt="simple", disable_numparse=True)


def indented(text: str, by: str = "  ") -> str:
    """Every line moved to the right, without white space at the ends of lines."""
    return "\n".join((by + line).rstrip() for line in text.splitlines())


def counted(number: int, word: str) -> str:
    """`1 request`, `3 requests`."""
    return f"{number} {word}{'' if number == 1 else 's'}"
