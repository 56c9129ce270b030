"""A compiled policy as the BPF maps hold it."""

from __future__ import annotations

from collections.abc import Iterable

from kproxy.enforcement import EnforcedEndpoint
from policy import DirectionPolicy, L4Entry, L4Verdict, NodePolicy
from policy.identities import HOST
from sockmap.layout import Action, Direction
from sockmap.tables import Entry, Tables


def tables_of(policy: NodePolicy, enforced: Iterable[EnforcedEndpoint]) -> Tables:
    """Return the tables of a policy for the endpoints that are open."""
    endpoints = list(enforced)
    return Tables(
        prefixes=tuple((prefix.network, prefix.identity) for prefix in policy.prefixes),
        defaults={
            endpoint.number: (
                _action(policy.endpoint(*endpoint.name).ingress.default),
                _action(policy.endpoint(*endpoint.name).egress.default),
            )
            for endpoint in endpoints
        },
        entries=tuple(
            entry
            for endpoint in endpoints
            for direction in Direction
            for entry in _entries(endpoint.number, direction, _half(policy, endpoint, direction))
        ),
        host_identity=HOST,
    )


def _half(policy: NodePolicy, endpoint: EnforcedEndpoint, direction: Direction) -> DirectionPolicy:
    both = policy.endpoint(*endpoint.name)
    return both.ingress if direction == Direction.INGRESS else both.egress


def _entries(number: int, direction: Direction, half: DirectionPolicy) -> Iterable[Entry]:
    for entry in half.entries:
        yield Entry(
            number,
            direction,
            entry.identity,
            entry.protocol,
            entry.first_port,
            entry.last_port,
            _action(entry),
        )


def _action(decided: L4Verdict | L4Entry) -> Action:
    """What is let pass only because a policy is tried is told by the kernel."""
    return Action.AUDIT if decided.audit else Action[decided.action.name]
