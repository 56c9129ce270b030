"""The revision of the policy that is in force, and what the files said that it was made of: swapped whole."""

from __future__ import annotations

from datetime import UTC, datetime

from kproxy.config import Config
from kproxy.directory import Directory
from kproxy.reload import Wanted, problem
from kproxy.state import ReloadStatus
from policy import NodePolicy


class Revision:
    """What is in force on this node.

    Attributes:
        wanted: what the files said when they were last good.
        policy: compiled of that.
        reload: what became of the last reading.
    """

    def __init__(self, config: Config, wanted: Wanted, directory: Directory) -> None:
        self._config, self._directory = config, directory
        self.wanted = wanted
        self.policy: NodePolicy = self._compile(wanted, 1)
        self.reload = ReloadStatus(ok=True, time=_now())

    def next(self, wanted: Wanted) -> NodePolicy:
        """Compile what is to follow, for the node as it is now.

        Raises:
            FileError: the rules cannot be in force together.
        """
        return self._compile(wanted, self.policy.revision + 1)

    def take_over(self, wanted: Wanted, policy: NodePolicy) -> None:
        """From here on this is in force."""
        self.wanted, self.policy = wanted, policy
        warnings = (*wanted.warnings, *map(str, map(problem, policy.warnings)))
        self.reload = ReloadStatus(ok=True, time=_now(), warnings=warnings)

    def keep(self, errors: tuple[str, ...]) -> None:
        """What was read is wrong, and the last good state stays."""
        self.reload = ReloadStatus(ok=False, time=_now(), errors=errors)

    def _compile(self, wanted: Wanted, number: int) -> NodePolicy:
        return wanted.compile(self._config, self._directory.host_addresses, number)


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
