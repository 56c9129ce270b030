"""Direct connections that no hook has seen, or that the policy in force no longer allows: reset, and counted.

A connection is looked at by the hooks when it is made. Those made before kproxy attached, or under a policy that
allowed more, would go on until one of their ends is tired of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address

from kproxy.enforcement import EnforcedEndpoint
from kproxy.logs import logger
from policy import TCP, Action, NodePolicy
from sockmap.diag import Connection, Name
from sockmap.layout import IPAddress

_log = logger(__name__)


@dataclass(frozen=True, slots=True)
class OwnSockets:
    """What belongs to flows that kproxy carries, and is judged there.

    Attributes:
        cookies: of kproxy's own sockets.
        served: names, as the server's socket has them, of the connections from kproxy's upstream sockets.
    """

    cookies: frozenset[bytes]
    served: frozenset[Name]


def reset_stale(endpoint: EnforcedEndpoint, policy: NodePolicy, own: OwnSockets) -> int:
    """Reset the direct connections of an endpoint that the policy does not let pass whole; return how many."""
    ended = 0
    try:
        listening = endpoint.diag.listening_ports()
        for connection in endpoint.diag.connections():
            if _stale(endpoint, policy, own, listening, connection) and endpoint.diag.destroy(connection):
                ended += 1
    except OSError as error:
        _log.warning("old connections cannot be reset", endpoint=str(endpoint.name), error=str(error))
    return ended


def _stale(
    endpoint: EnforcedEndpoint,
    policy: NodePolicy,
    own: OwnSockets,
    listening: set[int],
    connection: Connection,
) -> bool:
    name = connection.name
    local, remote = _address(name.local), _address(name.remote)
    # Redirected clients are connected to loopback; an ingress flow's upstream side is from the pod to itself.
    inside = local.is_loopback or remote.is_loopback or local == remote
    if inside or not connection.accepted or connection.cookie in own.cookies or name in own.served:
        return False
    both, identity = policy.endpoint(*endpoint.name), policy.identify(remote).number
    # Who opened a connection is not recorded: whoever listens on the port was called there.
    if name.local_port in listening:
        return both.ingress.decide(identity, TCP, name.local_port).action is not Action.PASS
    return both.egress.decide(identity, TCP, name.remote_port).action is not Action.PASS


def _address(packed: bytes) -> IPAddress:
    found = IPv6Address(packed)
    return found.ipv4_mapped or found
