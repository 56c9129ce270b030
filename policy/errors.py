"""What can go wrong with rules, as values and as exceptions.

Reading never raises: it returns every `Problem` of every file at once, so that an operator mends a file in
one go. Compiling raises, as a policy that cannot be compiled whole must not come into force in part.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, or likely not meant, and where it stands.

    `line` counts from 1 (0: the file as a whole); `pointer` is a JSON pointer (RFC 6901) into the file. In a
    file of several YAML documents its first part is the number of the document, from 0.
    """

    file: str
    line: int
    pointer: str
    message: str
    mend: str = ""
    """What to write instead, where that can be said."""

    def __str__(self) -> str:
        """One line for a terminal, in the form that editors can jump to."""
        where = f"{self.file}:{self.line}" if self.line else self.file
        place = f"{where}: {self.pointer}" if self.pointer else where
        return f"{place}: {self.message}; {self.mend}" if self.mend else f"{place}: {self.message}"


class PolicyError(Exception):
    """The root of what this package raises."""


class CompileError(PolicyError):
    """Rules that are right each by itself cannot come into force together; nothing of them may."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


class AddressConflict(PolicyError):
    """Two workloads claim one address, so that no one could say whose rules apply to it."""


class UnknownEndpoint(PolicyError):
    """There is no workload of that namespace and name."""
