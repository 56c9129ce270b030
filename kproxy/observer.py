"""What is told of each flow and request: one line in the access log, and the counters.

The flow core and the service call in here on the request path.  What is the same for a whole flow, and for
one verdict of it, is encoded once; a request costs one bytes format and a few additions.
"""

from __future__ import annotations

import functools
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from kproxy.accesslog import Timestamps, quoted, quoted_text
from kproxy.judgement import Judgement, PairJudgement
from kproxy.limits import LIMIT_REASONS
from kproxy.metrics import LATENCY_BOUNDS_NS, Cell, Metrics


class Head(Protocol):
    """What is logged of a request's head."""

    @property
    def method(self) -> bytes:
        """The method."""

    @property
    def path(self) -> bytes:
        """The path with its query string."""

    @property
    def host(self) -> bytes:
        """The effective host."""


class Side(NamedTuple):
    """One policy that judges a flow: whose it is, which way it looks, and whom it sees at the other end.

    `endpoint` is `namespace/name`; `peer` is the peer's identity by name; `peer_address` is `ADDRESS:PORT`;
    `port` is the server's, whichever side it is on.
    """

    endpoint: str
    direction: str
    peer: str
    peer_address: str
    port: int


class Observer:
    """Tells of every flow of this node.

    `write` takes one line of the access log (None: no log); `field_bytes` bounds one logged value; `clock`
    gives nanoseconds since 1970.
    """

    def __init__(
        self,
        metrics: Metrics,
        write: Callable[[bytes], None] | None,
        field_bytes: int,
        clock: Callable[[], int],
    ) -> None:
        self.metrics = metrics
        self.write = write
        self.field_bytes = field_bytes
        self.clock = clock
        self.timestamps = Timestamps()
        self._flows = 0

    def flow(self, sides: Sequence[Side], protocol: str = "http") -> FlowObserver:
        """Count a new connection, judged by one policy or by the client's egress and the server's ingress."""
        self._flows += 1
        return FlowObserver(self, tuple(sides), protocol, self._flows)

    def decided_l4(self, side: Side, protocol: str, verdict: str, rule: str, reason: str) -> None:
        """Log a connection or datagram that the kernel denied, or let pass as an audit; the kernel counted it."""
        if self.write is not None:
            told = _placed(side, 0, protocol, b"kernel") + _told(verdict, rule, reason)
            self.write(_OTHER % (self.now(), told, 0, b""))

    def now(self) -> bytes:
        """Give the time as the log writes it."""
        return self.timestamps.text(self.clock())


