"""Marks on kproxy's own sockets, and what the programs recorded about connections.

A mark lives in the kernel's storage of that one socket and dies with it. Only a holder of these maps' descriptors
can set one, so a process that sets a firewall mark or binds a known port gains nothing.
"""

from __future__ import annotations

import ctypes as ct
import socket
from collections.abc import Callable
from dataclasses import dataclass

from sockmap.layout import (
    NO_SLOT,
    Address,
    Direction,
    Endpoint,
    IPAddress,
    Listener,
    Role,
    SocketState,
    Upstream,
    UpstreamFlag,
)
from sockmap.syscall import map_delete, map_lookup, map_update

_NO_ADDRESS = Address()


@dataclass(frozen=True, slots=True)
class Origin:
    """What is recorded about a connection that reached one of kproxy's listeners.

    Attributes:
        destination: whom a redirected client called (egress); meaningless for ingress.
        port: its port.
        peer_netns: cookie of the client's namespace where the client is on this node, else 0.
        paired: the client is on this node and was recognised by its sequence numbers.
        slot: the number of this socket's slot, NO_SLOT where it is not spliced.
        half_spliced: the client's socket is in the map and this one is not: what is written to it would not be
            counted by FIONREAD, so the connection must end.
    """

    destination: IPAddress
    port: int
    peer_netns: int
    paired: bool
    slot: int
    half_spliced: bool


class SocketMarks:
    """Typed access to the maps that hang on sockets, endpoints and namespaces.

    Args:
        map_fd: returns the descriptor of a map by name.
    """

    def __init__(self, map_fd: Callable[[str], int]) -> None:
        self._sockets, self._upstreams = map_fd("sockets"), map_fd("upstreams")
        self._listeners, self._steering = map_fd("listeners"), map_fd("steering")
        self._endpoints, self._namespaces = map_fd("endpoints"), map_fd("namespaces")
        self._neighbours = map_fd("neighbours")
        self._own_addresses, self._spliced = map_fd("own_addresses"), map_fd("spliced")
        self._directions = map_fd("directions")

    def mark_listener(self, listener: socket.socket, endpoint: int, direction: Direction) -> None:
        """Say that a listening socket is kproxy's, for an endpoint's traffic of a direction and its own family.

        What it accepts inherits the mark, and sk_lookup hands connections to it.
        """
        map_update(self._listeners, ct.c_int(listener.fileno()), Listener(endpoint, direction))
        index = 4 * endpoint + 2 * direction + (listener.family == socket.AF_INET6)
        map_update(self._steering, ct.c_uint32(index), ct.c_uint64(listener.fileno()))

    def mark_upstream(
        self, fd: int, endpoint: int, client: tuple[IPAddress, int] | None, flags: UpstreamFlag
    ) -> None:
        """Say that a socket, not yet connected, is kproxy's own.

        Args:
            fd: the socket.
            endpoint: on whose behalf.
            client: the address that the server shall see, where the server is on this node; None: as it is.
            flags: what is known of the connection.
        """
        address, port = (_NO_ADDRESS, 0) if client is None else (Address.of(client[0]), client[1])
        map_update(self._upstreams, ct.c_int(fd), Upstream(address, port, flags, endpoint, 0))

    def origin(self, fd: int) -> Origin | None:
        """Return what is recorded about an accepted socket; None where it came around the hooks."""
        state = self.state(fd)
        if state is None or state.role != Role.PROXY:
            return None
        return Origin(
            state.shown.value(),
            state.shown_port,
            state.peer_netns,
            bool(state.paired),
            state.slot,
            bool(state.peer_in_map) and state.slot == NO_SLOT,
        )

    def direction(self, cookie: bytes) -> Direction | None:
        """Return which way a connection of an enforced endpoint was opened, by its socket's cookie (SO_COOKIE).

        None where it was there before the programs were, or so many came since that it is no longer remembered.
        """
        found = ct.c_uint32()
        key = ct.c_uint64.from_buffer_copy(cookie)
        return Direction(found.value) if map_lookup(self._directions, key, found) else None

    def slot(self, fd: int) -> int:
        """Return the slot of a socket, or NO_SLOT."""
        state = self.state(fd)
        return NO_SLOT if state is None else state.slot

    def state(self, fd: int) -> SocketState | None:
        """Return the raw record of a socket."""
        found = SocketState()
        return found if map_lookup(self._sockets, ct.c_int(fd), found) else None

    def set_endpoint(
        self,
        endpoint: int,
        source4: IPAddress | None,
        source6: IPAddress | None,
        ports: tuple[int, int],
        splice: bool,
    ) -> None:
        """Describe an endpoint.

        Args:
            endpoint: its number.
            source4, source6: its own addresses, for redirected clients that have bound none.
            ports: where its egress listeners for IPv4 and IPv6 listen; 0: there is none.
            splice: whether its sockets may be spliced.
        """
        source = [Address.of(address) if address else _NO_ADDRESS for address in (source4, source6)]
        map_update(self._endpoints, ct.c_uint32(endpoint), Endpoint(*source, *ports, splice, 0))

    def enforce(self, netns: int, endpoint: int) -> None:
        """Put the sockets of a namespace under the egress policy of an endpoint."""
        map_update(self._namespaces, ct.c_uint64(netns), ct.c_uint32(endpoint))

    def release(self, netns: int) -> None:
        """Take a namespace out of egress policy."""
        map_delete(self._namespaces, ct.c_uint64(netns))

    def add_neighbour(self, netns: int) -> None:
        """Say that the unread bytes of sockets in a namespace can be seen, so that they may be spliced."""
        map_update(self._neighbours, ct.c_uint64(netns), ct.c_uint32(1))

    def remove_neighbour(self, netns: int) -> None:
        """Take that back."""
        map_delete(self._neighbours, ct.c_uint64(netns))

    def own_address(self, address: IPAddress, endpoint: int) -> None:
        """Say that an address is an enforced endpoint's."""
        map_update(self._own_addresses, Address.of(address), ct.c_uint32(endpoint))

    def disown_address(self, address: IPAddress) -> None:
        """Take that back."""
        map_delete(self._own_addresses, Address.of(address))
