"""When the client is read: not while somebody is slow, nor while pipelined requests fill their room."""

from __future__ import annotations

from typing import Final

from kproxy.http1.wire import Wire

SERVER_IS_SLOW: Final = 1
PIPELINE_IS_FULL: Final = 2
CLIENT_IS_SLOW: Final = 4
ANY_REASON: Final = SERVER_IS_SLOW | PIPELINE_IS_FULL | CLIENT_IS_SLOW


class Reading:
    """Pauses and resumes reading from the client, for any number of reasons at once."""

    __slots__ = ("_wire", "reasons")

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.reasons = 0

    def hold(self, reason: int) -> None:
        """Do not read, for this reason too."""
        if not self.reasons:
            self._wire.pause_downstream()
        self.reasons |= reason

    def release(self, reason: int) -> None:
        """This reason holds no longer."""
        if self.reasons:
            self.reasons &= ~reason
            if not self.reasons:
                self._wire.resume_downstream()
