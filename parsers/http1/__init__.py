"""HTTP/1.1 as a security proxy must read it: with certainty, or not at all.

A parser is fed with `receive` and asked with `next_event`; `take` hands over the original bytes that
the event covers, so that what is forwarded is what was received. Whatever two servers might read
differently raises `ParseError` (requests) or turns the stream `OPAQUE` (responses).
docs/http.md lists what is accepted and refused, and why.
"""

from __future__ import annotations

from parsers.errors import ParseError
from parsers.http1.events import CHUNKED, DATA, END_OF_MESSAGE, NEED_DATA, OPAQUE, UNTIL_CLOSE, Signal
from parsers.http1.heads import RequestHead, ResponseHead
from parsers.http1.limits import Limits
from parsers.http1.reasons import REASONS
from parsers.http1.request import RequestParser
from parsers.http1.response import ResponseParser

__all__ = [
    "CHUNKED",
    "DATA",
    "END_OF_MESSAGE",
    "NEED_DATA",
    "OPAQUE",
    "REASONS",
    "UNTIL_CLOSE",
    "Limits",
    "ParseError",
    "RequestHead",
    "RequestParser",
    "ResponseHead",
    "ResponseParser",
    "Signal",
]
