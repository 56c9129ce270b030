"""Answers to why: what becomes of a described connection or request, and who may talk to whom.

Values in, values out: what is known (a policy revision, which is immutable, and how this node reads HTTP) and
a question make an answer.  `kproxy explain` gets it from files, the admin listener from what is in force.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Literal

import policy
from kproxy import questions
from kproxy.answer_shapes import (
    MAX_ENDPOINTS,
    Asked,
    CandidateAnswer,
    Drawn,
    EndpointReach,
    Explained,
    SideAnswer,
)
from kproxy.errors import UsageError
from kproxy.http1 import HttpOptions
from kproxy.questions import Described, Question, Refusal
from parsers.http1 import ParseError, RequestHead, edits
from parsers.http1.paths import AMBIGUITIES

_FORBIDDEN = 403

Word = Literal["allow", "deny", "audit"]


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What an answer is made from.

    Attributes:
        node: the node's name.
        policy: the revision that is asked.
        options: how the node reads HTTP.
        running: whether this is what a node has in force; then the revision's number means something.
        failures: why endpoints that the node should enforce are not, by name.
    """

    node: str
    policy: policy.NodePolicy
    options: HttpOptions
    running: bool = False
    failures: Mapping[str, str] = field(default_factory=dict)

    @property
    def revision(self) -> int | None:
        """The revision in force; None where files were read."""
        return self.policy.revision if self.running else None


def answer(known: Knowledge, question: Question) -> Explained | Drawn:
    """Answer about a connection or request where a port is given, else draw who may talk to whom.

    Raises:
        UsageError: a name means nobody, or more than one; or what is described is no request.
    """
    return explained(known, question) if question.port else drawn(known, question)


def party(known: Knowledge, text: str) -> policy.Party:
    """Who is meant by a name or an address; raises UsageError."""
    try:
        found = policy.party(known.policy, text)
    except policy.UnknownParty as error:
        raise UsageError(str(error), error.mend) from error
    if found.workload is None and _is_loopback(text):
        told = f"{text} is loopback: such traffic stays inside a workload, and no rule is about it"
        raise UsageError(told, "name the workload")
    return found


def _is_loopback(text: str) -> bool:
    try:
        return ip_address(text).is_loopback
    except ValueError:
        return False


