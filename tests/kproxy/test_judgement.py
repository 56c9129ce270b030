"""One verdict out of two policies: who tells it, and when the second is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kproxy import judgement
from kproxy.judgement import Judgement, PairRules
from policy import HeaderEdit
from tests.kproxy.recorded import Verdict

VERDICTS = ("allow", "deny", "audit")


class Says:
    """A rule set that says the same of every request, and counts how often it was asked."""

    def __init__(self, verdict: Judgement) -> None:
        self.verdict = verdict
        self.asked = 0

    def judge(self, request: Any, /) -> Judgement:
        """Say it."""
        self.asked += 1
        return self.verdict


@pytest.mark.parametrize(
    ("egress", "ingress", "verdict", "teller"),
    [
        ("allow", "allow", "allow", 0),
        ("allow", "audit", "audit", 1),
        ("allow", "deny", "deny", 1),
        ("audit", "allow", "audit", 0),
        ("audit", "audit", "audit", 0),
        ("audit", "deny", "deny", 1),
        ("deny", "allow", "deny", 0),
        ("deny", "audit", "deny", 0),
        ("deny", "deny", "deny", 0),
    ],
)
def test_the_weightier_side_tells(egress: str, ingress: str, verdict: str, teller: int) -> None:
    """Deny before audit before allow, egress first; ingress is not asked about what egress denies."""
    sides = (Says(Verdict(egress, "e", "because e")), Says(Verdict(ingress, "i", "because i")))
    pair = PairRules(*sides).judge(object())
    assert (pair.verdict, pair.teller) == (verdict, teller)
    assert (pair.rule, pair.reason) == (("e", "because e"), ("i", "because i"))[teller]
    assert pair.allowed == (verdict != "deny")
    assert sides[1].asked == (egress != "deny")
    assert len(pair.asked) == 1 + sides[1].asked


def test_same_verdicts_are_the_same_object() -> None:
    """The log's cache goes by identity, so equal pairs are one object."""
    rules = PairRules(Says(Verdict(rule="e")), Says(Verdict(rule="i")))
    assert rules.judge(1) is rules.judge(2)


ADD, DELETE = HeaderEdit("add", b"x-token", b"1"), HeaderEdit("delete", b"x-role", b"")


class Request(NamedTuple):
    """A request with headers."""

    method: bytes = b"GET"
    path: bytes = b"/"
    host: bytes = b"a"
    headers: Sequence[tuple[bytes, bytes]] = ((b"x-role", b"admin"),)


def test_edits_and_path_rules_of_both_count() -> None:
    """Both policies' header edits are made, egress first, and a path rule of either is a path rule."""
    pair = PairRules(
        Says(Verdict(edits=(ADD,), guarded=frozenset((b"x-token",)))),
        Says(Verdict(edits=(DELETE, ADD), guarded=frozenset((b"x-role", b"x-token")), path_judged=True)),
    ).judge(Request())
    assert pair.edits == (ADD, DELETE, ADD)
    assert pair.guarded == {b"x-role", b"x-token"}
    assert pair.path_judged


def test_ingress_judges_what_egress_forwards() -> None:
    """The server's policy sees the headers as the client's has edited them, as on another node it would."""
    seen = []

    class Sees(Says):
        def judge(self, request: Any, /) -> Judgement:
            seen.append(list(request.headers))
            return self.verdict

    PairRules(Says(Verdict(edits=(DELETE, ADD))), Sees(Verdict())).judge(Request())
    assert seen == [[(b"x-token", b"1")]]


class Fresh:
    """A rule set that makes a new verdict for each request."""

    def judge(self, request: Any, /) -> Judgement:
        """Allow or deny, as the request says."""
        return Verdict(request)


@given(st.lists(st.tuples(st.sampled_from(VERDICTS), st.sampled_from(VERDICTS)), max_size=50))
def test_memory_never_answers_for_another_verdict(requests: list[tuple[str, str]]) -> None:
    """Where verdicts are made anew and freed, no remembered pair is taken for another one."""
    rules = PairRules(_Half(0), _Half(1))
    for request in requests:
        pair = rules.judge(request)
        assert pair.allowed == ("deny" not in request)


class _Half(Fresh):
    """Judges one half of a request that is a pair of verdicts."""

    def __init__(self, half: int) -> None:
        self._half = half

    def judge(self, request: Any, /) -> Judgement:
        return super().judge(request[self._half])


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Verdicts without end do not fill memory."""
    monkeypatch.setattr(judgement, "MAX_PAIRS", 8)
    rules = PairRules(Fresh(), Fresh())
    for _ in range(100):
        rules.judge("allow")
        assert len(rules._pairs) <= 8
