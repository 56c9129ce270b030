"""Verdicts as the log and the metrics see them, and one verdict out of two policies.

A connection between two endpoints of this node is one flow, judged by the client's egress policy and the
server's ingress policy.  Each request has one line in the log all the same: it is told by the side whose
verdict weighs more (deny, then audit, then allow), by the egress side where both weigh the same, and names
the other side's rule where that side was asked too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from policy import Edited


class Judgement(Protocol):
    """What a rule set says of one request; immutable, and the same object for the same rule."""

    @property
    def verdict(self) -> str:
        """`allow`, `deny` or `audit`."""

    @property
    def allowed(self) -> bool:
        """True where the request is forwarded."""

    @property
    def rule(self) -> str:
        """The rule that decided; empty where none did."""

    @property
    def reason(self) -> str:
        """Why, as a sentence."""

    @property
    def path_judged(self) -> bool:
        """True where a path rule is in force, so that a path that servers may read differently is refused."""

    @property
    def path_tried(self) -> bool:
        """True where only policies in audit mode have path rules: then such a path passes, as `audit`."""

    @property
    def edits(self) -> Sequence[Any]:
        """Header edits that the rules ask for, in turn; `str` of one tells it without its value."""

    @property
    def guarded(self) -> frozenset[bytes]:
        """Headers that rules in force may edit, in lower case: what stands for one by another name is refused."""


class Rules(Protocol):
    """A set of rules that judges requests."""

    def judge(self, request: Any, /) -> Judgement:
        """Give the verdict on one request."""


class Whole:
    """The verdict on a connection as a whole; as rules, it says the same of each request.

    Requests are asked about where the connection became allowed whole while they were judged, and where the
    policy of the other end judges them.
    """

    __slots__ = ("reason", "rule", "verdict")

    path_judged = path_tried = False
    edits: Sequence[Any] = ()
    guarded: frozenset[bytes] = frozenset()

    def __init__(self, verdict: str, rule: str, reason: str) -> None:
        self.verdict, self.rule, self.reason = verdict, rule, reason

    @property
    def allowed(self) -> bool:
        """True where it passes."""
        return self.verdict != "deny"

    def judge(self, _request: object, /) -> Whole:
        """Say it."""
        return self


class PairJudgement:
    """What two policies say of one request; `ingress` is None where egress already denied it.

    `asked` holds the verdicts of those that were asked, egress first; `teller` is the place there of the
    one that the log line tells of.
    """

    __slots__ = (
        "allowed",
        "asked",
        "edits",
        "guarded",
        "path_judged",
        "path_tried",
        "reason",
        "rule",
        "teller",
        "verdict",
    )

    def __init__(self, egress: Judgement, ingress: Judgement | None) -> None:
        told_by_ingress = ingress is not None and _WEIGHT[ingress.verdict] > _WEIGHT[egress.verdict]
        teller = ingress if ingress is not None and told_by_ingress else egress
        self.asked = (egress,) if ingress is None else (egress, ingress)
        self.teller = 1 if told_by_ingress else 0
        self.verdict = teller.verdict
        self.allowed = egress.allowed and ingress is not None and ingress.allowed
        self.rule = teller.rule
        self.reason = teller.reason
        self.path_judged = any(one.path_judged for one in self.asked)
        self.path_tried = all(one.path_tried or not one.path_judged for one in self.asked)
        self.edits = tuple(edit for one in self.asked for edit in one.edits)
        self.guarded = frozenset[bytes]().union(*(one.guarded for one in self.asked))


_WEIGHT = {"allow": 0, "audit": 1, "deny": 2}

MAX_PAIRS = 4096
"""Most pairs of verdicts that one pair of policies remembers; past it, it starts anew.

There are as many as allow rules of one side times rules of the other that really meet: a handful, but for two
policies of thousands of rules each.
"""


class PairRules:
    """The client's egress rules and the server's ingress rules as one rule set."""

    __slots__ = ("_egress", "_ingress", "_pairs")

    def __init__(self, egress: Rules, ingress: Rules) -> None:
        self._egress = egress
        self._ingress = ingress
        self._pairs: dict[tuple[int, int], PairJudgement] = {}

    def judge(self, request: Any, /) -> PairJudgement:
        """Give the verdict of both: ingress is asked about what egress lets through, as it edited it.

        So it would be, were the server on another node.
        """
        egress = self._egress.judge(request)
        seen = Edited(request, egress.edits) if egress.edits else request
        ingress = self._ingress.judge(seen) if egress.allowed else None
        # The pair holds both verdicts, so that neither id can come to mean another object while it is here.
        pair = self._pairs.get((id(egress), id(ingress)))
        return pair if pair is not None else self._remember(egress, ingress)

    def _remember(self, egress: Judgement, ingress: Judgement | None) -> PairJudgement:
        if len(self._pairs) >= MAX_PAIRS:
            self._pairs.clear()
        pair = self._pairs[id(egress), id(ingress)] = PairJudgement(egress, ingress)
        return pair
