"""Answers to why, drawn for people: the verdict first, then why, then what to look at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import policy
from kproxy.answer_shapes import Asked, CandidateAnswer, Drawn, EndpointReach, Explained, SideAnswer
from kproxy.cli.text import cell, counted, indented, printable, table


def lines(found: Explained | Drawn) -> Iterator[str]:
    """Every line of an answer; all of it is printable."""
    yield from _explained(found) if isinstance(found, Explained) else _drawn(found)


def _explained(found: Explained) -> Iterator[str]:
    yield f"{found.verdict.upper()}: {asked(found.asked)}"
    status = f" (answered with {found.status})" if found.status else ""
    yield f"  why:  {printable(found.reason)}{status}"
    yield f"  rule: {printable(found.rule) or 'none'}"
    if found.description and found.description not in found.reason:
        yield f"        {printable(found.description)}"
    yield f"  from: {_source(found.node, found.revision)}"
    for side in (one for one in found.sides if one.enforced or one.candidates):
        yield ""
        yield from _side(side, found)
    yield from _notes(found.notes)


def asked(question: Asked) -> str:
    """A question in one line, of which all is printable."""
    protocol = "/udp" if question.protocol == "udp" else ""
    request = ""
    if question.method is not None or question.path is not None or question.host is not None:
        host = f" (Host: {cell(question.host)})" if question.host is not None else ""
        request = f" {cell(question.method or 'GET')} {cell(question.path or '/')}{host}"
    ends = f"{printable(question.client)} -> {printable(question.server)}"
    return f"{ends} port {question.port}{protocol}{request}"


def _source(node: str, revision: int | None) -> str:
    if revision is None:
        return f"the files of {printable(node)}, as they are now"
    return f"revision {revision}, in force on {printable(node)}"


def _side(side: SideAnswer, found: Explained) -> Iterator[str]:
    word = "from" if side.direction == "ingress" else "to"
    elsewhere = "" if side.enforced else " (not enforced on this node)"
    about_request = found.asked.method is not None
    verdict = "each request is judged" if side.judged and not _was_judged(found) else side.verdict
    yield printable(f"{side.direction} of {side.endpoint} {word} {side.peer}: {verdict}{elsewhere}")
    yield indented(printable(side.reason))
    for edit in side.edits:
        yield indented(printable(f"header changed: {edit}"))
    if side.candidates:
        rows = [_candidate(side, one) for one in side.candidates]
        yield indented(table(("rule", "kind", "this request" if about_request else "this connection"), rows))
    if side.more:
        yield indented(f"and {counted(side.more, 'rule')} further away")


def _was_judged(found: Explained) -> bool:
    """Whether a request was described that the proxy reads; one that it does not is answered otherwise."""
    return found.asked.method is not None and found.status in (None, 403)


def _candidate(side: SideAnswer, one: CandidateAnswer) -> tuple[str, str, str]:
    decided = " (decides)" if one.matches and one.rule == side.rule else ""
    told = [f"matches{decided}"] if one.matches else [cell(failure) for failure in one.failed]
    return printable(one.rule), one.kind, "\n".join(told)


def _notes(notes: Iterable[str]) -> Iterator[str]:
    found = [f"note: {printable(note)}" for note in notes]
    yield from ["", *found] if found else []


def _drawn(found: Drawn) -> Iterator[str]:
    yield f"from {_source(found.node, found.revision)}"
    for endpoint in found.endpoints:
        yield from _reach(endpoint)
    if found.more:
        yield ""
        yield f"and {counted(found.more, 'endpoint')} more: name one"
    yield from _notes(found.notes)


_TITLES = {"ingress": "who may call it", "egress": "whom it may call"}


def _reach(endpoint: EndpointReach) -> Iterator[str]:
    for direction, title in _TITLES.items():
        own = [line for line in endpoint.lines if line.direction == direction]
        if own:
            yield ""
            yield f"{printable(endpoint.endpoint)}: {title} ({direction})"
            header = ("from" if direction == "ingress" else "to", "port", "action", "by")
            yield indented(table(header, [row for line in own for row in _rows(line)]))


def _rows(line: policy.Reach) -> Iterator[tuple[str, str, str, str]]:
    """One row for the line, and below it one for each rule about requests."""
    peers = _listed(line.peers, line.more_peers)
    ports = _listed(line.ports, line.more_ports)
    by = printable(line.rule or line.reason)
    yield peers, ports, line.action.upper() if line.action == "deny" else line.action, by
    for one in line.requests:
        yield "", "", f"- {cell(_request(one))}", _by(one, line)
    if line.more_requests:
        yield "", "", f"- and {counted(line.more_requests, 'rule')} more", ""


def _by(one: policy.Requests, line: policy.Reach) -> str:
    """The rule's place below the one that the line names, or all of its name."""
    short = one.rule.removeprefix(line.rule) if line.rule else one.rule
    return printable(short or one.rule)


def _listed(names: Iterable[str], more: int) -> str:
    shown = [printable(name) for name in names]
    return "\n".join([*shown, *([f"and {more} more"] if more else [])])


def _request(one: policy.Requests) -> str:
    parts = [one.method or "any method", one.path or "any path"]
    parts += [f"host {one.host}"] if one.host else []
    told = " ".join([*parts, *one.conditions])
    described = f" ({one.description})" if one.description else ""
    return f"{'DENY ' if one.verdict == 'deny' else ''}{told}{described}"
