"""What both parsers share: the buffer, and the way through a body whose framing is known."""

from __future__ import annotations

from parsers.http1.chunked import ChunkedScanner
from parsers.http1.events import CHUNKED, DATA, END_OF_MESSAGE, NEED_DATA, Signal
from parsers.http1.limits import Limits


class MessageReader:
    """Bytes in, events and original bytes out.

    complete: whether the message of the last event ended with it; true before the first.
    """

    __slots__ = ("_at", "_chunks", "_data", "_limits", "_ready", "_remaining", "complete")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._data = b""
        self._at = 0  # offset in _data of the first byte that no event has covered
        self._remaining = 0  # bytes left of a body with a length, or its CHUNKED or UNTIL_CLOSE
        self._chunks = ChunkedScanner(limits)
        self._ready = b""  # what the last event covers, until it is taken
        self.complete = True

    def receive(self, data: bytes) -> None:
        """Take bytes from the peer; nothing is judged before `next_event`."""
        if self._at == len(self._data):
            self._data = data
        else:
            self._data = self._data[self._at :] + data
        self._at = 0

    @property
    def buffered(self) -> int:
        """Bytes received that no event has covered."""
        return len(self._data) - self._at

    @property
    def trailers(self) -> tuple[bytes, ...]:
        """The names of the trailer fields, in lower case, of a chunked message that is complete."""
        return self._chunks.trailers

    def take_rest(self) -> bytes:
        """Hand over what no event has covered: from here on the stream is not ours to read."""
        rest = self._data[self._at :]
        self._data = b""
        self._at = 0
        return rest

    def take(self) -> bytes:
        """The original bytes that the last event covers, all of them checked; empty if taken already.

        Joined over all events they are the stream itself, but for empty lines before requests.
        """
        ready = self._ready
        self._ready = b""
        return ready

    def _begin(self, start: int, end: int, body: int) -> None:
        """A head stands in [start, end): check all that is there of its body, and make both ready."""
        if start == 0 and end + body == len(self._data):
            # One read, one message: nothing to cut.
            self._ready = self._data
            self._data = b""
            self._at = 0
            self.complete = True
            return
        self._remaining = body
        if body == CHUNKED:
            self._chunks = ChunkedScanner(self._limits)
        self.complete = body == 0
        self._make_ready(start, end if body == 0 else self._checked_body(end))

    def _next_of_body(self) -> Signal:
        start = self._at
        stop = self._checked_body(start)
        self._make_ready(start, stop)
        if self.complete:
            return END_OF_MESSAGE
        return DATA if stop > start else NEED_DATA

    def _make_ready(self, start: int, stop: int) -> None:
        """The event covers [start, stop); an exhausted buffer is let go, so that idle connections hold none."""
        data = self._data
        if stop < len(data):
            self._ready = data[start:stop]
            self._at = stop
        else:
            self._ready = data[start:] if start else data
            self._data = b""
            self._at = 0

    def _checked_body(self, start: int) -> int:
        """The offset after the bytes from `start` that are good as body; sets `complete` if it ends there."""
        if self._remaining == CHUNKED:
            stop = self._chunks.scan(self._data, start)
            self.complete = self._chunks.complete
            return stop
        stop = len(self._data)
        if self._remaining > 0:
            stop = min(stop, start + self._remaining)
            self._remaining -= stop - start
            self.complete = self._remaining == 0
        return stop
