"""What warnings claim is true, on generated policies: what is said to decide nothing can go."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any

from generated import connection, documents, request, worlds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import World
from test_policy_agreement import answer

import policy
from policy.model import Direction, Place, Policy, Rule

SUPERFLUOUS = ("decides nothing", "allows nothing")


def without(rules: tuple[Policy, ...], gone: policy.Problem) -> tuple[Policy, ...]:
    """The rules less what stands at the place of a warning; nothing else of its policy changes."""

    def kept(place: Place) -> bool:
        return (place.file, place.pointer) != (gone.file, gone.pointer)

    def rest(found: tuple[Rule, ...]) -> Iterator[Rule]:
        for rule in found:
            ports = rule.ports and tuple(
                replace(port, http=port.http and tuple(one for one in port.http if kept(one.place)))
                for port in rule.ports
                if kept(port.place)
            )
            if kept(rule.place):
                yield replace(rule, ports=ports)

    def direction(one: Direction) -> Direction:
        return replace(one, allow=tuple(rest(one.allow)), deny=tuple(rest(one.deny)))

    return tuple(replace(one, ingress=direction(one.ingress), egress=direction(one.egress)) for one in rules)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(documents, worlds, st.integers(0, 2**32))
def test_what_decides_nothing_can_go(written: list[Any], world: World, seed: int) -> None:
    """Without a rule that a warning calls superfluous, every verdict stays."""
    named = [
        one if isinstance(one, list) else one | {"metadata": one["metadata"] | {"name": f"p{i}"}}
        for i, one in enumerate(written)
    ]
    loaded = policy.load((f"f{i}.json", json.dumps(one)) for i, one in enumerate(named))
    before = policy.compile(loaded.rules, world.workloads, world.node, 1)
    chance = Random(seed)
    asked = [(connection(chance), request(chance)) for _ in range(30)]
    for warning in loaded.warnings:
        if warning.message.startswith(SUPERFLUOUS):
            rules = without(loaded.rules, warning)
            assert rules != loaded.rules
            after = policy.compile(rules, world.workloads, world.node, 1)
            for one in asked:
                assert (answer(after, *one), warning) == (answer(before, *one), warning)
