"""From an accepted connection to a running flow: who is it, what says the policy, and a socket to the server."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from typing import Protocol

from kproxy.enforcement import EnforcedEndpoint, upstream_socket
from kproxy.limits import Limits
from kproxy.parties import EndpointName, Parties, Ruling
from kproxy.relay import RESET_ON_CLOSE, prepare
from sockmap.diag import Name
from sockmap.layout import Direction, IPAddress, UpstreamFlag, mapped
from sockmap.sockets import Origin, SocketMarks

_log = logging.getLogger(__name__)

# One wake-up takes no more than this many connections, so that accepting never starves the flows that are there.
ACCEPTS_PER_WAKE = 64

# Out of descriptors: the connection stays in the kernel's queue, and asking again at once would only burn time.
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
EXHAUSTED_PAUSE_S = 0.1


class Directory(Protocol):
    """What the connector asks about the node."""

    def by_netns(self, cookie: int) -> EnforcedEndpoint | None:
        """The enforced endpoint of a namespace."""

    def by_address(self, address: IPAddress) -> EnforcedEndpoint | None:
        """The enforced endpoint that has an address."""

    @property
    def host_netns(self) -> int:
        """Cookie of the host's namespace."""


def parties_of(
    directory: Directory,
    endpoint: EnforcedEndpoint,
    direction: Direction,
    accepted: socket.socket,
    origin: Origin,
) -> Parties | None:
    """Say who talks to whom; None where the connection came around the hooks."""
    client, client_port = _name(accepted.getpeername())
    local, local_port = _name(accepted.getsockname())
    if direction == Direction.EGRESS:
        if not origin.paired or not origin.port:
            return None
        server, port = origin.destination, origin.port
    else:
        # Loopback is never steered: whoever is connected to it called the listener itself.
        if local.is_loopback:
            return None
        server, port = local, local_port
    netns = endpoint.namespace.cookie
    client_netns = netns if direction == Direction.EGRESS else origin.peer_netns if origin.paired else 0
    return Parties(
        direction,
        endpoint.name,
        client,
        client_port,
        server,
        port,
        _known_as(directory, client, client_netns),
        origin.paired and origin.peer_netns == directory.host_netns,
        _server_endpoint(directory, direction, server),
        netns,
        client_netns,
    )


def still(directory: Directory, parties: Parties) -> Parties | None:
    """Say who talks to whom by what is known now of their namespaces and addresses.

    None where others are to be asked than before: a namespace has another name, or the server has come under
    policy here or left it.
    """
    own = directory.by_netns(parties.netns)
    owner = _server_endpoint(directory, parties.direction, parties.server)
    if own is None or own.name != parties.endpoint or owner != parties.server_endpoint:
        return None
    return replace(parties, client_known_as=_known_as(directory, parties.client, parties.client_netns))


def _known_as(directory: Directory, client: IPAddress, client_netns: int) -> IPAddress:
    holder = directory.by_netns(client_netns)
    return holder.endpoint.addresses[0] if holder else client


def _server_endpoint(directory: Directory, direction: Direction, server: IPAddress) -> EndpointName | None:
    owner = directory.by_address(server) if direction == Direction.EGRESS else None
    return owner.name if owner else None


def _name(address: tuple[str, int]) -> tuple[IPAddress, int]:
    found = ip_address(address[0].partition("%")[0])
    mapped = found.ipv4_mapped if found.version == 6 else None
    return mapped or found, address[1]


async def connect_upstream(
    endpoint: EnforcedEndpoint,
    parties: Parties,
    ruling: Ruling,
    marks: SocketMarks,
    limits: Limits,
    own: set[socket.socket],
) -> socket.socket:
    """Open the upstream socket: in the endpoint's namespace, to exactly whom the client called.

    Egress: from the client's own address. Ingress: from inside, and the server is shown the real client.

    ``own`` holds the socket from its first moment, so that nobody takes it for a stranger's.

    Raises:
        OSError: refused, unreachable, timed out.
    """
    egress = parties.direction == Direction.EGRESS
    upstream = upstream_socket(endpoint.namespace, parties.server, parties.client if egress else None)
    own.add(upstream)
    try:
        prepare(upstream, limits.dead_peer_seconds)
        flags = UpstreamFlag.SPLICE if endpoint.splice else UpstreamFlag(0)
        if egress and ruling.ingress_judged:
            flags |= UpstreamFlag.ANNOUNCE
        client = (parties.client, parties.client_port)
        marks.mark_upstream(upstream.fileno(), endpoint.number, client, flags)
        address = (str(parties.server), parties.server_port)
        async with asyncio.timeout(limits.connect_seconds):
            await asyncio.get_running_loop().sock_connect(upstream, address)
    except BaseException:
        own.discard(upstream)
        upstream.close()
        raise
    return upstream


class Acceptor:
    """Takes connections from one listener and hands them over.

    Args:
        listener: a listening, non-blocking socket.
        take: called with each accepted socket.
    """

    def __init__(self, listener: socket.socket, take: Callable[[socket.socket], None]) -> None:
        self._listener, self._take = listener, take
        self._descriptor = listener.fileno()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._descriptor, self._accept)

    def close(self) -> None:
        """Accept no more."""
        self._loop.remove_reader(self._descriptor)

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_WAKE):
            try:
                accepted, _address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in EXHAUSTED:
                    raise
                self._pause(error)
                return
            self._take(accepted)

    def _pause(self, error: OSError) -> None:
        _log.error("no connection can be accepted: %s; raise the limit of open files", error.strerror)
        self.close()
        self._loop.call_later(EXHAUSTED_PAUSE_S, self._resume)

    def _resume(self) -> None:
        if self._listener.fileno() >= 0:
            self._loop.add_reader(self._descriptor, self._accept)


def reset(accepted: socket.socket) -> None:
    """End an accepted connection with a reset."""
    with contextlib.suppress(OSError):  # its client was faster
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    accepted.close()


def name_at_peer(own: socket.socket) -> Name:
    """Return how the socket at the other end of a connection is called. Raises OSError: not connected."""
    local, local_port = _name(own.getsockname())
    remote, remote_port = _name(own.getpeername())
    return Name(mapped(remote), remote_port, mapped(local), local_port)
