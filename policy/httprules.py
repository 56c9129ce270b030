"""The HTTP rules in force for one peer on one port: requests in, judgements out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from policy import engine
from policy.conditions import joined
from policy.model import HeaderMatch, HttpRule, Mismatch
from policy.verdicts import HeaderEdit, Judgement, Request, described

Secrets = Mapping[str, bytes]
"""Values by `namespace/name`."""


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
    names the rule that allows the port whatever is sent). `path_judged` tells that some rule looks at paths.
    """

    __slots__ = (
        "_allow",
        "_allowed",
        "_deny",
        "_edits",
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
        usable = [rule for rule in allow if open_by is None and not _lacks_secret(rule, known)]
        denials = list(deny)
        self.rules = (*usable, *denials)
        self.path_judged = any(rule.judges_path for rule in self.rules)
        self._allowed = [
            self._answer("allow", rule.name, described("allowed by rule", rule.description))
            for rule in usable
        ]
        self._allow = engine.build(usable, self._allowed)
        denied = [
            self._answer("deny", rule.name, described("denied by rule", rule.description)) for rule in denials
        ]
        self._deny = engine.build(denials, denied, deny=True) if denials else None
        self._otherwise = self._answer("deny", miss.rule, miss.reason)
        self._open = None
        if open_by is not None:
            self._open = self._answer("allow", open_by, "the port is allowed whatever is sent")
        self._with_edits: dict[tuple[int, tuple[HeaderEdit, ...]], Judgement] = {}
        self._edits = (
            [_editor(rule, known) for rule in usable] if any(r.header_matches for r in usable) else None
        )

    def _answer(self, verdict: str, rule: str, reason: str) -> Judgement:
        return Judgement(verdict, verdict != "deny", rule, reason, self.path_judged)

    def judge(self, request: Request) -> Judgement:
        """The verdict on one request."""
        if self._deny is not None:
            denied = self._deny.first(request)
            if denied is not None:
                return denied
        if self._open is not None:
            return self._open
        if self._edits is not None:
            return self._judge_with_edits(request)
        return self._allow.first(request) or self._otherwise

    def _judge_with_edits(self, request: Request) -> Judgement:
        """Every rule that matches gets its edits made, in the order of the rules (as in Cilium's proxy)."""
        assert self._edits is not None
        found = sorted({leaf.order for leaf in self._allow.candidates(request) if leaf.first(request)})
        edits: list[HeaderEdit] = []
        matched: list[int] = []
        for order in found:
            own = self._edits[order](request)
            if own is not None:
                matched.append(order)
                edits += own
        if not matched:
            return self._otherwise
        answer = self._allowed[matched[0]]
        return self._edited(matched[0], tuple(edits)) if edits else answer

    def _edited(self, order: int, edits: tuple[HeaderEdit, ...]) -> Judgement:
        """One object for each rule and set of edits, of which there are few: edits come from rules alone."""
        known = self._with_edits.get((order, edits))
        if known is None:
            known = self._with_edits[order, edits] = replace(self._allowed[order], edits=edits)
        return known


class AuditedRules:
    """Rules of which some are only tried: what they alone deny is let pass, as `audit`."""

    __slots__ = ("_all", "_enforced", "_made", "path_judged", "rules")

    def __init__(self, every: HttpRules, enforced: HttpRules) -> None:
        self._all = every
        self._enforced = enforced
        self._made: dict[tuple[str, tuple[HeaderEdit, ...]], Judgement] = {}
        self.rules = tuple(dict.fromkeys((*every.rules, *enforced.rules)))
        self.path_judged = every.path_judged or enforced.path_judged

    def judge(self, request: Request) -> Judgement:
        """What all rules say; where that is a denial, what the enforced ones say without the tried ones."""
        full = self._all.judge(request)
        if full.allowed:
            return full
        enforced = self._enforced.judge(request)
        if not enforced.allowed:
            return enforced
        key = (full.rule, enforced.edits)
        if key not in self._made:
            # Only what is enforced can ask for a path to be refused.
            self._made[key] = Judgement(
                "audit", True, full.rule, f"audit: {full.reason}", enforced.path_judged, enforced.edits
            )
        return self._made[key]


def _lacks_secret(rule: HttpRule, secrets: Secrets) -> bool:
    """Without its value a header cannot be matched: the rule allows nothing (Cilium, getHTTPRule)."""
    return any(missing_secret(match, secrets) for match in rule.header_matches)


def missing_secret(match: HeaderMatch, secrets: Secrets) -> bool:
    """Whether a header match has no value, as its secret is not there."""
    return bool(match.secret) and match.secret not in secrets and not match.value


Edits = Callable[[Request], list[HeaderEdit] | None]


def _editor(rule: HttpRule, secrets: Secrets) -> Edits:
    """What a rule changes in a request that it matches; None if its headers must match and do not."""
    matches = [(match, secrets.get(match.secret, match.value)) for match in rule.header_matches]

    def edits(request: Request) -> list[HeaderEdit] | None:
        made: list[HeaderEdit] = []
        for match, value in matches:
            own = _mismatch(match, value, joined(request.headers, match.name))
            if own is None:
                return None
            made += own
        return made

    return edits


def _mismatch(match: HeaderMatch, expected: bytes, sent: bytes | None) -> list[HeaderEdit] | None:
    """The edits for one header, after what was sent is known; an expected value of nothing means presence."""
    if sent is not None and (not expected or sent == expected):
        return []
    match match.mismatch:
        case Mismatch.FAIL:
            return None
        case Mismatch.DELETE:
            return [HeaderEdit("delete", match.name, b"")] if sent is not None else []
        case other:
            return [HeaderEdit(other.value.lower(), match.name, expected)]
