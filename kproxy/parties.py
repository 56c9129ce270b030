"""Who talks to whom in one flow, and what the policy in force says of it: values, no sockets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from kproxy.judgement import PairRules, Rules
from kproxy.observer import Side
from policy import TCP, Action, DirectionPolicy, Identity, L4Verdict, NodePolicy
from policy.identities import HOST
from sockmap.layout import Direction, IPAddress

_HOST = Identity(HOST, "host", "host")


class EndpointName(NamedTuple):
    """How the policy knows an endpoint."""

    namespace: str
    name: str

    def __str__(self) -> str:
        """``namespace/name``, as in logs."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Parties:
    """The two ends of a flow.

    Attributes:
        direction: which of the enforced endpoint's directions brought it here.
        endpoint: that endpoint.
        client, client_port: who called.
        server, server_port: who was called.
        client_known_as: the address by which the policy knows the client: its endpoint's, where the client's
            socket is known to be in that endpoint's namespace; else the one that it shows.
        client_is_host: the client's socket is known to be in the host's namespace.
        server_endpoint: the enforced endpoint that has the server's address, if one.
    """

    direction: Direction
    endpoint: EndpointName
    client: IPAddress
    client_port: int
    server: IPAddress
    server_port: int
    client_known_as: IPAddress
    client_is_host: bool
    server_endpoint: EndpointName | None


@dataclass(frozen=True, slots=True)
class Ruling:
    """What a policy says of a flow.

    Attributes:
        verdict: PASS: opaque; DENY: to be reset; REDIRECT: each request goes to ``rules``.
        sides: whose policies were asked; the first is the one that the verdict and its rule belong to.
        rules: judges requests, where the verdict is REDIRECT.
        ingress_judged: the server's ingress was asked too, so its namespace may let this flow through.
    """

    verdict: L4Verdict
    sides: tuple[Side, ...]
    rules: Rules | None
    ingress_judged: bool


def rule(policy: NodePolicy, parties: Parties) -> Ruling:
    """Ask a policy about a flow, and where both ends are enforced here, ask for both."""
    if parties.direction == Direction.INGRESS:
        return _ingress(policy, parties, parties.endpoint)
    egress = _egress(policy, parties)
    if parties.server_endpoint is None or egress.verdict.action is Action.DENY:
        return egress
    return _combine(egress, _ingress(policy, parties, parties.server_endpoint))


def _egress(policy: NodePolicy, parties: Parties) -> Ruling:
    server = policy.identify(parties.server)
    egress = policy.endpoint(*parties.endpoint).egress
    side = Side(str(parties.endpoint), "egress", server.name, _written(parties.server, parties.server_port))
    return _ruling(egress, server, parties.server_port, side)


def _ingress(policy: NodePolicy, parties: Parties, endpoint: EndpointName) -> Ruling:
    """The namespace that holds the client's socket says more than the address it shows."""
    peer = _HOST if parties.client_is_host else policy.identify(parties.client_known_as)
    ingress = policy.endpoint(*endpoint).ingress
    side = Side(str(endpoint), "ingress", peer.name, _written(parties.client, parties.client_port))
    return _ruling(ingress, peer, parties.server_port, side)


def _ruling(direction: DirectionPolicy, peer: Identity, port: int, side: Side) -> Ruling:
    verdict = direction.decide(peer.number, TCP, port)
    rules = direction.http(peer.number, port) if verdict.action is Action.REDIRECT else None
    return Ruling(verdict, (side,), rules, side.direction == "ingress")


def _combine(egress: Ruling, ingress: Ruling) -> Ruling:
    """One flow, two policies: the stricter verdict counts, and requests are judged by both rule sets."""
    if ingress.verdict.action is Action.DENY or egress.rules is None:
        return replace(ingress, sides=ingress.sides + egress.sides)
    if ingress.rules is None:
        return replace(egress, sides=egress.sides + ingress.sides, ingress_judged=True)
    rules = PairRules(egress.rules, ingress.rules)
    return Ruling(egress.verdict, egress.sides + ingress.sides, rules, True)


def _written(address: IPAddress, port: int) -> str:
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
