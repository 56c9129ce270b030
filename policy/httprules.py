"""The HTTP rules in force for one peer on one port: requests in, judgements out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from policy import engine
from policy.header_matches import HeaderRule, Secrets, Sent, allows_nothing
from policy.model import HttpRule
from policy.verdicts import HeaderEdit, Judgement, Request, described

MAX_REMEMBERED = 4096
"""Most judgements with edits that one set of rules remembers; past it, it starts anew.

A request chooses which of the headers that rules edit it sends: 20 of them make a million sets of edits.
"""


class Judge(Protocol):
    """What gives a judgement on a request."""

    def judge(self, request: Request) -> Judgement:
        """The verdict, and the rule that decided."""


@dataclass(frozen=True, slots=True)
class Miss:
    """What is said where no rule allows a request: which place in the rules, and why."""

    rule: str
    reason: str


class HttpRules:
    """Immutable: allow rules, deny rules, and what holds where neither matches.

    A deny rule that matches wins. Then a request is allowed if any allow rule matches, or all are (`open_by`
    names the rule that allows the port whatever is sent). Whatever allows it, the rules that edit headers and
    match make their edits. `path_judged` tells that some rule looks at paths.
    """

    __slots__ = (
        "_allow",
        "_allowed",
        "_deny",
        "_guarded",
        "_headers",
        "_impossible",
        "_open",
        "_otherwise",
        "_with_edits",
        "path_judged",
        "rules",
    )

    def __init__(
        self,
        allow: Iterable[HttpRule],
        deny: Iterable[HttpRule],
        miss: Miss,
        *,
        open_by: str | None = None,
        secrets: Secrets | None = None,
    ) -> None:
        known = secrets or {}
        usable = [
            rule for rule in allow if (open_by is None or rule.edits) and not allows_nothing(rule, known)
        ]
        denials = list(deny)
        self.rules = (*usable, *denials)
        self.path_judged = any(rule.judges_path for rule in self.rules)
        asked = any(rule.header_matches for rule in usable)
        headers = [HeaderRule(rule, known) for rule in usable] if asked else []
        self._headers = headers or None
        self._guarded = frozenset[bytes]().union(*(one.guarded for one in headers))
        self._allowed = [
            self._answer("allow", rule.name, described("allowed by rule", rule.description))
            for rule in usable
        ]
        self._allow = engine.build(usable, self._allowed)
        self._impossible = {
            order: self._answer("deny", usable[order].name, _impossible(one.impossible))
            for order, one in enumerate(headers)
            if one.impossible
        }
        denied = [
            self._answer("deny", rule.name, described("denied by rule", rule.description)) for rule in denials
        ]
        self._deny = engine.build(denials, denied, deny=True) if denials else None
        self._otherwise = self._answer("deny", miss.rule, miss.reason)
        self._open = None
        if open_by is not None:
            self._open = self._answer("allow", open_by, "the port is allowed whatever is sent")
        self._with_edits: dict[tuple[str, tuple[HeaderEdit, ...]], Judgement] = {}

    def _answer(self, verdict: str, rule: str, reason: str) -> Judgement:
        return Judgement(verdict, verdict != "deny", rule, reason, self.path_judged, (), self._guarded)

    def judge(self, request: Request) -> Judgement:
        """The verdict on one request."""
        if self._deny is not None:
            denied = self._deny.first(request)
            if denied is not None:
                return denied
        if self._headers is not None:
            return self._judge_headers(request, self._headers)
        if self._open is not None:
            return self._open
        return self._allow.first(request) or self._otherwise

    def _judge_headers(self, request: Request, headers: list[HeaderRule]) -> Judgement:
        """Every rule that matches gets its edits made, in the order of the rules (as in Cilium's proxy)."""
        found = sorted({leaf.order for leaf in self._allow.candidates(request) if leaf.first(request)})
        matched = [order for order in found if headers[order].holds(request)]
        for order in matched:
            if order in self._impossible:
                return self._impossible[order]
        answer = self._open or (self._allowed[matched[0]] if matched else self._otherwise)
        sent = Sent(request.headers)
        edits = tuple(edit for order in matched for edit in headers[order].edits(sent))
        return self._edited(answer, edits) if edits else answer

    def _edited(self, answer: Judgement, edits: tuple[HeaderEdit, ...]) -> Judgement:
        """One object for each rule and set of edits, for those who go by identity."""
        known = self._with_edits.get((answer.rule, edits))
        if known is None:
            if len(self._with_edits) >= MAX_REMEMBERED:
                self._with_edits.clear()
            known = self._with_edits[answer.rule, edits] = replace(answer, edits=edits)
        return known


def _impossible(secret: str) -> str:
    return f"the rule edits a header, and its secret {secret} is not there"


class AuditedRules:
    """Rules of which some are only tried: what they alone deny is let pass, as `audit`."""

    __slots__ = ("_all", "_enforced", "_made", "_paths_tried", "path_judged", "rules")

    def __init__(self, every: HttpRules, enforced: HttpRules) -> None:
        self._all = every
        self._enforced = enforced
        self._made: dict[tuple[str, str, tuple[HeaderEdit, ...]], Judgement] = {}
        self._paths_tried = every.path_judged and not enforced.path_judged
        self.rules = tuple(dict.fromkeys((*every.rules, *enforced.rules)))
        self.path_judged = every.path_judged or enforced.path_judged

    def judge(self, request: Request) -> Judgement:
        """What all rules say; where that is a denial, what the enforced ones say without the tried ones."""
        full = self._all.judge(request)
        if full.allowed and not self._paths_tried:
            return full
        enforced = self._enforced.judge(request)
        if full.allowed:
            # Of what a tried rule alone allows, the path must be as certain as if the rule were in force.
            return self._made_of(full, path_tried=True) if enforced.allowed else full
        if not enforced.allowed:
            return enforced
        # Only what is enforced can ask for a path to be refused, and edit.
        return self._made_of(enforced, verdict="audit", rule=full.rule, reason=f"audit: {full.reason}")

    def _made_of(self, judgement: Judgement, **changed: Any) -> Judgement:
        """One object for each rule and set of edits, for those who go by identity."""
        key = (changed.get("verdict", "allow"), changed.get("rule", judgement.rule), judgement.edits)
        made = self._made.get(key)
        if made is None:
            if len(self._made) >= MAX_REMEMBERED:
                self._made.clear()
            made = self._made[key] = replace(judgement, **changed)
        return made
