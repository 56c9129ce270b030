"""The access log's lines: one JSON object for each request, whatever bytes the request held.

A line is put together from parts that are encoded once (the flow's, the verdict's) and the few that differ
from request to request, with one bytes format.  Any bytes give one valid line of JSON: strings go through
an encoder that escapes quotes, backslashes and controls, and what is not ASCII takes a slower way that
escapes it all, so that neither invalid UTF-8 nor U+2028 reaches whoever splits the file into lines.
"""

from __future__ import annotations

import json
import time
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

_encode = msgspec.json.Encoder().encode


class Also(msgspec.Struct, frozen=True):
    """The other policy that judged a request between two endpoints of this node."""

    endpoint: str
    direction: Literal["ingress", "egress"]
    verdict: Literal["allow", "audit"]
    rule: str


class AccessLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the access log, as its readers may rely on it."""

    time: Annotated[
        str, Meta(description="When the request or connection ended: RFC 3339, UTC, microseconds.")
    ]
    endpoint: Annotated[str, Meta(description="namespace/name of the endpoint whose policy decided.")]
    direction: Annotated[Literal["ingress", "egress"], Meta(description="Of that endpoint's policy.")]
    peer: Annotated[str, Meta(description="Who is at the other end: namespace/name, world, host, cidr:….")]
    peer_address: Annotated[
        str,
        Meta(description="The peer's ADDRESS:PORT; its ADDRESS alone where the kernel decided on its call."),
    ]
    port: Annotated[
        int,
        Meta(ge=0, le=65535, description="The server's port, in either direction; 0: the protocol has none."),
    ]
    flow: Annotated[int, Meta(description="The connection, numbered since kproxy started; 0: none.")]
    protocol: Annotated[
        str,
        Meta(
            pattern=r"^(http|grpc|kafka|tcp|udp|[0-9]{1,3})$",
            description="As which it was judged; tcp and udp: at L4 alone; a number: another protocol of IP.",
        ),
    ]
    tier: Annotated[Literal["kernel", "proxy"], Meta(description="Where it was decided.")]
    verdict: Annotated[
        Literal["allow", "deny", "audit", "error"],
        Meta(description="audit: would be denied, but let pass; error: refused, as it could not be read."),
    ]
    rule: Annotated[str, Meta(description="The rule that decided; empty where none did.")]
    reason: Annotated[str, Meta(description="Why: a sentence, or a short word where the verdict is error.")]
    status: Annotated[int, Meta(description="The response's status; 0: no response was sent.")]
    bytes_in: Annotated[int, Meta(description="Bytes of the request that arrived from downstream.")] = 0
    bytes_out: Annotated[int, Meta(description="Bytes of the response that were sent downstream.")] = 0
    proxy_us: Annotated[int, Meta(description="Time that kproxy added, in microseconds.")] = 0
    upstream_us: Annotated[int, Meta(description="Time that the upstream took, in microseconds.")] = 0
    method: Annotated[str | None, Meta(description="Of an HTTP request.")] = None
    path: Annotated[str | None, Meta(description="With its query string.")] = None
    host: Annotated[str | None, Meta(description="The effective host, in lower case.")] = None
    also: Annotated[
        Also | None,
        Meta(
            description="The endpoint, direction, verdict and rule of the other policy that let the request pass."
        ),
    ] = None
    edits: Annotated[
        tuple[str, ...],
        Meta(
            description="What headerMatches did, in turn, without values: add, delete, replace or log NAME."
        ),
    ] = ()
    detail: Annotated[str | None, Meta(description="What was wrong, where the verdict is error.")] = None
    truncated: Annotated[bool, Meta(description="A field was cut at limits.accessLogFieldBytes.")] = False


class Timestamps:
    """RFC 3339 times in UTC with microseconds; the text of a second is made once."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second = -1
        self._text = b""

    def text(self, now_ns: int) -> bytes:
        """Write a time in nanoseconds since 1970 such as `2026-01-02T03:04:05.678901Z`."""
        second, rest = divmod(now_ns, 1_000_000_000)
        if second != self._second:
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode()
            self._second = second
        return b"%b.%06dZ" % (self._text, rest // 1000)


def quoted(value: bytes) -> bytes:
    """Write any bytes as a JSON string; what is not UTF-8 stands as \\xNN in it."""
    try:
        return _encode(str(value, "ascii"))
    except UnicodeDecodeError:
        return json.dumps(value.decode("utf-8", "backslashreplace")).encode()


def quoted_text(value: str) -> bytes:
    """Write a string of kproxy's own, such as a rule's name, as a JSON string."""
    return quoted(value.encode("utf-8", "backslashreplace"))
