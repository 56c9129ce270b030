"""One flow's two sockets on the event loop: bytes in, calls to the sans-IO core, and its effects out.

Nothing is decided here. Both sockets carry SO_LINGER 0 until an orderly end, so that a crash, a kill or an abort
is a reset for both sides and never a clean end of file after half a message.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import struct
from collections.abc import Callable
from typing import Protocol, cast

from kproxy.outlet import Outlet
from sockmap.splicer import Allowance

# Above this much unsent, the other side is no longer read; below the second, it is again.
HIGH_WATER = 256 * 1024
LOW_WATER = 64 * 1024

# A peer that vanished (no FIN, no RST) is given up after the configured time: half of it idle, then this many
# probes over the other half; and by TCP_USER_TIMEOUT while bytes wait for its acknowledgement.
KEEPALIVE_PROBES = 4

RESET_ON_CLOSE, FLUSH_ON_CLOSE = struct.pack("ii", 1, 0), struct.pack("ii", 0, 0)


class Core(Protocol):
    """What decides: HTTP, or opaque bytes."""

    def downstream_data(self, data: bytes) -> None:
        """Bytes from the client."""

    def downstream_eof(self) -> None:
        """The client will send no more."""

    def upstream_data(self, data: bytes) -> None:
        """Bytes from the server."""

    def upstream_eof(self) -> None:
        """The server will send no more."""

    def downstream_writable(self, writable: bool) -> None:
        """Whether more may be written towards the client."""

    def upstream_writable(self, writable: bool) -> None:
        """Whether more may be written towards the server."""

    def tick(self, now_ns: int) -> None:
        """Time has passed."""

    def drain(self) -> None:
        """End as soon as the message under way is complete."""

    def lost(self) -> None:
        """The connection was reset, or is about to be: tell of what was under way."""

    def fail(self, error: Exception) -> None:
        """Something inside broke: end, closed."""


def prepare(sock: socket.socket, dead_peer_seconds: float) -> None:
    """Set what each of kproxy's flow sockets has from its first moment.

    Args:
        dead_peer_seconds: how long a peer may be silent to the kernel's own probes.
    """
    idle = max(1, round(dead_peer_seconds / 2))
    interval = max(1, idle // KEEPALIVE_PROBES)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(dead_peer_seconds * 1000))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class _Side(asyncio.Protocol):
    """One socket of the pair; subclasses say which calls of the core its events are."""

    __slots__ = ("outlet", "relay", "transport")

    transport: asyncio.Transport

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.outlet = Outlet(self.writable, lambda: relay.abort("never_read"))

    def writable(self, writable: bool) -> None:
        raise NotImplementedError

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = self.outlet.transport = cast(
            asyncio.Transport, transport
        )  # uvloop's are no subclass
        self.transport.set_write_buffer_limits(HIGH_WATER, LOW_WATER)
        self.relay.attached.append(self)

    def pause_writing(self) -> None:
        self.outlet.transport_full(True)

    def resume_writing(self) -> None:
        self.outlet.transport_full(False)

    def connection_lost(self, error: Exception | None) -> None:
        self.relay.lost(self, error)


class _Downstream(_Side):
    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        relay = self.relay
        if not relay.started:
            relay.early.append(functools.partial(self.data_received, data))
            return
        relay.downstream_in += len(data)
        try:
            relay.core.downstream_data(data)
        except Exception as error:  # whatever broke, this flow ends here, closed
            relay.core.fail(error)

    def eof_received(self) -> bool:
        if not self.relay.started:
            self.relay.early.append(self.eof_received)
            return True
        try:
            self.relay.core.downstream_eof()
        except Exception as error:  # as above
            self.relay.core.fail(error)
        return True

    def writable(self, writable: bool) -> None:
        self.relay.core.downstream_writable(writable)


class _Upstream(_Side):
    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        relay = self.relay
        if not relay.started:
            relay.early.append(functools.partial(self.data_received, data))
            return
        relay.upstream_in += len(data)
        try:
            relay.core.upstream_data(data)
        except Exception as error:  # as above
            relay.core.fail(error)

    def eof_received(self) -> bool:
        if not self.relay.started:
            self.relay.early.append(self.eof_received)
            return True
        try:
            self.relay.core.upstream_eof()
        except Exception as error:  # as above
            self.relay.core.fail(error)
        return True

    def writable(self, writable: bool) -> None:
        self.relay.core.upstream_writable(writable)


class Relay:
    """Both sockets of one flow, and the wire that its core acts through.

    Args:
        downstream, upstream: connected sockets, prepared with :func:`prepare`; owned by the relay from now on.
        make_core: makes the core, given the wire.
        on_end: called once, when both sockets are gone, with the reason.

    Attributes:
        downstream_in, upstream_in, downstream_out, upstream_out: bytes so far.
        attached: the sides that are on the loop: both, but for a moment at the start.
        started: both are, or were.
        early: what came in that moment, before there was somewhere to send it.
    """

    __slots__ = (
        "_closed",
        "_downstream",
        "_on_end",
        "_open",
        "_upstream",
        "attached",
        "core",
        "downstream_in",
        "downstream_out",
        "downstream_socket",
        "early",
        "reason",
        "started",
        "upstream_in",
        "upstream_out",
        "upstream_socket",
    )

    def __init__(
        self,
        downstream: socket.socket,
        upstream: socket.socket,
        make_core: Callable[[Relay], Core],
        on_end: Callable[[Relay], None],
    ) -> None:
        self.downstream_socket, self.upstream_socket = downstream, upstream
        self._downstream, self._upstream = _Downstream(self), _Upstream(self)
        self._on_end = on_end
        self._open, self._closed = 2, False
        self.attached: list[_Side] = []
        self.started = False
        self.early: list[Callable[[], object]] = []
        self.downstream_in = self.upstream_in = self.downstream_out = self.upstream_out = 0
        self.reason = "closed"
        self.core = make_core(self)

    def splice(self, downstream: Allowance | None, upstream: Allowance | None) -> None:
        """Write within these credits, where a side is spliced; before :meth:`start`."""
        if downstream is not None:
            self._downstream.outlet.splice(downstream)
        if upstream is not None:
            self._upstream.outlet.splice(upstream)

    async def start(self) -> None:
        """Put both sockets on the loop, then take what has come from either, or go on with giving up.

        Not earlier: uvloop makes a socket its own after it has told of the connection, and one that is closed
        within that call would be closed twice, the second time under another's number.
        """
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self._upstream, sock=self.upstream_socket)
        await loop.connect_accepted_socket(lambda: self._downstream, self.downstream_socket)
        self.started = True
        if self._closed:
            self.abort(self.reason)
        while self.early and not self._closed:
            self.early.pop(0)()

    def send_downstream(self, data: bytes) -> None:
        """Write towards the client."""
        if self._closed:
            return
        self.downstream_out += len(data)
        self._downstream.outlet.write(data)

    def send_upstream(self, data: bytes) -> None:
        """Write towards the server."""
        if self._closed:
            return
        self.upstream_out += len(data)
        self._upstream.outlet.write(data)

    def end_downstream(self) -> None:
        """Tell the client that nothing more will come, after what was written."""
        self._end(self._downstream)

    def end_upstream(self) -> None:
        """Tell the server that nothing more will come, after what was written."""
        self._end(self._upstream)

    def pause_downstream(self) -> None:
        """Read no more from the client for now."""
        if not self._downstream.transport.is_closing():
            self._downstream.transport.pause_reading()

    def resume_downstream(self) -> None:
        """Read from the client again."""
        if not self._downstream.transport.is_closing():
            self._downstream.transport.resume_reading()

    def pause_upstream(self) -> None:
        """Read no more from the server for now."""
        if not self._upstream.transport.is_closing():
            self._upstream.transport.pause_reading()

    def resume_upstream(self) -> None:
        """Read from the server again."""
        if not self._upstream.transport.is_closing():
            self._upstream.transport.resume_reading()

    def close(self) -> None:
        """End both sides in good order, after what was written to them."""
        if self._closed:
            return
        self._closed = True
        for side, sock in (
            (self._downstream, self.downstream_socket),
            (self._upstream, self.upstream_socket),
        ):
            side.outlet.after_flush(functools.partial(_close, side, sock))

    def abort(self, reason: str) -> None:
        """Reset both sides."""
        self.reason = reason
        self._closed = True
        for side in self.attached:
            side.outlet.drop()
            side.transport.abort()

    @property
    def closed(self) -> bool:
        """Whether its end has begun: nothing more is read."""
        return self._closed

    def give_up(self, reason: str) -> None:
        """Reset both sides for a reason that the core does not know; it tells of the request under way."""
        if not self._closed:
            self.core.lost()
            self.abort(reason)

    def lost(self, side: _Side, error: Exception | None) -> None:
        """One socket is gone: where that was no orderly end, so is the other."""
        self._open -= 1
        side.outlet.drop()
        if not self._closed:
            self.give_up("downstream_reset" if side is self._downstream else "upstream_reset")
        if self._open == 0:
            self._on_end(self)

    def _end(self, side: _Side) -> None:
        if not self._closed and not side.transport.is_closing():
            side.outlet.after_flush(side.transport.write_eof)


def _close(side: _Side, sock: socket.socket) -> None:
    if not side.transport.is_closing():
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, FLUSH_ON_CLOSE)
        side.transport.close()
