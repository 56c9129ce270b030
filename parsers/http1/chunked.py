"""The chunked transfer coding, checked as it streams: RFC 9112 section 7.1.

Nothing is decoded, for the original bytes are what is sent on; the scanner says how far they are good.
A partial line is never good: it waits. So the last chunk and its trailers are let go together, when
all of them are there.
"""

from __future__ import annotations

import re
from typing import Final

from parsers.errors import ParseError
from parsers.http1.boundary import END, bare_line_break
from parsers.http1.framing import FRAMING_NAMES, canonical
from parsers.http1.grammar import TCHAR, TOKEN, control_re
from parsers.http1.limits import MAX_CHUNK, MAX_CHUNK_DIGITS, Limits
from parsers.http1.reasons import name_in, refusal
from parsers.http1.syntax import check_fields

_DIGITS: Final = rb"[0-9A-Fa-f]{1,%d}" % MAX_CHUNK_DIGITS
# No white space and no backslash escapes: readers differ on both, and nobody sends them.
_QUOTED: Final = rb"\"[\t !#-\[\]-~\x80-\xff]*"
_plain_size_re: Final = re.compile(rb"(" + _DIGITS + rb")\r\n")
_EXTENSIONS: Final = rb"(?:;" + TOKEN + rb"(?:=(?:" + TOKEN + rb"|" + _QUOTED + rb"\"))?)*"
_size_re: Final = re.compile(rb"(" + _DIGITS + rb")" + _EXTENSIONS + rb"\r\n")
# Every beginning of a good line, to refuse a bad one before its end has come.
_size_begun_re: Final = re.compile(
    rb"(?:"
    + _DIGITS
    + _EXTENSIONS
    + rb"(?:\r|;(?:"
    + TCHAR
    + rb"*|"
    + TOKEN
    + rb"=(?:"
    + _QUOTED
    + rb")?))?)?"
)
_digits_re: Final = re.compile(rb"[0-9A-Fa-f]*")

# A server that merges trailers into the headers must not find these there: RFC 9110 section 6.5.1 has
# framing, routing, request modifiers, authentication, content format and the connection's own fields.
_FORBIDDEN_TRAILERS: Final = FRAMING_NAMES | frozenset(
    b"host connection keep-alive proxy-connection te trailer upgrade http2-settings expect max-forwards "
    b"range if-match if-none-match if-modified-since if-unmodified-since if-range cache-control pragma "
    b"authorization proxy-authorization cookie set-cookie content-encoding content-type content-range "
    b"forwarded x-forwarded-for x-forwarded-host x-forwarded-proto x-real-ip x-http-method-override".split()
)
# What a chunk may spend on its size line without being counted as overhead.
_FREE_OVERHEAD: Final = 16


