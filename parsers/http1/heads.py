"""The facts of one message head: what rules judge, and how its body is framed.

A head is a value: parsers may hand out one object for two messages with the same head bytes.
"""

from __future__ import annotations

from parsers.http1.grammar import split_fields
from parsers.http1.paths import path_ambiguity

Fields = tuple[tuple[bytes, bytes], ...]


def _fields_of(raw: bytes) -> Fields:
    return split_fields(raw, raw.index(b"\r\n") + 2)


class RequestHead:
    """The head of a request that was read with certainty.

    raw: the original bytes, the empty line included.
    method: as sent; methods are case-sensitive (RFC 9110 section 9.1).
    target: the request target as sent; path: what rules judge, that is the target with its query
    string, of an absolute-form target its path and query, or `*`.
    host: the authority in lower case, port included if one was sent; empty if an HTTP/1.0 request has none.
    http11: whether the version is HTTP/1.1, else it is HTTP/1.0.
    body: length in bytes, 0 for none, or CHUNKED.
    keep_alive: whether the client means to use the connection again (RFC 9112 section 9.3).
    expects_continue: whether it waits for 100 before it sends the body (RFC 9110 section 10.1.1).
    upgrade: whether it asks for another protocol (RFC 9110 section 7.8); only then may 101 answer it.
    """

    __slots__ = (
        "_fields",
        "body",
        "expects_continue",
        "host",
        "http11",
        "keep_alive",
        "method",
        "path",
        "raw",
        "target",
        "upgrade",
    )

    def __init__(
        self,
        raw: bytes,
        method: bytes,
        target: bytes,
        path: bytes,
        host: bytes,
        body: int,
        keep_alive: bool,
        http11: bool = True,
        expects_continue: bool = False,
        upgrade: bool = False,
    ) -> None:
        self.raw = raw
        self.method = method
        self.target = target
        self.path = path
        self.host = host
        self.body = body
        self.keep_alive = keep_alive
        self.http11 = http11
        self.expects_continue = expects_continue
        self.upgrade = upgrade
        self._fields: Fields = ()

    @property
    def headers(self) -> Fields:
        """All fields in order: names in lower case, values without outer white space."""
        if not self._fields:
            self._fields = _fields_of(self.raw)
        return self._fields

    @property
    def path_ambiguity(self) -> str | None:
        """Why servers may read the path differently, or None; a key of `paths.AMBIGUITIES`."""
        return path_ambiguity(self.path)

    def __repr__(self) -> str:
        return f"<RequestHead {self.method!r} {self.path!r} host={self.host!r} body={self.body}>"


class ResponseHead:
    """The head of a response that was read with certainty.

    raw: the original bytes, the empty line included. status: 100 to 999.
    body: as its fields say: length in bytes, CHUNKED or UNTIL_CLOSE. Whether there is a body at all
    also depends on the status and on the request's method (RFC 9112 section 6.3): the parser knows.
    keep_alive: whether the server means to use the connection again.
    """

    __slots__ = ("_fields", "body", "keep_alive", "raw", "status")

    def __init__(self, raw: bytes, status: int, body: int, keep_alive: bool) -> None:
        self.raw = raw
        self.status = status
        self.body = body
        self.keep_alive = keep_alive
        self._fields: Fields = ()

    @property
    def headers(self) -> Fields:
        """All fields in order: names in lower case, values without outer white space."""
        if not self._fields:
            self._fields = _fields_of(self.raw)
        return self._fields

    def __repr__(self) -> str:
        return f"<ResponseHead {self.status} body={self.body}>"
