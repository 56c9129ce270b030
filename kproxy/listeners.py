"""kproxy's listeners inside an endpoint's network namespace.

Four of them, for each direction and family, on loopback and on a port that the kernel picks: nothing in the pod
needs configuring, and no port of the application's is taken. sk_lookup hands them connections for any address.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass

from kproxy.errors import KproxyError
from sockmap.netns import NetworkNamespace

# The kernel cuts this to net.core.somaxconn, 4096 on current kernels.
BACKLOG = 4096


class ListenerError(KproxyError):
    """A listener cannot be made inside an endpoint's namespace."""


@dataclass(frozen=True, slots=True)
class Listeners:
    """The listeners of one endpoint; those of a family that its namespace lacks are None."""

    egress4: socket.socket
    egress6: socket.socket | None
    ingress4: socket.socket
    ingress6: socket.socket | None

    def __iter__(self) -> Iterator[socket.socket]:
        """Yield those that are there."""
        everyone = (self.egress4, self.egress6, self.ingress4, self.ingress6)
        return (listener for listener in everyone if listener is not None)

    def close(self) -> None:
        """Close them; the namespace may then go."""
        for listener in self:
            listener.close()


def open_listeners(namespace: NetworkNamespace) -> Listeners:
    """Make the listeners inside a namespace.

    Raises:
        ListenerError: they cannot be made, mostly because ``lo`` is down or missing there.
    """
    try:
        return Listeners(
            _listener(namespace, socket.AF_INET, "127.0.0.1"),
            _listener6(namespace),
            _listener(namespace, socket.AF_INET, "127.0.0.1"),
            _listener6(namespace),
        )
    except OSError as error:
        raise ListenerError(
            f"no listener can be made in {namespace.path}: {error.strerror}",
            mend=f"is lo up there? try: nsenter --net={namespace.path} ip link set lo up",
        ) from error


def _listener6(namespace: NetworkNamespace) -> socket.socket | None:
    """Without IPv6 in the namespace there is nothing to listen on, and nothing to redirect or let in."""
    try:
        return _listener(namespace, socket.AF_INET6, "::1")
    except OSError:
        return None


def _listener(namespace: NetworkNamespace, family: int, address: str) -> socket.socket:
    listener = namespace.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        # What sk_lookup steers here has the server's own port. Without this a server that restarts could not bind
        # it while such a connection is open or in TIME_WAIT; accepted sockets inherit it.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((address, 0))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
