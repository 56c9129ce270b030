"""A whole response head to its facts, or to None where its framing is not certain.

As with requests: a strict regex for plain heads, checks and h11 for the rest. Doubt is no error here;
the client reads the same bytes and decides for itself, but no request may follow on the connection.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from parsers.errors import ParseError
from parsers.http1 import framing, reference, syntax
from parsers.http1.events import CHUNKED, UNTIL_CLOSE
from parsers.http1.grammar import FIELD_LINE, OWS, split_fields
from parsers.http1.heads import ResponseHead
from parsers.http1.limits import MAX_LENGTH_DIGITS, Limits

Match = Callable[[bytes, int], "re.Match[bytes] | None"]

_PLAIN: Final = rb"(?![CTct](?:[Oo][Nn](?:[Nn]|[Tt][Ee][Nn][Tt][^A-Za-z0-9][Ll])|[Rr][Aa][Nn]))" + FIELD_LINE
# Each at most once; groups 2, 3 and 4.
_SPECIAL: Final = (
    rb"(?(2)(?!)|(?i:connection):" + OWS + rb"((?i:keep-alive|close))" + OWS + rb"\r\n)"
    rb"|(?(3)(?!)|(?i:content-length):"
    + OWS
    + rb"(0|[1-9][0-9]{0,%d})" % (MAX_LENGTH_DIGITS - 1)
    + OWS
    + rb"\r\n)"
    rb"|(?(4)(?!)|(?i:transfer-encoding):" + OWS + rb"((?i:chunked))" + OWS + rb"\r\n)"
)
_status_line_re: Final = re.compile(rb"HTTP/1\.[01] [1-9][0-9]{2}(?: [\t -~\x80-\xff]*)?")


def _run_of_plain(most: int) -> bytes:
    return rb"(?:" + _PLAIN + rb"){0,%d}" % most


@lru_cache(maxsize=8)
def fast_matcher(limits: Limits) -> Match:
    """The `match` of the strict regex: `(data, offset)` to a whole plain response head, or None.

    Groups: status, Connection, Content-Length, Transfer-Encoding.
    """
    before, between = limits.max_fields // 2, limits.max_fields // 8
    pattern = (
        rb"HTTP/1\.1 ([1-9][0-9]{2}) [\t -~\x80-\xff]*\r\n"
        + _run_of_plain(before)
        + rb"(?:(?:"
        + _SPECIAL
        + rb")"
        + _run_of_plain(between)
        + rb"){0,3}\r\n"
    )
    return re.compile(pattern).match


def from_match(match: re.Match[bytes]) -> ResponseHead | None:
    """The head that the fast regex matched, or None if its framing is not certain."""
    status, connection, length, coding = match.groups()
    if coding is not None:
        if length is not None:
            return None
        body = CHUNKED
    else:
        body = UNTIL_CLOSE if length is None else int(length)
    return ResponseHead(match[0], int(status), body, connection is None or connection[0] in b"kK")


def read_response_head(raw: bytes, limits: Limits) -> ResponseHead | None:
    """The facts of a whole head whose line breaks are checked, or None where they are not certain."""
    try:
        return _read(raw, limits)
    except ParseError:
        return None


def _read(raw: bytes, limits: Limits) -> ResponseHead | None:
    first, *lines = raw[:-4].split(b"\r\n")
    if not _status_line_re.fullmatch(first):
        return None
    syntax.check_fields(lines, limits.max_fields, "limit_fields")
    fields = split_fields(raw, len(first) + 2)
    http11 = first.startswith(b"HTTP/1.1")
    body = framing.body_of(fields, http11)
    options = framing.list_of(framing.values_of(fields, b"connection"))
    status, h11_http11, _ = reference.read_response(raw, limits)
    if (status, h11_http11) != (int(first[9:12]), http11):
        return None
    return ResponseHead(
        raw, status, UNTIL_CLOSE if body is None else body, framing.keeps_alive(options, http11)
    )
