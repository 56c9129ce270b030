"""A compiled policy as the BPF maps hold it."""

from __future__ import annotations

from collections.abc import Iterable

from kproxy.enforcement import EnforcedEndpoint
from policy import Action as PolicyAction
from policy import DirectionPolicy, NodePolicy
from policy.identities import HOST
from sockmap.layout import Action, Direction
from sockmap.tables import Entry, Tables

_ACTIONS = {
    PolicyAction.PASS: Action.PASS,
    PolicyAction.DENY: Action.DENY,
    PolicyAction.REDIRECT: Action.REDIRECT,
}


def tables_of(policy: NodePolicy, enforced: Iterable[EnforcedEndpoint]) -> Tables:
    """Return the tables of a policy for the endpoints that are open."""
    endpoints = list(enforced)
    return Tables(
        prefixes=tuple((prefix.network, prefix.identity) for prefix in policy.prefixes),
        defaults={
            endpoint.number: (
                _ACTIONS[policy.endpoint(*endpoint.name).ingress.default.action],
                _ACTIONS[policy.endpoint(*endpoint.name).egress.default.action],
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
            _ACTIONS[entry.action],
        )
