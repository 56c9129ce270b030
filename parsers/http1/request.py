"""The request parser: one connection's requests, each head with all that came of its body, in order."""

from __future__ import annotations

from typing import Final

from parsers.errors import ParseError
from parsers.http1.boundary import INCOMPLETE, head_end
from parsers.http1.events import NEED_DATA, Signal
from parsers.http1.heads import RequestHead
from parsers.http1.limits import Limits
from parsers.http1.reader import MessageReader
from parsers.http1.reasons import refusal
from parsers.http1.request_head import fast_matcher, from_match, read_request_head

# The last head is kept to recognise the same bytes again, unless it is large: an idle connection
# should hold little.
REMEMBERED_HEAD: Final = 2048
_SEED: Final = RequestHead(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"GET", b"/", b"/", b"a", 0, True)


class RequestParser(MessageReader):
    """Reads what a client sends.

    `next_event` gives a RequestHead, then DATA as more of its body comes and END_OF_MESSAGE with the
    last of it; a head with `complete` set is the whole message. Nothing of the next request is read
    before `next_event` is called again, so each can be judged at its turn.
    After a ParseError the parser must not be used.
    """

    __slots__ = ("_last", "_match", "_searched", "_skipped")

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._match = fast_matcher(limits)
        self._last = _SEED
        self._searched = 0  # bytes of an incomplete head in which no end of head begins
        self._skipped = False  # whether an empty line was passed before the head

    def next_event(self) -> RequestHead | Signal:
        """The next event; raises ParseError where the bytes are not read with certainty."""
        if not self.complete:
            return self._next_of_body()
        head = self._last
        if not self._data.startswith(head.raw, self._at):
            found = self._plain_head() or self._unusual_head()
            if found is None:
                return NEED_DATA
            head = found
            if len(head.raw) <= REMEMBERED_HEAD:
                self._last = head
        self._searched = 0
        self._skipped = False
        at = self._at
        try:
            self._begin(at, at + len(head.raw), head.body)
        except ParseError as error:
            error.facts = head
            raise
        return head

    @property
    def head_begun(self) -> bool:
        """Whether part of a request, but not its whole head, has arrived."""
        return self.complete and self._at < len(self._data)

    def _plain_head(self) -> RequestHead | None:
        if self._searched:
            return None
        match = self._match(self._data, self._at)
        if match is None or match.end() - self._at > self._limits.max_head:
            return None
        return from_match(match, match[0])

    def _unusual_head(self) -> RequestHead | None:
        """A head that is not plain, or None until it is whole."""
        if not self._skip_empty_line():
            return None
        end = head_end(self._data, self._at, self._at + self._searched, self._limits)
        if end == INCOMPLETE:
            self._searched = max(0, len(self._data) - self._at - 3)
            return None
        raw = self._data[self._at : end]
        match = self._match(raw, 0)
        plain = from_match(match, raw) if match is not None else None
        return plain or read_request_head(raw, self._limits)

    def _skip_empty_line(self) -> bool:
        """Pass one empty line before a request (RFC 9112 section 2.2); False if nothing stands there yet."""
        rest = self._data[self._at : self._at + 2]
        if rest == b"\r\n":
            if self._skipped:
                raise refusal("empty_lines")
            self._skipped = True
            self._at += 2
            rest = self._data[self._at : self._at + 2]
            if rest == b"\r\n":
                raise refusal("empty_lines")
        return rest not in (b"", b"\r")
