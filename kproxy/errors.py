"""What can go wrong for a person who runs kproxy, as one exception tree.

Each error says what is wrong and where (its message), how to mend it (`mend`), and which exit code the
command ends with (`exit_code`).  `kproxy.cli.main` prints these and nothing else of them: a traceback on the
terminal means a defect in kproxy, never a mistake in a file or a missing kernel feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple


class Problem(NamedTuple):
    """One thing wrong in one file.

    `line` counts from 1 and is 0 where none is known; `pointer` is a JSON pointer (RFC 6901), empty for the
    whole document; `mend` may be empty where the message says it all.
    """

    file: str
    line: int
    pointer: str
    message: str
    mend: str = ""

    def __str__(self) -> str:
        """`file:line: pointer: message; mend`, in the form that editors can jump to."""
        place = f"{self.file}:{self.line}" if self.line else self.file
        told = f"{self.message}; {self.mend}" if self.mend else self.message
        return f"{place}: {self.pointer}: {told}" if self.pointer else f"{place}: {told}"


class KproxyError(Exception):
    """Root of the tree: an expected failure, with how to mend it."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, mend: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.mend = mend

    def lines(self) -> tuple[str, ...]:
        """Give the lines that a terminal shows: one, unless several places of a file are wrong."""
        return (f"{self.message}; {self.mend}" if self.mend else self.message,)


class FileError(KproxyError):
    """Files that kproxy was told to read are wrong; `problems` holds everything that is wrong in them."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)

    def lines(self) -> tuple[str, ...]:
        """Give one line for each problem."""
        return tuple(str(problem) for problem in self.problems)


class UsageError(KproxyError):
    """What was asked cannot be answered as it was asked: a name that nobody has, a port that is none."""

    exit_code = 2


class NotPermittedError(KproxyError):
    """The process lacks a privilege: it is not root, or lacks CAP_BPF, CAP_NET_ADMIN or CAP_SYS_ADMIN."""

    exit_code = 3


class KernelError(KproxyError):
    """The kernel lacks what cannot be done without: cgroup v2, or a BPF program type that it refused."""

    exit_code = 4


class AgentConflictError(KproxyError):
    """Another agent already holds a hook of which a socket, a cgroup or a namespace can have only one."""

    exit_code = 4


class AddressInUseError(KproxyError):
    """A listener's address and port are taken, or are not this host's."""

    exit_code = 5


class NamespaceError(KproxyError):
    """An endpoint's network namespace is not there, or is not a network namespace."""

    exit_code = 6


class OutputError(KproxyError):
    """A file that kproxy was told to write, such as the access log, cannot be opened."""

    exit_code = 7


class NodeUnreachableError(KproxyError):
    """No node answers at the admin address, or what answers is not kproxy."""

    exit_code = 8


DEFECT = 70
"""Exit code after a traceback (EX_SOFTWARE of sysexits.h)."""

EXIT_CODES: tuple[tuple[int, str], ...] = (
    (0, "success; check: no errors; status: ready; explain: allowed (or audited); policy diff: no change"),
    (1, "check found errors; status: not ready; explain: denied; policy diff: a verdict changes"),
    (2, "wrong usage, or a mistake in the configuration, endpoints or rules; explain: no node answers"),
    (3, "not permitted: run it as root"),
    (4, "the kernel lacks or refuses what is needed, or another agent holds the hook"),
    (5, "an address to listen on is taken or is not this host's"),
    (6, "an endpoint's network namespace is not there"),
    (7, "a file to write, such as the access log, cannot be opened"),
    (8, "no running node answers at the admin address"),
    (DEFECT, "a defect in kproxy: please report the traceback"),
)
"""Every exit code of the command, as `--help` and docs/operations.md show them."""