class ChunkedScanner:
    """Follows one chunked body through the bytes of successive reads.

    trailers: the names of its trailer fields in lower case, once it is complete.
    """

    __slots__ = ("_limits", "_overhead", "_remaining", "_waits_for_crlf", "complete", "trailers")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._remaining = 0
        self._waits_for_crlf = False
        self._overhead = 0
        self.complete = False
        self.trailers: tuple[bytes, ...] = ()

    def scan(self, data: bytes, at: int) -> int:
        """Check all of data[at:]; returns the offset up to which it is good and may be sent on.

        The next call begins there. Sets `complete` when the body has ended; what follows is not its own.
        Raises ParseError chunk_size, chunk_extension, chunk_end, trailer, trailer_field or a limit.
        """
        while not self.complete:
            before = at
            if not self._remaining and not self._waits_for_crlf:
                at = _pass_whole_chunks(data, at)
            if self._remaining:
                at = self._pass_data(data, at)
            elif self._waits_for_crlf:
                at = self._pass_crlf(data, at)
            else:
                at = self._pass_size(data, at)
            if at == before:
                break
        return at

    def _pass_data(self, data: bytes, at: int) -> int:
        count = min(self._remaining, len(data) - at)
        self._remaining -= count
        self._waits_for_crlf = True
        return at + count

    def _pass_crlf(self, data: bytes, at: int) -> int:
        seen = data[at : at + 2]
        if seen == b"\r\n":
            self._waits_for_crlf = False
            return at + 2
        if seen not in (b"", b"\r"):
            raise refusal("chunk_end", seen)
        return at

    def _pass_size(self, data: bytes, at: int) -> int:
        match = _plain_size_re.match(data, at) or self._unusual_size(data, at)
        if match is None:
            return at
        size = int(match[1], 16)
        if size > MAX_CHUNK:
            raise refusal("chunk_size", match[1])
        if size == 0:
            return self._pass_trailers(data, at, match.end() - 2)
        self._count_overhead(match.end() - at)
        self._remaining = size
        return match.end()

    def _unusual_size(self, data: bytes, at: int) -> re.Match[bytes] | None:
        """A size line with extensions, or None for one that is not whole but good so far."""
        stop = at + self._limits.max_chunk_line
        end = data.find(b"\r\n", at, stop)
        match = _size_re.match(data, at, stop) if end >= 0 else None
        if match is not None:
            return match
        if end >= 0 or not _size_begun_re.fullmatch(data, at, stop):
            raise _bad_size(data[at : end if end >= 0 else stop])
        if len(data) >= stop:
            raise refusal("limit_chunk_framing", data[at:stop])
        return None

    def _count_overhead(self, line: int) -> None:
        """Bound what all size lines of the body take beyond a fair share."""
        self._overhead += max(0, line - _FREE_OVERHEAD)
        if self._overhead > self._limits.max_chunk_overhead:
            raise refusal("limit_chunk_framing")

    def _pass_trailers(self, data: bytes, at: int, first_crlf: int) -> int:
        """Take the last chunk with its trailer section, once all of it is there; `at` until then."""
        found = data.find(END, first_crlf, first_crlf + self._limits.max_trailers)
        start = first_crlf + 2
        if found < 0:
            self._check_begun_trailers(data, start)
            return at
        if found > first_crlf:
            self.trailers = _check_trailers(data[start : found + 2], self._limits)
        self.complete = True
        return found + len(END)

    def _check_begun_trailers(self, data: bytes, start: int) -> None:
        """Refuse a trailer section that cannot become good any more."""
        stop = start - 2 + self._limits.max_trailers
        end = min(len(data), stop)
        whole = data.rfind(b"\r\n", start - 2, end) + 2
        _check_trailers(data[start:whole], self._limits)
        if control_re.search(data, whole, end) or bare_line_break(data, whole, end, final=False) >= 0:
            raise refusal("trailer", name_in(data[whole:end]))
        if len(data) >= stop:
            raise refusal("limit_trailers", name_in(data[start:stop]))


def _pass_whole_chunks(data: bytes, at: int) -> int:
    """Pass every chunk from `at` on that has a plain size line and is there to its last CRLF.

    Nothing else is judged here: small chunks come by the thousand, and each step of the state machine costs.
    """
    match = _plain_size_re.match(data, at)
    while match is not None:
        end = match.end() + int(match[1], 16)
        if end == match.end() or not data.startswith(b"\r\n", end):
            break
        at = end + 2
        match = _plain_size_re.match(data, at)
    return at


def _check_trailers(section: bytes, limits: Limits) -> tuple[bytes, ...]:
    """Check whole trailer lines, each with its CRLF, and give their names in lower case."""
    if control_re.search(section) or bare_line_break(section, 0, len(section), final=True) >= 0:
        raise refusal("trailer", name_in(section))
    lines = section.split(b"\r\n")[:-1]
    try:
        check_fields(lines, limits.max_trailer_fields, "limit_trailers")
    except ParseError as error:
        raise error if error.reason == "limit_trailers" else refusal("trailer", name_in(section)) from None
    names = tuple(line.partition(b":")[0].lower() for line in lines)
    for name in names:
        if canonical(name) in _FORBIDDEN_TRAILERS:
            raise refusal("trailer_field", name)
    return names


def _bad_size(line: bytes) -> ParseError:
    """The refusal of a size line (whole or begun) by where it goes wrong."""
    match = _digits_re.match(line)
    digits = len(match[0]) if match else 0
    in_extension = 0 < digits <= MAX_CHUNK_DIGITS and line[digits : digits + 1] == b";"
    return refusal("chunk_extension" if in_extension else "chunk_size", line)
