"""Requests that were seen, as the access log tells of them: what learning and comparing start from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from policy.model import TCP, UDP

HTTP_PROTOCOLS = ("http", "grpc")
_PROTOCOLS = {"http": TCP, "grpc": TCP, "kafka": TCP, "tcp": TCP, "udp": UDP}
# Bad request, not found, method not allowed, gone, not implemented (RFC 9110 sections 15.5 and 15.6): what
# scanners are answered. 401 and 403 are not among them: a client may well need what it has to ask for.
_NOTHING_THERE = frozenset((400, 404, 405, 410, 501))
# What servers may read in more than one way: dot segments, empty ones, backslashes; encoded slashes, backslashes
# and control characters; plain characters encoded, percent signs encoded, and percent signs that encode nothing.
# Such a path is refused wherever a path rule is in force (the parser's rule, which a test compares with this), so
# no rule can be made of it.
_AMBIGUOUS = re.compile(
    r"/\.{1,2}(?=[/;]|\Z)|//|\\"
    r"|%(?:2f|5c|[01][0-9a-f]|7f|3[0-9]|4[1-9a-f]|5[0-9af]|6[1-9a-f]|7[0-9ae]|2[de]|25[0-9a-f]{2}|(?![0-9a-f]{2}))",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Record:
    """One request, or connection, of an endpoint; `headers` are not logged, so they are empty."""

    endpoint: str
    direction: str
    peer: str
    """As the log names it: `namespace/name`, `world`, `host`, `cidr:10.0.0.0/8`."""
    protocol: int
    port: int
    """The server's port."""
    verdict: str
    http: bool
    method: bytes = b""
    path: bytes = b""
    host: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = field(default=())
    status: int = 0
    """What the server answered; 0: nothing, or it is not known."""

    @property
    def refused(self) -> bool:
        """Whether the server had nothing there, so that nobody can have needed it."""
        return self.verdict in ("allow", "audit") and self.status in _NOTHING_THERE

    def __str__(self) -> str:
        arrow = "<-" if self.direction == "ingress" else "->"
        what = f" {self.method.decode()} {self.path.decode()}" if self.http else ""
        return f"{self.endpoint} {arrow} {self.peer} :{self.port}{what}"


@dataclass(frozen=True, slots=True)
class Records:
    """What could be read of a log; `left_out` counts by reason what could not."""

    records: tuple[Record, ...]
    left_out: Mapping[str, int]


def read(lines: Iterable[Mapping[str, Any]]) -> Records:
    """Access log lines (decoded JSON objects) into records."""
    records: list[Record] = []
    left_out: dict[str, int] = {}
    for line in lines:
        found = _record(line)
        if isinstance(found, Record):
            records.append(found)
        else:
            left_out[found] = left_out.get(found, 0) + 1
    return Records(tuple(records), left_out)


def _record(line: Mapping[str, Any]) -> Record | str:
    """A record, or why there is none."""
    try:
        endpoint, direction, peer = (str(line[key]) for key in ("endpoint", "direction", "peer"))
        protocol, verdict = str(line["protocol"]), str(line["verdict"])
    except KeyError as missing:
        return f"no {missing.args[0]}"
    if verdict == "error":
        return "could not be read as a request"
    if line.get("truncated"):
        return "truncated in the log"
    if protocol not in _PROTOCOLS:
        return "neither TCP nor UDP"
    port = _port(line, direction)
    if port is None:
        return "no server port"
    http = protocol in HTTP_PROTOCOLS
    number = _PROTOCOLS[protocol]
    if not http:
        return Record(endpoint, direction, peer, number, port, verdict, http)
    method, path, host = (str(line.get(key) or "") for key in ("method", "path", "host"))
    if not (method + path + host).isascii():
        return "not ASCII"
    if not path.startswith("/") or is_ambiguous(path):
        return "a path that servers may read differently"
    status = line.get("status")
    return Record(
        endpoint=endpoint,
        direction=direction,
        peer=peer,
        protocol=number,
        port=port,
        verdict=verdict,
        http=http,
        method=method.encode(),
        path=path.encode(),
        host=host.encode(),
        status=status if isinstance(status, int) else 0,
    )


def is_ambiguous(path: str) -> bool:
    """Whether servers may read a path in more than one way."""
    return _AMBIGUOUS.search(path.partition("?")[0]) is not None


def _port(line: Mapping[str, Any], direction: str) -> int | None:
    """The server's port: the log's `port`, or for egress the port of the peer's address."""
    text = line.get("port")
    if text is None and direction == "egress":
        text = str(line.get("peer_address", "")).rpartition(":")[2]
    try:
        port = int(text) if text is not None else 0
    except (TypeError, ValueError):
        return None
    return port if 0 < port < 65536 else None


def counted(number: int, word: str) -> str:
    """`1 request`, `3 requests`."""
    return f"{number} {word}{'' if number == 1 else 's'}"
