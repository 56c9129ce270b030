"""The response parser: one connection's responses, framed as their requests demand."""

from __future__ import annotations

from typing import Final

from parsers.errors import ParseError
from parsers.http1.boundary import INCOMPLETE, head_end
from parsers.http1.events import CHUNKED, NEED_DATA, OPAQUE, UNTIL_CLOSE, Signal
from parsers.http1.heads import ResponseHead
from parsers.http1.limits import Limits
from parsers.http1.reader import MessageReader
from parsers.http1.request import REMEMBERED_HEAD
from parsers.http1.response_head import fast_matcher, from_match, read_response_head

_NO_CONTENT: Final = 204
_NOT_MODIFIED: Final = 304
_FIRST_FINAL: Final = 200  # below it a response is interim (RFC 9110 section 15.2)
_SEED: Final = ResponseHead(b"HTTP/1.1 204 No Content\r\n\r\n", _NO_CONTENT, UNTIL_CLOSE, True)


class ResponseParser(MessageReader):
    """Reads what a server sends; ask it only while a request waits for its final response.

    `next_event` gives a ResponseHead (interim ones too), then DATA and END_OF_MESSAGE as for requests.
    A body that lasts until the connection closes gives DATA and never ends: `until_close` is set.
    Once framing is in doubt every event is OPAQUE, and covers whatever arrived.

    answers_head: whether the request was HEAD, whose response has no body (RFC 9110 section 9.3.2).
    """

    __slots__ = ("_last", "_match", "_opaque", "_searched", "answers_head")

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._match = fast_matcher(limits)
        self._last = _SEED
        self._searched = 0
        self._opaque = False
        self.answers_head = False

    def next_event(self) -> ResponseHead | Signal:
        """The next event; never raises on what the server sent."""
        if self._opaque:
            return self._pass_on()
        if not self.complete:
            return self._more_of_body()
        head = self._last
        if not self._data.startswith(head.raw, self._at):
            found = self._head()
            if not isinstance(found, ResponseHead):
                return found
            head = found
        self._searched = 0
        return self._open(head)

    @property
    def until_close(self) -> bool:
        """Whether only the end of the connection ends what is being received."""
        return self._opaque or (not self.complete and self._remaining == UNTIL_CLOSE)

    @property
    def in_message(self) -> bool:
        """Whether part of a message, but not all of it, has arrived."""
        return not self.complete or self._at < len(self._data)

    def _head(self) -> ResponseHead | Signal:
        match = None if self._searched else self._match(self._data, self._at)
        if match is not None and match.end() - self._at <= self._limits.max_head:
            head = from_match(match)
        else:
            try:
                end = head_end(self._data, self._at, self._at + self._searched, self._limits)
            except ParseError:
                return self._doubt()
            if end == INCOMPLETE:
                self._searched = max(0, len(self._data) - self._at - 3)
                return NEED_DATA
            head = read_response_head(self._data[self._at : end], self._limits)
        if head is None or not _body_fits_status(head):
            return self._doubt()
        if len(head.raw) <= REMEMBERED_HEAD:
            self._last = head
        return head

    def _open(self, head: ResponseHead) -> ResponseHead | Signal:
        body = head.body
        if self.answers_head or head.status in (_NO_CONTENT, _NOT_MODIFIED) or head.status < _FIRST_FINAL:
            body = 0
        try:
            self._begin(self._at, self._at + len(head.raw), body)
        except ParseError:
            return self._doubt()
        return head

    def _more_of_body(self) -> Signal:
        try:
            return self._next_of_body()
        except ParseError:
            return self._doubt()

    def _doubt(self) -> Signal:
        self._opaque = True
        return self._pass_on()

    def _pass_on(self) -> Signal:
        self.complete = False
        self._ready = self.take_rest()
        return OPAQUE


def _body_fits_status(head: ResponseHead) -> bool:
    """False where the status excludes a body that the fields announce (RFC 9112 section 6.3).

    A client that believes the fields would wait for it; 304 may repeat the length of what it spares.
    """
    if head.status < _FIRST_FINAL or head.status == _NO_CONTENT:
        return head.body in (0, UNTIL_CLOSE)
    return head.status != _NOT_MODIFIED or head.body != CHUNKED
