"""What a parser answers when asked for the next event, beside a head; and how a body may be framed."""

from __future__ import annotations

from enum import Enum
from typing import Final


class Signal(Enum):
    """An event that carries no facts of its own; its bytes are got with the parser's `take`."""

    NEED_DATA = "nothing more can be said until more bytes arrive"
    DATA = "more of the body, checked; more of it is to come"
    END_OF_MESSAGE = "the last of the body, checked; the message is complete"
    OPAQUE = "the response is no longer framed with certainty: bytes until the connection closes"


NEED_DATA: Final = Signal.NEED_DATA
DATA: Final = Signal.DATA
END_OF_MESSAGE: Final = Signal.END_OF_MESSAGE
OPAQUE: Final = Signal.OPAQUE

# A head's `body` is its length in bytes (0: none), or one of these (RFC 9112 section 6.3).
CHUNKED: Final = -1
UNTIL_CLOSE: Final = -2
