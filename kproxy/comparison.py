"""Two sets of rules compared by requests that were logged or described: what would change, for people and JSON."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

import policy
from kproxy import answers, questions
from kproxy.answers import Knowledge
from kproxy.errors import UsageError
from kproxy.questions import Question
from parsers.http1.paths import path_ambiguity
from policy import Change, Record, Records

MAX_PEERS = 10
"""Peers that are named of a change that concerns many, such as all clients in the world."""


class VerdictAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What one of the two says."""

    verdict: Literal["allow", "deny", "audit"]
    rule: str
    reason: str


class ChangeAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A request whose verdict changes."""

    endpoint: Annotated[str, Meta(description="Whose policy it is.")]
    direction: Literal["ingress", "egress"]
    peers: Annotated[tuple[str, ...], Meta(description=f"Who is at the other end; {MAX_PEERS} at most.")]
    more_peers: int
    port: Annotated[int, Meta(description="The server's.")]
    protocol: Literal["tcp", "udp"]
    method: Annotated[str | None, Meta(description="null: a connection, not a request.")]
    path: str | None
    host: str | None
    before: VerdictAnswer
    after: VerdictAnswer
    count: Annotated[int, Meta(description="How often it was logged; 0: it was described.")]
    headers_unknown: Annotated[
        bool,
        Meta(description="A rule looks at headers, which the log does not hold: the change is not sure."),
    ]


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """All that changes, denials first."""

    changes: tuple[ChangeAnswer, ...]
    unchanged: Annotated[int, Meta(description="Requests whose verdict stays.")]
    unknown_count: Annotated[int, Meta(description="Requests of endpoints and peers that are not known.")]
    unknown: Annotated[tuple[str, ...], Meta(description="Some of them, with what is not known.")]
    left_out: Annotated[dict[str, int], Meta(description="Lines of the log that tell of no request, by why.")]


def compare(old: Knowledge, new: Knowledge, logged: Records, question: Question) -> Compared:
    """Ask both about what was logged, and about what a question describes, if it describes anything.

    Raises:
        UsageError: a name of the question means nobody, or what it describes is no request.
    """
    described = _described(old, question) if question.port else ()
    ambiguous = path_ambiguity if old.options.refuse_ambiguous_paths else _never
    found = policy.diff(old.policy, new.policy, logged.records, described, ambiguous)
    return Compared(
        changes=tuple(_change(together) for together in _grouped(found.changes)),
        unchanged=found.unchanged,
        unknown_count=found.unknown_count,
        unknown=found.unknown,
        left_out=dict(sorted(logged.left_out.items())),
    )


def _never(path: bytes) -> str | None:
    return None


def _described(known: Knowledge, question: Question) -> list[Record]:
    """What is described, as the client's policy sees it and as the server's does."""
    client, server = answers.party(known, question.client), answers.party(known, question.server)
    here = any(one.local for one in known.policy.workloads)
    record = _record(known, question)
    found = [
        replace(record, endpoint=own.workload.full_name, direction=direction, peer=_name(peer, written))
        for direction, own, peer, written in (
            ("egress", client, server, question.server),
            ("ingress", server, client, question.client),
        )
        if own.workload and own.workload.namespace and (own.workload.local or not here)
    ]
    if not found:
        raise UsageError("neither end is enforced on this node", "name an endpoint with a policy of its own")
    return found


def _record(known: Knowledge, question: Question) -> Record:
    """What is described, seen by nobody yet."""
    protocol = questions.PROTOCOLS[question.protocol]
    record = Record("", "", "", protocol, question.port, verdict="", http=question.about_request)
    if not question.about_request:
        return record
    head, refusal, _ = questions.described(question, known.options.parse)
    if head is None:
        why = f"{refusal.reason}: {refusal.detail}" if refusal else ""
        raise UsageError(f"the proxy refuses this request whatever the rules are: {why}", "describe another")
    return replace(record, method=head.method, path=head.path, host=head.host, headers=tuple(head.headers))


def _name(party: policy.Party, written: str) -> str:
    """An address stays one: other rules may know it by another name."""
    return party.workload.full_name if party.workload else written


def _grouped(changes: Iterable[Change]) -> Iterable[list[Change]]:
    """Changes that differ in the peer alone, together."""
    groups: dict[tuple[object, ...], list[Change]] = {}
    for one in changes:
        record = one.record
        what = (record.endpoint, record.direction, record.protocol, record.port)
        request = (record.method, record.path, record.host, record.headers) if record.http else ()
        verdicts = (one.before.verdict, one.before.rule, one.after.verdict, one.after.rule)
        key = (*what, *request, *verdicts, one.count == 0)
        groups.setdefault(key, []).append(one)
    return groups.values()


def _change(together: list[Change]) -> ChangeAnswer:
    first = together[0]
    record = first.record
    method, path, host = (
        part.decode("latin-1") if record.http else None for part in (record.method, record.path, record.host)
    )
    peers = [one.record.peer for one in together]
    return ChangeAnswer(
        endpoint=record.endpoint,
        direction="egress" if record.direction == "egress" else "ingress",
        peers=tuple(peers[:MAX_PEERS]),
        more_peers=len(peers[MAX_PEERS:]),
        port=record.port,
        protocol="udp" if record.protocol == policy.UDP else "tcp",
        method=method,
        path=path,
        host=host,
        before=_verdict(first.before),
        after=_verdict(first.after),
        count=sum(one.count for one in together),
        headers_unknown=any(one.headers_unknown for one in together),
    )


def _verdict(said: policy.Verdict) -> VerdictAnswer:
    return VerdictAnswer(verdict=answers.WORDS[said.verdict], rule=said.rule, reason=said.reason)
