"""One endpoint under enforcement: its namespace, listeners and hooks, as one thing to open and to close."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable

from kproxy.endpoints import Endpoint
from kproxy.listeners import open_listeners
from kproxy.parties import EndpointName
from sockmap.diag import SockDiag
from sockmap.hooks import Hooks
from sockmap.layout import Direction, IPAddress
from sockmap.netns import NetworkNamespace


class EnforcedEndpoint:
    """An endpoint of this node.

    Opening makes its listeners and tells the programs about it; :meth:`activate` puts its traffic under policy.
    Until a policy that knows it is in force, an active endpoint is denied everything.

    Args:
        number: its number in the BPF maps.
        endpoint: what the endpoints file says.
        hooks: the attached programs.

    Raises:
        NamespaceError, ListenerError: it cannot be opened.
    """

    def __init__(self, number: int, endpoint: Endpoint, hooks: Hooks, splice: bool) -> None:
        assert endpoint.netns is not None
        self.number, self.endpoint = number, endpoint
        self.name = EndpointName(endpoint.namespace, endpoint.name)
        self._hooks, self._may_splice = hooks, splice
        with contextlib.ExitStack() as undo:
            self.namespace = NetworkNamespace(endpoint.netns)
            undo.callback(self.namespace.close)
            self.diag = SockDiag(self.namespace)
            undo.callback(self.diag.close)
            self.listeners = open_listeners(self.namespace)
            undo.callback(self.listeners.close)
            self._introduce(undo)
            self._undo = undo.pop_all()

    def activate(self) -> None:
        """Attach sk_lookup and put the namespace's calls under policy.

        Raises:
            AttachError: another program holds the namespace.
        """
        self._undo.callback(os.close, self._hooks.attach_lookup(self.namespace, self.number))
        self._hooks.sockets.enforce(self.namespace.cookie, self.number)
        self._undo.callback(self._hooks.sockets.release, self.namespace.cookie)

    def close(self) -> None:
        """Take its traffic out of policy, and let the namespace go."""
        self._undo.close()

    @property
    def splice(self) -> bool:
        """Whether its sockets are spliced."""
        return self._may_splice and self.endpoint.splice

    def stays(self, wanted: Endpoint | None) -> bool:
        """Whether it goes on in its namespace: it is wanted there, and the namespace is still the same."""
        return wanted is not None and wanted.netns == self.endpoint.netns and self.namespace.is_current()

    def direction_of(self, cookie: bytes) -> Direction | None:
        """Which way the connection of a socket in its namespace was opened; None where that is not known."""
        return self._hooks.sockets.direction(cookie)

    def let_go_of_addresses(self, kept: Iterable[IPAddress]) -> None:
        """Give up those that are not kept."""
        for address in set(self.endpoint.addresses).difference(kept):
            self._hooks.sockets.disown_address(address)

    def change(self, endpoint: Endpoint) -> None:
        """Take over what the file now says of it, without a moment out of force."""
        self.endpoint = endpoint
        self.name = EndpointName(endpoint.namespace, endpoint.name)
        self._describe()

    def _introduce(self, undo: contextlib.ExitStack) -> None:
        sockets, listeners = self._hooks.sockets, self.listeners
        for listener in (listeners.egress4, listeners.egress6):
            if listener is not None:
                sockets.mark_listener(listener, self.number, Direction.EGRESS)
        for listener in (listeners.ingress4, listeners.ingress6):
            if listener is not None:
                sockets.mark_listener(listener, self.number, Direction.INGRESS)
        undo.callback(self.let_go_of_addresses, ())
        self._describe()

    def _describe(self) -> None:
        sockets, listeners = self._hooks.sockets, self.listeners
        port6 = listeners.egress6.getsockname()[1] if listeners.egress6 else 0
        ports = listeners.egress4.getsockname()[1], port6
        sockets.set_endpoint(self.number, *self._sources(), ports, self.splice)
        for address in self.endpoint.addresses:
            sockets.own_address(address, self.number)

    def _sources(self) -> tuple[IPAddress | None, IPAddress | None]:
        """The first address of each family: what a client that has bound none shows as its own."""
        addresses = self.endpoint.addresses
        return (
            next((address for address in addresses if address.version == 4), None),
            next((address for address in addresses if address.version == 6), None),
        )


def upstream_socket(
    namespace: NetworkNamespace, server: IPAddress, source: IPAddress | None
) -> socket.socket:
    """Make a socket inside a namespace, towards ``server``, from ``source`` where one is given."""
    family = socket.AF_INET if server.version == 4 else socket.AF_INET6
    upstream = namespace.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    if source is not None:
        try:
            # The port is chosen at connect(), per destination: binding one now would use up the pod's ports.
            upstream.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            upstream.bind((str(source), 0))
        except OSError:
            upstream.close()
            raise
    return upstream


_IP_BIND_ADDRESS_NO_PORT = 24  # include/uapi/linux/in.h; the socket module has no name for it
