"""How long a flow has waited for what it waits for, and whether that is too long."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from kproxy.http1.options import HttpOptions
from kproxy.http1.phase import BUSY, DRAINING, ENDING, IDLE, TUNNEL

# What an idle flow waits for once a part of a head has come.
A_HEAD: Final = "the rest of a head"

# Every byte is progress here. A head, a drain and an end must come in their time however bytes trickle in.
_ANY_BYTE_IS_PROGRESS: Final = (IDLE, BUSY, TUNNEL)


@lru_cache(maxsize=8)
def _limits(options: HttpOptions) -> dict[object, int]:
    """What may be waited for, and how long; one table serves all flows."""
    return {
        A_HEAD: options.head_ns,
        IDLE: options.idle_ns,
        BUSY: options.idle_ns,
        TUNNEL: options.idle_ns,
        DRAINING: options.head_ns,
        ENDING: options.linger_ns,
    }


class Patience:
    """Looks at the clock only when told, so that bytes cost no look: times are as fine as the ticks.

    moved: set by the flow whenever bytes or an end arrived. since: the tick that first saw what is waited
    for; the flow sets it to 0 when that was answered, even if the next of its kind has begun.
    """

    __slots__ = ("_for", "_limits", "moved", "since")

    def __init__(self, options: HttpOptions) -> None:
        self._limits = _limits(options)
        self._for: object = IDLE
        self.moved = True
        self.since = 0

    def over(self, now_ns: int, waiting_for: object) -> object:
        """What was waited for beyond its time, or None. `waiting_for` is a Phase or A_HEAD."""
        progress = self.moved and waiting_for in _ANY_BYTE_IS_PROGRESS
        if progress or waiting_for is not self._for or not self.since:
            self._for = waiting_for
            self.since = now_ns
        self.moved = False
        limit = self._limits.get(waiting_for)
        return waiting_for if limit is not None and now_ns - self.since > limit else None
