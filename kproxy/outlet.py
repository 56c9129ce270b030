"""One side's way out: a transport, and for a spliced socket the credit that its reader has left.

Through a splice bytes go straight into the reader's queue, and the kernel does not hold the writer back. An
application writes on by TCP when its credit is used up; kproxy does not: it waits here. What an application's
socket in the map receives by TCP is not counted by FIONREAD on current kernels, and nginx, Java and .NET would
wait for it for ever.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from sockmap.splicer import Allowance

# The program that moves messages runs once for up to some 544 KiB of one write; a piece stays well below.
MAX_PIECE = 256 * 1024

# Nobody tells when the reader has read: it is looked at again after this long, twice as long after each look in
# vain. A reader that stopped for good costs four looks of some 10 us a second.
FIRST_LOOK_S, LAST_LOOK_S = 0.0005, 0.25

# What is held when the connection is to end in good order waits this long for its reader, then it is reset.
FLUSH_S = 60.0


class Outlet:
    """Writes to one transport, within credit.

    Args:
        on_writable: told when no more should be written for now, and when it may be again.
        on_stuck: called when what was held could not be delivered before the end.
    """

    __slots__ = (
        "_allowance",
        "_blocked",
        "_deadline",
        "_full",
        "_held",
        "_on_stuck",
        "_on_writable",
        "_then",
        "_timer",
        "_wait",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, on_writable: Callable[[bool], None], on_stuck: Callable[[], None]) -> None:
        self._on_writable, self._on_stuck = on_writable, on_stuck
        self._allowance: Allowance | None = None
        self._held: deque[memoryview] = deque()
        self._full = self._blocked = False
        self._wait = FIRST_LOOK_S
        self._deadline = 0.0
        self._then: Callable[[], None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def splice(self, allowance: Allowance) -> None:
        """Write within this credit from now on."""
        self._allowance = allowance

    def write(self, data: bytes) -> None:
        """Write now, or as soon as the reader has room."""
        allowance = self._allowance
        if allowance is None or (not self._held and allowance.spend(len(data))):
            self.transport.write(data)
        else:
            self._hold(data)

    def transport_full(self, full: bool) -> None:
        """The transport's own buffer is over its high mark, or below its low one again."""
        self._full = full
        self._tell()

    def after_flush(self, then: Callable[[], None]) -> None:
        """Call ``then`` when nothing is held any more: at once, mostly."""
        if self._held:
            self._then = then
            self._deadline = asyncio.get_running_loop().time() + FLUSH_S
        else:
            then()

    def drop(self) -> None:
        """Forget what is held: the connection is gone."""
        self._held.clear()
        self._then = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _hold(self, data: bytes) -> None:
        self._held.append(memoryview(data))
        if self._timer is None:
            self._deliver()

    def _deliver(self) -> None:
        """Look at the reader, write what it has room for, and come back for the rest."""
        self._timer = None
        allowance = self._allowance
        assert allowance is not None, "only a spliced outlet holds"
        allowance.refresh()
        moved = False
        while self._held and (room := min(allowance.room(), MAX_PIECE)) > 0:
            piece, rest = self._held[0][:room], self._held[0][room:]
            allowance.spend(len(piece))
            self.transport.write(piece)
            moved = True
            if rest:
                self._held[0] = rest
            else:
                self._held.popleft()
        if self._held:
            self._come_back(moved)
        self._tell()
        if not self._held and self._then is not None:
            then, self._then = self._then, None
            then()

    def _come_back(self, moved: bool) -> None:
        loop = asyncio.get_running_loop()
        if self._then is not None and loop.time() > self._deadline:
            self._on_stuck()
            return
        self._wait = FIRST_LOOK_S if moved else min(self._wait * 2, LAST_LOOK_S)
        self._timer = loop.call_later(self._wait, self._deliver)

    def _tell(self) -> None:
        blocked = self._full or bool(self._held)
        if blocked != self._blocked:
            self._blocked = blocked
            self._on_writable(not blocked)