class FlowObserver:
    """Tells of the requests of one connection."""

    __slots__ = (
        "_cells",
        "_host",
        "_host_text",
        "_judgement",
        "_number",
        "_observer",
        "_places",
        "_protocol",
        "_rows",
        "_sides",
        "_told",
    )

    def __init__(self, observer: Observer, sides: tuple[Side, ...], protocol: str, number: int) -> None:
        self._observer = observer
        self._sides = sides
        self._protocol = protocol
        self._number = number
        self._judgement: object = None
        self._told = b""
        self._places = [b""] * len(sides)
        self._cells: tuple[Cell, ...] = ()
        self._host = b""
        self._host_text = b'""'
        row = observer.metrics.connection_row
        self._rows = [row(side.endpoint, side.direction) for side in sides]
        for connections in self._rows:
            connections.opened += 1

    def request(
        self,
        head: Head | None,
        judgement: Judgement,
        status: int,
        bytes_in: int,
        bytes_out: int,
        proxy_ns: int,
        upstream_ns: int,
    ) -> None:
        """Tell of one request that has ended.

        `status` is the response's, 0 where none was sent; the bytes are those that arrived from and were sent
        downstream; `proxy_ns` is the time that kproxy added, `upstream_ns` what the upstream took, 0 where it
        was not asked.
        """
        if judgement is not self._judgement:
            self._turn(judgement)
        for cell in self._cells:
            cell.value += 1
        observer = self._observer
        metrics = observer.metrics
        histogram = metrics.proxy_latency
        histogram.counts[bisect_left(LATENCY_BOUNDS_NS, proxy_ns)] += 1
        histogram.sum_ns += proxy_ns
        if upstream_ns:
            histogram = metrics.upstream_latency
            histogram.counts[bisect_left(LATENCY_BOUNDS_NS, upstream_ns)] += 1
            histogram.sum_ns += upstream_ns
        if observer.write is not None:
            moved = (bytes_in, bytes_out, proxy_ns // 1000, upstream_ns // 1000)
            observer.write(
                _LINE % (observer.now(), self._told, status, *self._facts(head), *moved)
                if head is not None
                else _BARE % (observer.now(), self._told, status, *moved)
            )

    def connection(self, judgement: Judgement, bytes_in: int, bytes_out: int) -> None:
        """Tell of a connection that was decided as a whole, at its end; the bytes are as for a request."""
        if judgement is not self._judgement:
            self._turn(judgement)
        for cell in self._cells:
            cell.value += 1
        observer = self._observer
        if observer.write is not None:
            moved = b',"bytes_in":%d,"bytes_out":%d' % (bytes_in, bytes_out)
            observer.write(_OTHER % (observer.now(), self._told, 0, moved))

    def refused(self, reason: str, detail: str, head: Head | None, status: int) -> None:
        """Tell of a request that could not be read, or exceeded a bound, and was answered with `status`.

        `reason` is one of the parser's own short words, `detail` a sentence that may quote the request.
        """
        observer = self._observer
        side = self._sides[0]
        observer.metrics.parse_errors[self._protocol, reason].value += 1
        if reason in LIMIT_REASONS:
            observer.metrics.limit(LIMIT_REASONS[reason])
        key = (side.endpoint, side.direction, self._protocol, "error", "")
        observer.metrics.request_cell(key).value += 1
        if observer.write is not None:
            told = self._place(0) + _told("error", "", reason)
            detail_text = quoted_text(detail[: observer.field_bytes])
            facts = b"" if head is None else _FACTS % self._facts(head)
            rest = b'%b,"detail":%b' % (facts, detail_text)
            observer.write(_OTHER % (observer.now(), told, status, rest))

    def judged_by(self, sides: Sequence[Side]) -> None:
        """Take note that a new policy has the flow judged by other sides from its next request on."""
        self._sides = tuple(sides)
        self._places = [b""] * len(sides)
        self._judgement = None

    def closed(self, reason: str) -> None:
        """Count the connection's end; `reason` is one of the service's own short words."""
        if reason in LIMIT_REASONS:
            self._observer.metrics.limit(LIMIT_REASONS[reason])
        for row in self._rows:
            row.closed[reason].value += 1

    def _facts(self, head: Head) -> tuple[bytes, bytes, bytes, bytes]:
        """Encode method, path and host, and say whether one was cut."""
        method, path, host = head.method, head.path, head.host
        bound = self._observer.field_bytes
        if host != self._host:
            self._host = host
            self._host_text = quoted(host[:bound])
        method_text = _METHODS.get(method) or quoted(method[:bound])
        if len(path) <= bound and len(host) <= bound and len(method) <= bound:
            return method_text, quoted(path), self._host_text, b""
        return method_text, quoted(path[:bound]), self._host_text, b',"truncated":true'

    def _turn(self, judgement: Judgement) -> None:
        """Encode what the following requests share: place, verdict and counters."""
        teller, also = 0, b""
        counted: list[tuple[Side, Judgement]] = [(self._sides[0], judgement)]
        if isinstance(judgement, PairJudgement):
            counted = list(zip(self._sides, judgement.asked, strict=False))
            teller = judgement.teller
            also = b"".join(_also(side, one) for side, one in counted if side is not self._sides[teller])
        told = _told(judgement.verdict, judgement.rule, judgement.reason)
        if judgement.allowed:
            told += also + _edits(judgement)
        self._told = self._place(teller) + told
        self._cells = tuple(self._cell(side, one) for side, one in counted)
        self._judgement = judgement

    def _cell(self, side: Side, judgement: Judgement) -> Cell:
        key = (side.endpoint, side.direction, self._protocol, judgement.verdict, judgement.rule)
        return self._observer.metrics.request_cell(key)

    def _place(self, index: int) -> bytes:
        """Encode where one side stands, once."""
        place = self._places[index]
        if not place:
            place = _placed(self._sides[index], self._number, self._protocol, b"proxy")
            self._places[index] = place
        return place


_LINE = (
    b'{"time":"%b"%b,"status":%d,"method":%b,"path":%b,"host":%b%b'
    b',"bytes_in":%d,"bytes_out":%d,"proxy_us":%d,"upstream_us":%d}\n'
)
_BARE = b'{"time":"%b"%b,"status":%d,"bytes_in":%d,"bytes_out":%d,"proxy_us":%d,"upstream_us":%d}\n'
_OTHER = b'{"time":"%b"%b,"status":%d%b}\n'
_FACTS = b',"method":%b,"path":%b,"host":%b%b'
_PLACED = (
    b',"endpoint":%b,"direction":%b,"peer":%b,"peer_address":%b,"port":%d,"flow":%d,"protocol":%b,"tier":"%b"'
)
_TOLD = b',"verdict":%b,"rule":%b,"reason":%b'
_ALSO = b',"also":{"endpoint":%b,"direction":%b,"verdict":%b,"rule":%b}'

_METHODS = {
    name: quoted(name)
    for name in (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE", b"CONNECT")
}


_KEPT = 4096
"""How many encoded names and verdicts are kept; names and rules in use at once are rarely more."""


@functools.lru_cache(_KEPT)
def _name(text: str) -> bytes:
    return quoted_text(text)


@functools.lru_cache(_KEPT)
def _told(verdict: str, rule: str, reason: str) -> bytes:
    return _TOLD % (_name(verdict), _name(rule), _name(reason))


def _placed(side: Side, flow: int, protocol: str, tier: bytes) -> bytes:
    endpoint, direction, peer, address, port = side
    who = (_name(endpoint), _name(direction), _name(peer), quoted_text(address), port)
    return _PLACED % (*who, flow, _name(protocol), tier)


def _edits(judgement: Judgement) -> bytes:
    """Say what was done to which header; the values are nobody's to read."""
    shown = b",".join(_name(str(edit)) for edit in judgement.edits)
    return b',"edits":[%b]' % shown if shown else b""


def _also(side: Side, judgement: Judgement) -> bytes:
    """Name the policy that agreed; a flow has at most two, so there is at most one of these."""
    who = _name(side.endpoint), _name(side.direction)
    return _ALSO % (*who, _name(judgement.verdict), _name(judgement.rule))
