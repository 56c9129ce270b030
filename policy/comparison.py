"""Which requests change their verdict between two policies, so that a change is reviewed before it is applied."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from policy import conditions
from policy.compilation import NodePolicy
from policy.errors import UnknownEndpoint
from policy.explanation import UnknownParty, party
from policy.identities import Identity
from policy.model import HttpRule
from policy.records import Record
from policy.verdicts import Action

# Of what could not be asked, a person is shown this many; the others are counted.
MAX_UNKNOWN = 100


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one policy says of a record."""

    verdict: str
    rule: str
    reason: str


@dataclass(frozen=True, slots=True)
class Change:
    """A request whose verdict changes, and how often it was seen (0: it was only described).

    `headers_unknown`: one of the policies looks at headers, which the log does not hold.
    """

    record: Record
    before: Verdict
    after: Verdict
    count: int
    headers_unknown: bool


@dataclass(frozen=True, slots=True)
class Difference:
    """The changes, denials first; how many requests stay as they are; and what could not be asked.

    `unknown` says why for the first `MAX_UNKNOWN` kinds of requests; `unknown_count` counts all requests.
    """

    changes: tuple[Change, ...]
    unchanged: int
    unknown: tuple[str, ...]
    unknown_count: int


Ambiguous = Callable[[bytes], object]
"""Whether servers may read a path in more than one way, so that it is denied where a rule looks at paths."""


def _never(path: bytes) -> bool:
    return False


def diff(
    old: NodePolicy,
    new: NodePolicy,
    records: Iterable[Record],
    described: Iterable[Record] = (),
    ambiguous: Ambiguous = _never,
) -> Difference:
    """Ask both policies about every record (each once, however often it was seen).

    Of a described request all headers are known; those of a logged one are not.
    """
    logged: dict[tuple[object, ...], tuple[Record, int]] = {}
    for record in records:
        key = _question(record)
        logged[key] = (record, logged.get(key, (record, 0))[1] + 1)
    found = _Found(old, new, ambiguous)
    for record, times in logged.values():
        found.compare(record, times, whole=False)
    for record in dict.fromkeys(described):
        found.compare(record, 0, whole=True)
    changes = sorted(found.changes, key=lambda one: (_ORDER[one.after.verdict], -one.count, str(one.record)))
    return Difference(tuple(changes), found.unchanged, tuple(found.unknown), found.unknown_count)


def _question(record: Record) -> tuple[object, ...]:
    """What is asked of the policies: what the log says became of a request is no part of it."""
    who = (record.endpoint, record.direction, record.peer, record.protocol, record.port)
    return (*who, record.http, record.method, record.path, record.host, record.headers)


_ORDER = {"deny": 0, "audit": 1, "allow": 2}


class _Found:
    """A comparison under way."""

    def __init__(self, old: NodePolicy, new: NodePolicy, ambiguous: Ambiguous) -> None:
        self._old, self._new = _Asked(old, ambiguous), _Asked(new, ambiguous)
        self.changes: list[Change] = []
        self.unknown: list[str] = []
        self.unchanged = self.unknown_count = 0

    def compare(self, record: Record, times: int, *, whole: bool) -> None:
        """Ask both; `whole`: its headers are known."""
        try:
            before, looked = self._old.ask(record)
            after, looks = self._new.ask(record)
        except (UnknownEndpoint, UnknownParty) as error:
            self.unknown_count += max(times, 1)
            if len(self.unknown) < MAX_UNKNOWN:
                self.unknown.append(f"{record}: {error}")
            return
        if before.verdict == after.verdict:
            self.unchanged += max(times, 1)
        else:
            self.changes.append(Change(record, before, after, times, not whole and (looked or looks)))


class _Asked:
    """One of the two policies; names, of which there are fewer than requests, are looked up once."""

    def __init__(self, revision: NodePolicy, ambiguous: Ambiguous) -> None:
        self._revision, self._ambiguous = revision, ambiguous
        self._peers: dict[str, Identity] = {}

    def ask(self, record: Record) -> tuple[Verdict, bool]:
        """Its answer, and whether it looked at headers."""
        namespace, _, name = record.endpoint.rpartition("/")
        both = self._revision.endpoint(namespace, name)
        side = both.ingress if record.direction == "ingress" else both.egress
        peer = self._peer(record.peer)
        answer = side.decide(peer.number, record.protocol, record.port, peer.name)
        if answer.action is not Action.REDIRECT or not record.http:
            word = "deny" if answer.action is Action.DENY else "audit" if answer.audit else "allow"
            return Verdict(word, answer.rule, answer.reason), False
        judges = side.http(peer.number, record.port)
        judgement = judges.judge(record)
        looks = any(_depends_on_headers(rule, record) for rule in judges.rules)
        if judgement.allowed and judgement.path_judged and self._ambiguous(record.path):
            if not judgement.path_tried:
                return Verdict("deny", judgement.rule, "ambiguous_path"), looks
            return Verdict("audit", judgement.rule, "audit: ambiguous_path"), looks
        return Verdict(judgement.verdict, judgement.rule, judgement.reason), looks

    def _peer(self, name: str) -> Identity:
        if name not in self._peers:
            self._peers[name] = party(self._revision, name).identity
        return self._peers[name]


def _depends_on_headers(rule: HttpRule, record: Record) -> bool:
    """Whether only the headers decide if a rule matches, as all else that it asks for is so."""
    if not (rule.headers or rule.header_matches):
        return False
    others = (conditions.of_method(rule), conditions.of_host(rule), conditions.of_path(rule))
    return all(condition is None or condition(record) for condition in others)
