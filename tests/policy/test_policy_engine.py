"""The indexes find every rule that matches, and only verify what they found: against asking every rule."""

from __future__ import annotations

import re
from typing import Any

import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st
from rules_world import Request, http_rule, rules_of

from policy import engine
from policy.patterns import options
from policy.verdicts import Judgement

BLOWING_UP = [f".*{one}.{{{count}}}" for one in "ab" for count in (6, 9)]


@given(st.lists(st.text("ab", max_size=300), min_size=20, max_size=20))
def test_a_set_that_runs_out_of_memory_begins_anew(values: list[str]) -> None:
    """An automaton whose states do not fit its memory must not answer that nothing matches: rules may deny."""
    many = re2.Set.FullMatchSet(options(memory=1 << 16))
    for pattern in BLOWING_UP:
        many.Add(pattern.encode())
    many.Compile()
    for value in values:
        expected = [at for at, pattern in enumerate(BLOWING_UP) if re.fullmatch(pattern, value)]
        assert sorted(many.Match(value.encode()) or ()) == expected


def test_a_set_without_memory_for_its_automaton_is_refused() -> None:
    """Before any value is asked for."""
    many = re2.Set.FullMatchSet(options(memory=1 << 16))
    for at in range(40):
        many.Add(b".*a.{12}%d" % at)
    with pytest.raises(re2.error):
        many.Compile()


heads = st.text("/ab", max_size=9).map(lambda text: f"/{text}")
tails = st.sampled_from(("", ".*", "[0-9]+", "[^/]+", "[ab]*", "/x", "[a-c]/b", "(a|b)"))
words = st.text("ab", min_size=1, max_size=2)
inside = st.builds("/{}/{}{}".format, st.sampled_from(("[ab]+", "[^/]*", ".")), words, tails)
ends = st.builds(
    str.__add__,
    st.sampled_from((".*", "/.*", "/[ab]*", "/a.*", "[^/]*")),
    st.text("/ab", min_size=1, max_size=4),
)
paths = st.one_of(st.builds(str.__add__, heads, tails), inside, ends)
hosts = st.builds(str.__add__, st.sampled_from(("", ".*", "[ab]+")), st.text("ab", min_size=1, max_size=4))
rule = st.one_of(
    st.fixed_dictionaries({"path": paths}),
    st.fixed_dictionaries(
        {}, optional={"method": st.sampled_from(("A", "B|C", "[AB]")), "path": paths, "host": hosts}
    ),
)
rules = st.one_of(st.lists(rule, min_size=1, max_size=8), st.lists(rule, min_size=30, max_size=60))
asked = st.one_of(heads, st.builds("/{}/{}".format, words, words))
requests = st.builds(
    Request,
    st.sampled_from((b"A", b"B", b"C")),
    st.builds(
        lambda head, tail: (head + tail).encode(), asked, st.sampled_from(("", "a", "b/b", "/x", "12", "ab"))
    ),
    st.text("ab", min_size=1, max_size=6).map(str.encode),
)


def matches(rule: dict[str, Any], request: Request) -> bool:
    """What a rule says, by Python's regular expressions."""
    sent = {"method": request.method, "path": request.path, "host": request.host}
    return all(re.fullmatch(pattern, sent[field].decode()) for field, pattern in rule.items())


@settings(max_examples=300, deadline=None)
@given(rules, st.lists(requests, min_size=30, max_size=30))
def test_every_rule_that_matches_is_found(written: list[dict[str, Any]], sent: list[Request]) -> None:
    """Beginnings that begin each other, endings, words and elements, together in one tree."""
    loaded = rules_of(http_rule(*written))[0].ingress.allow[0].ports[0].http or ()  # type: ignore[index]
    answers = [Judgement("allow", True, rule.name, "", True) for rule in loaded]
    tree = engine.build(loaded, answers)
    for request in sent:
        found = {leaf.order for leaf in tree.candidates(request) if leaf.first(request)}
        assert found == {at for at, rule in enumerate(written) if matches(rule, request)}
        assert tree.first(request) in ([answers[at] for at in found] or [None])
