"""Rules over ports, of one peer, into disjoint intervals with one answer each.

The arithmetic of allow and deny alone (Cilium: policy/mapstate.go for precedence, l4.go for widening):
a deny rule wins over every allow rule; an allow rule without requests widens a port to all requests; rules
with requests are ORed; where no rule speaks, the default holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from policy.model import HttpRule, Mode
from policy.verdicts import Action, described


@dataclass(frozen=True, slots=True)
class Claim:
    """What one place in the rules says about some ports of one peer."""

    protocol: int
    first: int
    last: int
    rule: str
    deny: bool
    mode: Mode
    description: str = ""
    http: tuple[HttpRule, ...] | None = None
    """None: about everything; else only about these requests."""


@dataclass(frozen=True, slots=True)
class Default:
    """What holds where no rule speaks: who brought default deny (in force, or only tried), if anyone."""

    denied_by: str = ""
    audited_by: str = ""
    description: str = ""
    """What that policy says it is for."""

    @property
    def allows(self) -> bool:
        """Whether the direction is open unless something is said."""
        return not self.denied_by


@dataclass(frozen=True, slots=True)
class Answer:
    """What the claims on a port come to, under one reading of them."""

    action: Action
    rule: str
    reason: str
    allow: tuple[HttpRule, ...] = ()
    deny: tuple[HttpRule, ...] = ()
    open_by: str | None = None
    """With REDIRECT: the rule that allows every request that no deny rule matches."""
    description: str = ""
    """With REDIRECT: what that policy says it is for."""
    place: str = ""
    """With REDIRECT: where in the rules a request that nothing allows was to be allowed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer with every policy, and with those in force only (they differ where a policy is audited)."""

    every: Answer
    enforced: Answer

    @property
    def action(self) -> Action:
        """What is done with a connection: the tried policies deny nothing, but their requests are judged."""
        return self.enforced.action if self.every.action is Action.DENY else self.every.action

    @property
    def audit(self) -> bool:
        """Whether it passes only as the policy that denies it is not in force."""
        return self.every.action is Action.DENY and self.enforced.action is not Action.DENY


@dataclass(frozen=True, slots=True)
class Interval:
    """Ports of one protocol with one outcome."""

    protocol: int
    first: int
    last: int
    outcome: Outcome


def resolve(claims: Sequence[Claim], default: Default) -> list[Interval]:
    """Disjoint intervals in ascending order of (protocol, port); ports outside take the default."""
    intervals: list[Interval] = []
    for protocol in sorted({claim.protocol for claim in claims}):
        own = [claim for claim in claims if claim.protocol == protocol]
        for interval in _sweep(protocol, own, default):
            before = intervals[-1] if intervals else None
            if before and _continues(before, interval):
                intervals[-1] = Interval(protocol, before.first, interval.last, before.outcome)
            else:
                intervals.append(interval)
    return intervals


def _continues(before: Interval, after: Interval) -> bool:
    adjacent = before.protocol == after.protocol and before.last + 1 == after.first
    return adjacent and before.outcome == after.outcome


def _sweep(protocol: int, claims: Sequence[Claim], default: Default) -> Iterable[Interval]:
    """Cut the ports wherever a claim begins or ends, and answer each piece by the claims that cover it."""
    cuts = sorted({claim.first for claim in claims} | {claim.last + 1 for claim in claims})
    starting: dict[int, list[int]] = {}
    ending: dict[int, list[int]] = {}
    for i, claim in enumerate(claims):
        starting.setdefault(claim.first, []).append(i)
        ending.setdefault(claim.last + 1, []).append(i)
    active: set[int] = set()
    for first, after in pairwise(cuts):
        active.difference_update(ending.get(first, ()))
        active.update(starting.get(first, ()))
        if active:
            covering = [claims[i] for i in sorted(active)]
            yield Interval(protocol, first, after - 1, _outcome(covering, default))


def _outcome(claims: Sequence[Claim], default: Default) -> Outcome:
    every = _answer(claims, default.denied_by or default.audited_by, default.description)
    if not default.audited_by and all(claim.mode is Mode.ENFORCE for claim in claims):
        return Outcome(every, every)
    enforced = [claim for claim in claims if claim.mode is Mode.ENFORCE]
    return Outcome(every, _answer(enforced, default.denied_by, default.description))


def _answer(claims: Sequence[Claim], denied_by: str, description: str) -> Answer:
    denials = [claim for claim in claims if claim.deny]
    for claim in denials:
        if claim.http is None:
            return Answer(Action.DENY, claim.rule, described("denied by rule", claim.description))
    deny = tuple(rule for claim in denials for rule in claim.http or ())
    allows = [claim for claim in claims if not claim.deny]
    for claim in allows:
        if claim.http is None:
            edits = tuple(rule for one in allows for rule in one.http or () if rule.edits)
            return _open(claim.rule, described("allowed by rule", claim.description), deny, edits)
    if allows:
        return _judged(allows, deny)
    if denied_by:
        return Answer(Action.DENY, denied_by, described("default deny: no rule allows it", description))
    return _open("", "no policy brings default deny", deny)


def _open(rule: str, reason: str, deny: tuple[HttpRule, ...], edits: tuple[HttpRule, ...] = ()) -> Answer:
    """Allowed whatever is sent; rules that edit headers are heard all the same (Cilium, canShortCircuit)."""
    if not (deny or edits):
        return Answer(Action.PASS, rule, reason)
    return Answer(Action.REDIRECT, rule, "its requests are judged", edits, deny, rule, rule)


def _judged(allows: Sequence[Claim], deny: tuple[HttpRule, ...]) -> Answer:
    allow = tuple(rule for claim in allows for rule in claim.http or ())
    more = f" (and {len(allows) - 1} more)" if len(allows) > 1 else ""
    first = allows[0]
    reason = f"its requests are judged by {first.rule}{more}"
    return Answer(Action.REDIRECT, first.rule, reason, allow, deny, None, first.description, first.rule)
