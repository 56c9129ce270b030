"""Who may talk to whom: all that one endpoint may receive and send, drawn from its compiled policy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from policy.compilation import NodePolicy
from policy.directions import DirectionPolicy, L4Entry
from policy.identities import Identity, Workload
from policy.intervals import Answer, Outcome
from policy.model import EVERY_PORT, HttpRule, PortSpec
from policy.verdicts import Action

# Of a line that ten thousand rules or peers stand behind, a person wants the first few and the count.
MAX_REQUESTS = 20
MAX_PEERS = 20
MAX_PORTS = 20

_TRIED = "what only policies in audit mode deny passes, as audit"


@dataclass(frozen=True, slots=True)
class Requests:
    """One rule about requests: `verdict` is `allow` or `deny`, each other text as the rule has it.

    An empty text asks for nothing; `conditions` are headers and query parameters, without values that may be
    secrets.
    """

    rule: str
    verdict: str
    method: str = ""
    path: str = ""
    host: str = ""
    conditions: tuple[str, ...] = ()
    description: str = ""


@dataclass(frozen=True, slots=True)
class Reach:
    """One line of what an endpoint may do: with whom, on which ports, and what becomes of it.

    `action`: `allow`, `deny`, `audit` (passes, but would be denied), or `judged`: `requests` are the rules that
    say which requests may pass. `more_peers`, `more_ports` and `more_requests` count what is not listed, past
    `MAX_PEERS`, `MAX_PORTS` and `MAX_REQUESTS`.
    """

    direction: str
    peers: tuple[str, ...]
    ports: tuple[str, ...]
    action: str
    rule: str
    reason: str
    requests: tuple[Requests, ...] = ()
    more_peers: int = 0
    more_ports: int = 0
    more_requests: int = 0
    default: bool = False
    """Whether this is what becomes of all that no other line speaks of."""


def reach(revision: NodePolicy, endpoint: Workload, peer: Identity | None = None) -> tuple[Reach, ...]:
    """All that an endpoint may receive and send, by peers and ports; the last line of each way is the default.

    `peer`: only what concerns this one.
    """
    both = revision.endpoint(endpoint.namespace, endpoint.name)
    names = _Names(revision, endpoint, peer)
    return (*_direction("ingress", both.ingress, names), *_direction("egress", both.egress, names))


class _Names:
    """Identity numbers into the names of peers, as many as a line shows."""

    def __init__(self, revision: NodePolicy, endpoint: Workload, peer: Identity | None) -> None:
        self._revision = revision
        self._own = endpoint.full_name
        self.only = peer
        self._all = {prefix.identity for prefix in revision.prefixes} | {revision.host.number}

    def of(self, numbers: Sequence[int]) -> list[str]:
        """The peers of a line. Traffic inside one workload is nobody's rule, so the endpoint is none of them."""
        if self.only is not None:
            return [self.only.name]
        missing = self._all.difference(numbers)
        if not missing:
            return ["everyone"]
        if missing == {self._revision.host.number}:
            return ["everyone but host"]
        names = (name for number in numbers for name in self._revision.members(number))
        return [name for name in dict.fromkeys(names) if name != self._own]


def _direction(word: str, side: DirectionPolicy, names: _Names) -> Iterator[Reach]:
    outcomes = {
        (number, interval.first): interval.outcome
        for number, interval, _ in side.judges()
        if names.only is None or number == names.only.number
    }
    lines = [_line(word, group, outcomes, names) for group in _grouped(side, names.only)]
    shown = sorted((line for line in lines if line.peers), key=lambda line: (line.peers, line.ports))
    yield from shown
    yield _default(word, side, names, alone=not shown)


@dataclass(frozen=True, slots=True)
class _Group:
    """Entries of equal meaning: whose they are, and one identity's entries."""

    numbers: tuple[int, ...]
    entries: tuple[L4Entry, ...]


