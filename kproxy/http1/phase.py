"""Where a flow stands; the drawing is in `flow`."""

from __future__ import annotations

from enum import Enum
from typing import Final


class Phase(Enum):
    """The states of a flow."""

    IDLE = "no request is under way"
    BUSY = "a request was sent on, its exchange is not complete"
    DRAINING = "the rest of a denied request is being dropped"
    TUNNEL = "another protocol: bytes both ways"
    ENDING = "all was said to the client; it is read and dropped until it closes"
    CLOSED = "over"


IDLE: Final = Phase.IDLE
BUSY: Final = Phase.BUSY
DRAINING: Final = Phase.DRAINING
TUNNEL: Final = Phase.TUNNEL
ENDING: Final = Phase.ENDING
CLOSED: Final = Phase.CLOSED