def explained(known: Knowledge, question: Question) -> Explained:
    """What becomes of a connection or request."""
    client, server = party(known, question.client), party(known, question.server)
    about = questions.described(question, known.options.parse) if question.about_request else None
    head = about.head if about else None
    protocol = questions.PROTOCOLS[question.protocol]
    found = policy.explain(known.policy, client, server, question.port, head, protocol)
    verdict = _verdict(known, found, about)
    teller = found.decided_by
    return Explained(
        verdict=verdict.word,
        rule=verdict.rule,
        reason=verdict.reason,
        description=teller.description if teller and teller.rule == verdict.rule else "",
        status=verdict.status,
        judged=any(side.judged for side in found.deciding),
        node=known.node,
        revision=known.revision,
        asked=_asked(question, client, server, about),
        sides=tuple(map(_side, found.sides)),
        notes=tuple(_notes(known, found, about)),
    )


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What the node makes of it in the end."""

    word: Word
    rule: str
    reason: str
    status: int | None = None


def _verdict(known: Knowledge, found: policy.Explanation, about: Described | None) -> _Verdict:
    """What the policies say, unless the proxy refuses the request before or after it asks them.

    That is the order of the flow core: a connection that is denied carries nothing; what is not read is
    refused; what is read is judged; and a path that is allowed may still be ambiguous.
    """
    judging = [side for side in found.deciding if side.judged]
    word, teller = WORDS[found.verdict], found.decided_by
    if about is None or not judging or (word == "deny" and teller not in judging):
        return _Verdict(word, found.rule, found.reason)
    if about.refusal:
        return _refused(about.refusal)
    if word == "deny" or about.head is None:
        return _Verdict(word, found.rule, found.reason, _FORBIDDEN)
    verdict = _Verdict(word, found.rule, found.reason)
    looking = [side for side in judging if side.path_judged]
    if looking and about.head.path_ambiguity and known.options.refuse_ambiguous_paths:
        verdict = _ambiguous(about.head.path_ambiguity, verdict, looking)
    return verdict if verdict.word == "deny" else _unless_undone(about.head, verdict, judging)


def _unless_undone(head: RequestHead, verdict: _Verdict, judging: list[policy.Side]) -> _Verdict:
    """The verdict, but where the client could undo what rules edit in its headers."""
    guarded = frozenset[bytes]().union(*(side.guarded for side in judging))
    if not guarded:
        return verdict
    try:
        edits.check_head(head, guarded)
    except ParseError as error:
        return _refused(Refusal(error.reason, error.detail, error.status))
    return verdict


def _ambiguous(kind: str, allowed: _Verdict, looking: list[policy.Side]) -> _Verdict:
    """A path that servers read differently: refused, or told where all that looks at paths is in audit mode."""
    reason = f"ambiguous_path: {AMBIGUITIES[kind]}"
    refusing = [side for side in looking if not side.path_tried]
    if refusing:
        return _Verdict("deny", refusing[0].rule, reason, _FORBIDDEN)
    return _Verdict("audit", looking[0].rule, f"audit: {reason}") if allowed.word == "allow" else allowed


WORDS: dict[str, Word] = {"allow": "allow", "deny": "deny", "audit": "audit"}


def _refused(refusal: Refusal) -> _Verdict:
    return _Verdict("deny", "", f"{refusal.reason}: {refusal.detail}", refusal.status)


def _asked(question: Question, client: policy.Party, server: policy.Party, about: Described | None) -> Asked:
    head = about.head if about else None
    method, path, host = (_text(one) for one in (question.method, question.path, question.host))
    if about is not None:
        method, path, host = method or "GET", path or "/", host or about.assumed_host
    if head is not None:
        method, path, host = (part.decode("latin-1") for part in (head.method, head.path, head.host))
    return Asked(
        client=_name(client, question.client),
        server=_name(server, question.server),
        port=question.port,
        protocol="udp" if question.protocol == "udp" else "tcp",
        method=method,
        path=path,
        host=host,
        host_assumed=bool(about and about.assumed_host),
        headers=tuple(str(_text(header.partition(":")[0].strip().lower())) for header in question.headers),
    )


def _text(said: str | None) -> str | None:
    """What was said, with bytes that are not UTF-8 written as escapes: JSON cannot hold them."""
    return None if said is None else said.encode("utf-8", "backslashreplace").decode()


def _name(party: policy.Party, written: str) -> str:
    """What the policy knows it as, with the address that stands behind a name such as world."""
    name = party.identity.name
    return name if party.workload or name == written else f"{name} ({written})"


def _side(side: policy.Side) -> SideAnswer:
    return SideAnswer(
        endpoint=side.endpoint,
        direction="egress" if side.direction == "egress" else "ingress",
        peer=side.peer,
        enforced=side.enforced,
        verdict=WORDS[side.verdict],
        rule=side.rule,
        reason=side.reason,
        judged=side.judged,
        candidates=tuple(
            CandidateAnswer(
                rule=one.rule,
                kind=one.kind,
                matches=not one.failed,
                failed=one.failed,
                description=one.description,
            )
            for one in side.candidates
        ),
        more=side.more,
        edits=side.edits,
    )


def _notes(known: Knowledge, found: policy.Explanation, about: Described | None) -> Iterator[str]:
    judged = any(side.judged for side in found.deciding)
    if about and about.assumed_host and judged:
        yield f"no host was given: {about.assumed_host} is assumed, as a client would send it"
    if about and found.deciding and not judged:
        told = "the connection is decided as a whole: no request on it is read"
        yield f"{told}, nor would this one be ({about.refusal.reason})" if about.refusal else told
    if about is None and judged and found.verdict != "deny":
        yield "requests on this connection are judged: describe one (method, path, host, headers)"
    if any(not side.enforced for side in found.deciding):
        yield "no endpoint is enforced on this node: this is what the rules say, wherever they are enforced"
    for side in found.sides:
        if side not in found.deciding and side.candidates:
            told = "is not enforced on this node: what its rules say decides nothing here"
            yield f"{side.direction} of {side.endpoint} {told}"
        elif side.endpoint in known.failures:
            yield f"{side.endpoint} is not enforced at the moment: {known.failures[side.endpoint]}"


def drawn(known: Knowledge, question: Question) -> Drawn:
    """Who may talk to whom: between two, about one, or about every endpoint that is enforced here."""
    named = [party(known, text) for text in (question.client, question.server) if text]
    if len(named) == 2:
        pairs = [(named[0], named[1].identity), (named[1], named[0].identity)]
        # Of two, only the way that was asked about: the client's egress and the server's ingress.
        both = [(one.workload, peer, way) for (one, peer), way in zip(pairs, _WAYS, strict=True)]
        found = [_reach(known, workload, peer, way) for workload, peer, way in both if workload]
        return _drawing(known, found, 0)
    if named:
        workload = named[0].workload
        if workload is None:
            told = f"{named[0].identity.name} has no policy of its own"
            raise UsageError(told, "name a workload, or both ends")
        return _drawing(known, [_reach(known, workload)], 0)
    local = sorted((one for one in known.policy.workloads if one.local), key=lambda one: one.full_name)
    return _drawing(known, [_reach(known, one) for one in local[:MAX_ENDPOINTS]], len(local[MAX_ENDPOINTS:]))


_WAYS = ("egress", "ingress")


def _reach(
    known: Knowledge, workload: policy.Workload, peer: policy.Identity | None = None, way: str = ""
) -> EndpointReach:
    lines = policy.reach(known.policy, workload, peer)
    return EndpointReach(
        endpoint=workload.full_name,
        enforced=workload.local,
        lines=tuple(line for line in lines if way in ("", line.direction)),
    )


def _drawing(known: Knowledge, found: list[EndpointReach], more: int) -> Drawn:
    notes = [f"{one.endpoint} is not enforced on this node" for one in found if not one.enforced]
    notes += [
        f"{one.endpoint} is not enforced at the moment: {known.failures[one.endpoint]}"
        for one in found
        if one.endpoint in known.failures
    ]
    if not found:
        notes.append("no endpoint is enforced on this node")
    return Drawn(
        node=known.node, revision=known.revision, endpoints=tuple(found), more=more, notes=tuple(notes)
    )
