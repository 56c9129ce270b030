"""A compiled policy as the BPF maps hold it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from kproxy.parties import EndpointName
from policy import DirectionPolicy, EndpointPolicy, L4Entry, L4Verdict, NodePolicy, UnknownEndpoint
from policy.identities import HOST
from sockmap.layout import Action, Direction
from sockmap.tables import Entry, Tables


def tables_of(policy: NodePolicy, endpoints: Mapping[int, EndpointName]) -> Tables:
    """Return the tables of a policy for endpoints by their numbers in the maps; one it does not know has none."""
    prefixes = tuple((prefix.network, prefix.identity) for prefix in policy.prefixes)
    return replace(more_of(policy, endpoints), prefixes=prefixes)


def more_of(policy: NodePolicy, endpoints: Mapping[int, EndpointName]) -> Tables:
    """Return what the tables of a policy lack for more endpoints; the addresses are there already."""
    known = {number: both for number, name in endpoints.items() if (both := _both(policy, name)) is not None}
    return Tables(
        prefixes=(),
        defaults={
            number: (_action(both.ingress.default), _action(both.egress.default))
            for number, both in known.items()
        },
        entries=tuple(
            entry
            for number, both in known.items()
            for direction, half in ((Direction.INGRESS, both.ingress), (Direction.EGRESS, both.egress))
            for entry in _entries(number, direction, half)
        ),
        host_identity=HOST,
    )


def _both(policy: NodePolicy, name: EndpointName) -> EndpointPolicy | None:
    try:
        return policy.endpoint(*name)
    except UnknownEndpoint:
        return None


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