def _grouped(side: DirectionPolicy, only: Identity | None) -> Iterator[_Group]:
    """Ports of an identity that are decided alike, then identities for whom the same ports are."""
    ports: dict[tuple[object, ...], list[L4Entry]] = {}
    for entry in side.entries:
        if only is None or entry.identity == only.number:
            judges = id(side.http(entry.identity, entry.first_port)) if entry.action is Action.REDIRECT else 0
            ports.setdefault((entry.identity, entry.action, entry.audit, entry.rule, judges), []).append(
                entry
            )
    alike: dict[tuple[object, ...], list[list[L4Entry]]] = {}
    for (_, *key), entries in ports.items():
        spans = tuple((one.protocol, one.first_port, one.last_port) for one in entries)
        alike.setdefault((*key, spans), []).append(entries)
    for groups in alike.values():
        yield _Group(tuple(entries[0].identity for entries in groups), tuple(groups[0]))


def _line(word: str, group: _Group, outcomes: Mapping[tuple[int, int], Outcome], names: _Names) -> Reach:
    first = group.entries[0]
    peers, ports = names.of(group.numbers), _ports(group.entries)
    action, reason = _action(first), first.reason
    requests: list[Requests] = []
    count = 0
    if first.action is Action.REDIRECT:
        outcome = outcomes[first.identity, first.first_port]
        answer = outcome.every if outcome.every.action is Action.REDIRECT else outcome.enforced
        requests = list(islice(_requests(answer), MAX_REQUESTS))
        count = len(answer.deny) + (1 if answer.open_by is not None else len(answer.allow))
        reason = _TRIED if outcome.every is not outcome.enforced else ""
    return Reach(
        word,
        tuple(peers[:MAX_PEERS]),
        tuple(ports[:MAX_PORTS]),
        action,
        first.rule,
        reason,
        tuple(requests),
        max(0, len(peers) - MAX_PEERS),
        max(0, len(ports) - MAX_PORTS),
        count - len(requests),
    )


def _action(entry: L4Entry) -> str:
    if entry.audit:
        return "audit"
    return {Action.PASS: "allow", Action.DENY: "deny", Action.REDIRECT: "judged"}[entry.action]


def _ports(entries: Sequence[L4Entry]) -> list[str]:
    """Ports as people write them, both protocols together where both have the same."""
    spans: dict[tuple[int, int], set[int]] = {}
    for one in entries:
        spans.setdefault((one.first_port, one.last_port), set()).add(one.protocol)
    return [
        _written(PortSpec(tuple(sorted(protocols)), first, last))
        for (first, last), protocols in sorted(spans.items())
    ]


def _written(spec: PortSpec) -> str:
    whole = (spec.first, spec.last) == (EVERY_PORT.first, EVERY_PORT.last)
    if not whole:
        return str(spec)
    return "any" if spec == EVERY_PORT else f"any {spec}"


def _requests(answer: Answer) -> Iterator[Requests]:
    """Denials first, as they win; then what is allowed."""
    yield from (_shown(rule, "deny") for rule in answer.deny)
    if answer.open_by is not None:
        yield Requests(answer.open_by, "allow")
        return
    yield from (_shown(rule, "allow") for rule in answer.allow)


def _shown(rule: HttpRule, verdict: str) -> Requests:
    conditions = [f"header {test.name.decode('latin-1')}" + _value(test.value) for test in rule.headers]
    conditions += [f"header {match.name.decode('latin-1')}" for match in rule.header_matches]
    conditions += [f"query {test.name.decode('latin-1')}" + _value(test.value) for test in rule.query]
    method, host = str(rule.method or ""), str(rule.host or "")
    return Requests(rule.name, verdict, method, _path(rule), host, tuple(conditions), rule.description)


def _value(value: object) -> str:
    if value is None:
        return ""
    return f"={value.decode('latin-1') if isinstance(value, bytes) else value}"


def _path(rule: HttpRule) -> str:
    if rule.path_exact is not None:
        return f"exactly {rule.path_exact.decode('latin-1')}"
    if rule.path_prefix is not None:
        return f"{rule.path_prefix.decode('latin-1')} or below"
    return str(rule.path or "")


def _default(word: str, side: DirectionPolicy, names: _Names, *, alone: bool) -> Reach:
    """What becomes of everything that no line speaks of."""
    verdict = side.default
    who = names.only.name if names.only else "everyone" if alone else "everyone else"
    action = "audit" if verdict.audit else "allow" if verdict.action is Action.PASS else "deny"
    ports = "any" if alone else "any other"
    return Reach(word, (who,), (ports,), action, verdict.rule, verdict.reason, default=True)
