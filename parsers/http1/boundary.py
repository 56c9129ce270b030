"""Where a head ends in the bytes received so far, and whether it can still become a good one.

What is wrong is told by the first offending byte, so the answer does not depend on how the bytes
were split: a head with a bare LF is refused when that LF arrives, not when the client gives up.
"""

from __future__ import annotations

import re
from typing import Final

from parsers.http1.limits import Limits
from parsers.http1.reasons import name_in, refusal

END: Final = b"\r\n\r\n"
# The first byte of a TLS handshake record (RFC 8446 section 5.1): no HTTP method begins with it.
_TLS_HANDSHAKE: Final = b"\x16"
_bare_re: Final = re.compile(rb"\r\n|([\r\n])")
INCOMPLETE: Final = -1


def bare_line_break(data: bytes, start: int, end: int, final: bool) -> int:
    """The offset of the first CR or LF in data[start:end] that is not part of CRLF, or -1.

    Unless `final`, a CR at the very end may still become CRLF.
    """
    pairs = data.count(b"\r\n", start, end)
    waiting = not final and data.endswith(b"\r", start, end)
    if data.count(b"\n", start, end) == pairs and data.count(b"\r", start, end) - waiting == pairs:
        return -1
    stop = end - waiting
    return next(match.start() for match in _bare_re.finditer(data, start, stop) if match[1] is not None)


def head_end(data: bytes, start: int, searched: int, limits: Limits) -> int:
    """The offset after the empty line of the head at `start`, or INCOMPLETE.

    `searched` is an offset up to which an earlier call found neither an end nor a fault. Raises ParseError
    tls, bare_line_break, limit_request_line or limit_head, whichever byte comes first.
    """
    if data.startswith(_TLS_HANDSHAKE, start):
        raise refusal("tls", data[start : start + 16])
    allowed = start + limits.max_head
    # Not to begin between a CR and its LF.
    begin = max(start, searched - 1 if data.startswith(b"\n", searched) else searched)
    found = data.find(END, begin, allowed)
    stop = found + len(END) if found >= 0 else min(len(data), allowed)
    bare = bare_line_break(data, begin, stop, final=found >= 0)
    _check_first_line(data, start, stop, bare, limits)
    if bare >= 0:
        line = max(start, data.rfind(b"\n", start, bare) + 1)
        raise refusal("bare_line_break", data[line:bare] if line == start else name_in(data[line:bare]))
    if found < 0 and len(data) >= allowed:
        raise refusal("limit_head", data[start : start + 60])
    return stop if found >= 0 else INCOMPLETE


def _check_first_line(data: bytes, start: int, stop: int, bare: int, limits: Limits) -> None:
    """Raise ParseError limit_request_line if the first line is over its limit before a bare line break."""
    longest = start + limits.max_request_line
    if stop < longest + 2 or 0 <= bare < longest:
        return
    if data.find(b"\r\n", start, longest + 2) < 0:
        raise refusal("limit_request_line", data[start : start + 60])
