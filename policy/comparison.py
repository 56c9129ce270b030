"""Which requests change their verdict between two policies, so that a change is reviewed before it is applied."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from policy.compilation import NodePolicy
from policy.errors import UnknownEndpoint
from policy.explanation import UnknownParty, party
from policy.records import Record
from policy.verdicts import Action


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one policy says of a record."""

    verdict: str
    rule: str
    reason: str


@dataclass(frozen=True, slots=True)
class Change:
    """A request whose verdict changes, and how often it was seen.

    `headers_unknown`: one of the policies looks at headers, which the log does not hold.
    """

    record: Record
    before: Verdict
    after: Verdict
    count: int
    headers_unknown: bool


@dataclass(frozen=True, slots=True)
class Difference:
    """The changes, denials first; how many requests stay as they are; and what could not be asked."""

    changes: tuple[Change, ...]
    unchanged: int
    unknown: tuple[str, ...]


def diff(old: NodePolicy, new: NodePolicy, records: Iterable[Record]) -> Difference:
    """Ask both policies about every record (each once, however often it was seen)."""
    count: dict[Record, int] = {}
    for record in records:
        count[record] = count.get(record, 0) + 1
    changes: list[Change] = []
    unknown: list[str] = []
    unchanged = 0
    for record, times in count.items():
        try:
            (before, looked), (after, looks) = _ask(old, record), _ask(new, record)
        except (UnknownEndpoint, UnknownParty) as error:
            unknown.append(f"{record}: {error}")
            continue
        if before.verdict == after.verdict:
            unchanged += times
        else:
            changes.append(Change(record, before, after, times, looked or looks))
    changes.sort(key=lambda change: (_ORDER[change.after.verdict], str(change.record)))
    return Difference(tuple(changes), unchanged, tuple(unknown))


_ORDER = {"deny": 0, "audit": 1, "allow": 2}


def _ask(revision: NodePolicy, record: Record) -> tuple[Verdict, bool]:
    """One policy's answer, and whether it looked at headers."""
    namespace, _, name = record.endpoint.rpartition("/")
    both = revision.endpoint(namespace, name)
    side = both.ingress if record.direction == "ingress" else both.egress
    number = _number(revision, record.peer)
    answer = side.decide(number, record.protocol, record.port)
    if answer.action is not Action.REDIRECT:
        word = "deny" if answer.action is Action.DENY else "audit" if answer.audit else "allow"
        return Verdict(word, answer.rule, answer.reason), False
    judges = side.http(number, record.port)
    judgement = judges.judge(record)
    looks = any(rule.headers or rule.header_matches for rule in judges.rules)
    return Verdict(judgement.verdict, judgement.rule, judgement.reason), looks


def _number(revision: NodePolicy, peer: str) -> int:
    """The identity of a peer as the log names it."""
    if peer == "world":
        return revision.world.number
    if peer.startswith("cidr:"):
        peer = peer.removeprefix("cidr:").partition("/")[0]
    return party(revision, peer).identity.number
