"""What the proxy itself answers: denials and refusals as bytes (RFC 9112 section 4, RFC 9110 section 15.5)."""

from __future__ import annotations

from typing import Final

_PHRASES: Final = {
    400: b"Bad Request",
    403: b"Forbidden",
    408: b"Request Timeout",
    414: b"URI Too Long",
    431: b"Request Header Fields Too Large",
}
DENIED_BODY: Final = b"Access denied\r\n"


def denied(*, keep_alive: bool, http11: bool = True, to_head: bool = False, field: bytes = b"") -> bytes:
    """403 to a request that the policy denies.

    keep_alive: whether the connection goes on; http11: the request's version, as HTTP/1.0 must be told
    that it does. to_head: the request was HEAD, so the body is only announced. field: a whole field line.
    """
    if not keep_alive:
        field += b"Connection: close\r\n"
    elif not http11:
        field += b"Connection: keep-alive\r\n"
    return _reply(403, DENIED_BODY, field, to_head)


def refused(status: int, reason: str) -> bytes:
    """The last answer on a connection whose bytes are not read with certainty; names the reason."""
    return _reply(
        status, _PHRASES[status] + b": " + reason.encode() + b"\r\n", b"Connection: close\r\n", False
    )


def _reply(status: int, body: bytes, field: bytes, to_head: bool) -> bytes:
    head = b"HTTP/1.1 %d %b\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n%b\r\n"
    return head % (status, _PHRASES[status], len(body), field) + (b"" if to_head else body)
