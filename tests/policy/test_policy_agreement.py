"""The compiled policy agrees with the slow matcher, on generated policies, connections and requests."""

from __future__ import annotations

import json
from ipaddress import ip_address
from random import Random
from typing import Any

import generated
import re2
from generated import connection, named, request, worlds
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from reference import Connection, World, decide
from rules_world import Request

import policy
from policy import Action, conditions
from policy.anatomy import anatomy
from policy.patterns import options, pattern


def answer(revision: policy.NodePolicy, connection: Connection, request: Request) -> str:
    """What the compiled policy says of a request on a connection."""
    endpoint = revision.endpoint(connection.endpoint.namespace, connection.endpoint.name)
    side = getattr(endpoint, connection.direction)
    identity = revision.identify(ip_address(connection.peer)).number
    verdict = side.decide(identity, connection.protocol, connection.port)
    if verdict.action is Action.REDIRECT:
        return str(side.http(identity, connection.port).judge(request).verdict)
    if verdict.action is Action.DENY:
        return "deny"
    return "audit" if verdict.audit else "allow"


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(generated.documents, worlds, st.integers(0, 2**32))
def test_compiled_and_slow_matcher_agree(written: list[Any], world: World, seed: int) -> None:
    """Hundreds of policies, thirty requests each: one verdict, from L3 to L7."""
    documents = named(written)
    loaded = policy.load((f"f{i}.json", json.dumps(one)) for i, one in enumerate(documents))
    assert not loaded.errors
    revision = policy.compile(loaded.rules, world.workloads, world.node, 1)
    chance = Random(seed)
    for _ in range(30):
        asked, sent = connection(chance), request(chance)
        expected = decide(documents, world, asked, sent if asked.protocol == policy.TCP else None)
        assert (answer(revision, asked, sent), asked, sent) == (expected, asked, sent)


pieces = st.sampled_from(
    (
        *(
            "/",
            "a",
            "b",
            "jobs",
            "\\.",
            ".",
            "[0-9]",
            "[^/]",
            "\\d",
            "(a|b)",
            "(?:ab)",
            "(/x)?",
            "a*",
            "(a|b)?",
            "(?:/a|b)",
        ),
        *("b+", "c{2}", "|", "^", "$", "\\b", "(?i:a)", "(?i)", "[]a]", "[^]]", "\\w", "a|b", "()", "\\$"),
        *("x?", "-", "a{1,2}", "[[:digit:]]", "\\Q.\\E", "{", "]"),
    )
)
texts = st.text("/ab12.jobs$]x-", max_size=12)


@settings(max_examples=3000, deadline=None)
@given(st.lists(pieces, max_size=7).map("".join), texts, st.booleans())
@example("/jobs/.*", "/jobs/1", False)
@example("/[^/]+/jobs/.*", "/a/jobs/1", False)
@example("(?i)/a", "/A", False)
def test_what_patterns_say_in_plain_text_is_true(text: str, value: str, fold: bool) -> None:
    """Words, head, suffix and the parts between: matching by them is matching by RE2."""
    try:
        whole = re2.compile(text.encode(), options(fold_case=fold))
    except re2.error:
        return
    known = pattern(text, fold_case=fold)
    tried = (value + text).encode() if fold else value.encode()
    for subject in {
        tried,
        *anatomy(text.encode()).words,
        known.head + value.encode(),
        value.encode() + known.suffix,
    }:
        subject = subject.lower() if fold else subject
        matches = whole.fullmatch(subject) is not None
        assert bool(known.matcher()(subject)) == matches
        headed = subject.startswith(known.head) and bool(known.rest_matcher()(subject[len(known.head) :]))
        assert headed == matches
        for element in () if fold else known.parts.elements:
            parts = subject.split(b"/", element.place + 1)
            here = len(parts) > element.place and parts[element.place] == element.text
            around = conditions.of_path_around(known, element)(Request(path=subject))
            assert (here and bool(around)) == matches
        if known.suffix and not known.head:
            ends = subject.endswith(known.suffix)
            assert (ends and bool(known.middle_matcher()(subject[: -len(known.suffix)]))) == matches
