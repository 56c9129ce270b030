"""Direct connections that no hook has seen, or that the policy in force no longer allows: reset, and counted.

A connection is looked at by the hooks when it is made. Those made before kproxy attached, or under a policy that
allowed more, would go on until one of their ends is tired of them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import NamedTuple

from kproxy.enforcement import EnforcedEndpoint
from kproxy.logs import logger
from policy import TCP, Action, NodePolicy
from sockmap.diag import Connection, Name
from sockmap.layout import Direction, IPAddress

_log = logger(__name__)


_REASONS = {Action.DENY: "not_allowed", Action.REDIRECT: "needs_judging"}


class Why(NamedTuple):
    """Of which direction's policy, and why a connection could not go on around the proxy."""

    direction: str
    reason: str


@dataclass(frozen=True, slots=True)
class OwnSockets:
    """What belongs to flows that kproxy carries, and is judged there.

    Attributes:
        cookies: of kproxy's own sockets.
        served: names, as the server's socket has them, of the connections from kproxy's upstream sockets.
    """

    cookies: frozenset[bytes]
    served: frozenset[Name]


def reset_stale(endpoint: EnforcedEndpoint, policy: NodePolicy, own: OwnSockets) -> Counter[Why]:
    """Reset an endpoint's direct connections that the policy does not let pass whole; count them by why."""
    ended: Counter[Why] = Counter()
    try:
        listening = endpoint.diag.listening_ports()
        for connection in endpoint.diag.connections():
            why = _why(endpoint, policy, own, listening, connection)
            if why and endpoint.diag.destroy(connection):
                ended[why] += 1
    except OSError as error:
        _log.warning("old connections cannot be reset", endpoint=str(endpoint.name), error=str(error))
    return ended


def _why(
    endpoint: EnforcedEndpoint,
    policy: NodePolicy,
    own: OwnSockets,
    listening: set[int],
    connection: Connection,
) -> Why | None:
    """Why a connection cannot go on, if it cannot."""
    name = connection.name
    local, remote = _address(name.local), _address(name.remote)
    # Redirected clients are connected to loopback; an ingress flow's upstream side is from the pod to itself.
    inside = local.is_loopback or remote.is_loopback or local == remote
    if inside or not connection.accepted or connection.cookie in own.cookies or name in own.served:
        return None
    both, identity = policy.endpoint(*endpoint.name), policy.identify(remote).number
    opened = endpoint.direction_of(connection.cookie)
    # Of a connection from before kproxy: whoever listens on the port was called there.
    ingress = name.local_port in listening if opened is None else opened is Direction.INGRESS
    half, port = (both.ingress, name.local_port) if ingress else (both.egress, name.remote_port)
    reason = _REASONS.get(half.decide(identity, TCP, port).action)
    return Why("ingress" if ingress else "egress", reason) if reason else None


def _address(packed: bytes) -> IPAddress:
    found = IPv6Address(packed)
    return found.ipv4_mapped or found
