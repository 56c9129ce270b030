"""Keeps the splicer's credit going on the event loop, and turns the kernel's events into calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from sockmap.hooks import Hooks
from sockmap.layout import Event, EventKind

# How often directions that went by TCP are considered; each has its own, growing wait (splicer.FIRST_RETRY_S).
RETRY_S = 0.003


class CreditLoop:
    """Refills on events, retries on a timer that runs only while there is something to retry.

    Args:
        decided: called for each connection or datagram that the kernel denied, or audited, and told of.
        stranger: called when a connection came from or went to a namespace that is not known.
    """

    def __init__(self, hooks: Hooks, decided: Callable[[Event], None], stranger: Callable[[], None]) -> None:
        self._hooks, self._decided, self._stranger = hooks, decided, stranger
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._descriptor = hooks.on_event(self._event)
        self._loop.add_reader(self._descriptor, self._ready)

    def close(self) -> None:
        """Stop."""
        self._loop.remove_reader(self._descriptor)
        if self._timer is not None:
            self._timer.cancel()

    def _ready(self) -> None:
        self._hooks.consume()
        self._hooks.splicer.refill()
        if self._timer is None and self._hooks.splicer.retrying:
            self._timer = self._loop.call_later(RETRY_S, self._retry)

    def _retry(self) -> None:
        self._hooks.splicer.retry(time.monotonic())
        again = self._hooks.splicer.retrying
        self._timer = self._loop.call_later(RETRY_S, self._retry) if again else None

    def _event(self, event: Event) -> None:
        if event.kind in (EventKind.DENIED, EventKind.AUDITED):
            self._decided(event)
        elif event.kind == EventKind.STRANGER:
            self._stranger()
        else:
            self._hooks.splicer.event(event, time.monotonic())
