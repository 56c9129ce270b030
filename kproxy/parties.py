"""Who talks to whom in one flow, and what the policy in force says of it: values, no sockets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from kproxy.judgement import PairRules, Rules, Whole
from kproxy.observer import Side
from policy import TCP, Action, Identity, L4Verdict, NodePolicy, UnknownEndpoint
from sockmap.layout import Direction, IPAddress


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
        netns: cookie of the endpoint's namespace.
        client_netns: cookie of the namespace that the client's socket is known to be in, else 0.
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
    netns: int
    client_netns: int


@dataclass(frozen=True, slots=True)
class Ruling:
    """What a policy says of a flow.

    Attributes:
        action: PASS: opaque; DENY: to be reset; REDIRECT: each request goes to ``rules``.
        sides: whose policies were asked; the first is the one that a denial belongs to.
        rules: judges requests, where the action is REDIRECT.
        whole: says what becomes of the connection, where it is not REDIRECT; the same of any request.
        ingress_judged: the server's ingress was asked too, so its namespace may let this flow through.
    """

    action: Action
    sides: tuple[Side, ...]
    rules: Rules | None
    whole: Rules
    ingress_judged: bool


def rule(policy: NodePolicy, parties: Parties) -> Ruling:
    """Ask a policy about a flow, and where both ends are enforced here, ask for both."""
    if parties.direction == Direction.INGRESS:
        return _ingress(policy, parties, parties.endpoint)
    egress = _egress(policy, parties)
    if parties.server_endpoint is None or egress.action is Action.DENY:
        return egress
    return _combine(egress, _ingress(policy, parties, parties.server_endpoint))


def _egress(policy: NodePolicy, parties: Parties) -> Ruling:
    server, port = policy.identify(parties.server), parties.server_port
    side = Side(str(parties.endpoint), "egress", server.name, written(parties.server, port), port)
    return _ruling(policy, parties.endpoint, server, side)


def _ingress(policy: NodePolicy, parties: Parties, endpoint: EndpointName) -> Ruling:
    """The namespace that holds the client's socket says more than the address it shows."""
    peer = policy.host if parties.client_is_host else policy.identify(parties.client_known_as)
    client = written(parties.client, parties.client_port)
    side = Side(str(endpoint), "ingress", peer.name, client, parties.server_port)
    return _ruling(policy, endpoint, peer, side)


def _ruling(policy: NodePolicy, endpoint: EndpointName, peer: Identity, side: Side) -> Ruling:
    ingress = side.direction == "ingress"
    try:
        both = policy.endpoint(*endpoint)
    except UnknownEndpoint:
        gone = Whole("deny", "", f"{endpoint} is no longer an endpoint of this node")
        return Ruling(Action.DENY, (side,), None, gone, ingress)
    half = both.ingress if ingress else both.egress
    verdict = half.decide(peer.number, TCP, side.port, peer.name)
    rules = half.http(peer.number, side.port) if verdict.action is Action.REDIRECT else None
    return Ruling(verdict.action, (side,), rules, _whole(verdict), ingress)


def _whole(verdict: L4Verdict) -> Whole:
    passed = "audit" if verdict.audit else "allow"
    return Whole("deny" if verdict.action is Action.DENY else passed, verdict.rule, verdict.reason)


def _combine(egress: Ruling, ingress: Ruling) -> Ruling:
    """One flow, two policies: the stricter verdict counts, and requests are judged by both rule sets.

    A policy that lets the connection pass is not asked about its requests, unless it passes only as an audit.
    """
    sides = egress.sides + ingress.sides
    if ingress.action is Action.DENY:
        return replace(ingress, sides=sides[::-1])
    whole = PairRules(egress.whole, ingress.whole)
    if egress.rules is None and ingress.rules is None:
        return Ruling(Action.PASS, sides, None, whole, True)
    if egress.rules is None and not _is_audit(egress):
        return replace(ingress, sides=sides[::-1])
    if ingress.rules is None and not _is_audit(ingress):
        return replace(egress, sides=sides, ingress_judged=True)
    rules = PairRules(egress.rules or egress.whole, ingress.rules or ingress.whole)
    return Ruling(Action.REDIRECT, sides, rules, whole, True)


def _is_audit(one: Ruling) -> bool:
    return bool(one.whole.judge(None).verdict == "audit")


def written(address: IPAddress, port: int) -> str:
    """Write a peer as the log does."""
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
