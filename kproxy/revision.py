"""The revision of the policy that is in force, and what the files said that it was made of: swapped whole."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from kproxy import reload
from kproxy.config import Config
from kproxy.directory import Directory
from kproxy.reload import Wanted
from kproxy.state import ReloadStatus
from policy import NodePolicy

MOST_WARNINGS = 100
"""Most warnings that `status` shows: a person reads no more, and a folder of rules can have one for each rule."""


class Coming(NamedTuple):
    """What is to come into force: what the files say, compiled for this node, and what is worth a look in it."""

    wanted: Wanted
    policy: NodePolicy
    warnings: tuple[str, ...]


class Revision:
    """What is in force on this node.

    Attributes:
        wanted: what the files said when they were last good.
        policy: compiled of that.
        reload: what became of the last reading.
        warnings: what was accepted and is worth a look, of the files and of this node.
    """

    def __init__(self, config: Config, wanted: Wanted, directory: Directory) -> None:
        self._config, self._directory = config, directory
        self.wanted, self.policy, _ = self._compile(wanted, 1)
        self.reload = ReloadStatus(ok=True, time=_now())
        self.warnings: tuple[str, ...] = ()

    def first(self) -> Coming:
        """Give what was compiled to begin with."""
        return Coming(self.wanted, self.policy, reload.warnings(self.wanted, self.policy))

    def next(self, wanted: Wanted) -> Coming:
        """Compile what is to follow, for the node as it is now; on any thread.

        Raises:
            FileError: the rules cannot be in force together.
        """
        return self._compile(wanted, self.policy.revision + 1)

    def take_over(self, coming: Coming) -> tuple[str, ...]:
        """From here on this is in force; return the warnings that there were not before."""
        known = frozenset(self.warnings)
        self.wanted, self.policy, self.warnings = coming
        self.reload = msgspec.structs.replace(self.reload, warnings=_shown(self.warnings))
        return tuple(one for one in self.warnings if one not in known)

    def read(self) -> None:
        """What is in force is what the files say now."""
        self.reload = ReloadStatus(ok=True, time=_now(), warnings=_shown(self.warnings))

    def keep(self, errors: tuple[str, ...]) -> None:
        """What was read is wrong, and the last good state stays."""
        self.reload = ReloadStatus(
            ok=False, time=_now(), errors=tuple(map(_text, errors)), warnings=_shown(self.warnings)
        )

    def _compile(self, wanted: Wanted, number: int) -> Coming:
        policy = wanted.compile(self._config, self._directory.host_addresses, number)
        return Coming(wanted, policy, reload.warnings(wanted, policy))


def _text(line: str) -> str:
    """Write what is not UTF-8 in a file's name as escapes: JSON cannot hold it."""
    return line.encode("utf-8", "backslashreplace").decode()


def _shown(warnings: tuple[str, ...]) -> tuple[str, ...]:
    warnings = tuple(map(_text, warnings))
    if len(warnings) <= MOST_WARNINGS:
        return warnings
    return (*warnings[:MOST_WARNINGS], f"and {len(warnings) - MOST_WARNINGS} more: kproxy check tells all")


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
