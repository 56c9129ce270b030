"""Why: the verdict on a described request, the rule that decided, and what each other rule failed on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from policy import conditions
from policy.compilation import NodePolicy
from policy.errors import PolicyError
from policy.header_matches import Edited, Secrets, is_expected, missing_secret
from policy.identities import Identity, Workload
from policy.model import (
    EVERY_PORT,
    PROTOCOL_NAMES,
    TCP,
    Direction,
    HeaderTest,
    HttpRule,
    Mismatch,
    Mode,
    Policy,
    PortRule,
    PortSpec,
    QueryTest,
    Rule,
)
from policy.verdicts import Action, Request


class UnknownParty(PolicyError):
    """What was named is neither a known workload nor an address."""


@dataclass(frozen=True, slots=True)
class Party:
    """One end of what is asked about."""

    identity: Identity
    workload: Workload | None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A rule that was looked at. `failed` says what kept it from matching (nothing: it matches)."""

    rule: str
    kind: str
    """`allow` or `deny`."""
    failed: tuple[str, ...]
    description: str = ""
    distance: tuple[int, int, int] = (0, 0, 0)


@dataclass(frozen=True, slots=True)
class Side:
    """The answer of one endpoint's policy; `candidates` are the rules, nearest first."""

    endpoint: str
    direction: str
    peer: str
    verdict: str
    rule: str
    reason: str
    candidates: tuple[Candidate, ...]
    edits: tuple[str, ...] = ()
    """What is done to which header, without values: `add x-token`."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The verdict of all policies that are asked: `allow`, `deny` or `audit`; and each side's own."""

    verdict: str
    rule: str
    reason: str
    sides: tuple[Side, ...]


def party(revision: NodePolicy, text: str) -> Party:
    """`namespace/name`, a name that only one workload has, `host`, or an address.

    Raises:
        UnknownParty: it is none of these.
    """
    if text == "host":
        return Party(revision.host, None)
    named = [one for one in revision.workloads if text in (one.name, one.full_name)]
    if len(named) == 1:
        return Party(revision.identity_of(named[0].namespace, named[0].name), named[0])
    if named:
        raise UnknownParty(f"{text} is ambiguous: {', '.join(one.full_name for one in named)}")
    try:
        address = ip_address(text)
    except ValueError:
        raise UnknownParty(f"{text} is neither a known workload, host, nor an address") from None
    identity = revision.identify(address)
    workload = next((one for one in revision.workloads if identity.name == one.full_name), None)
    return Party(identity, workload)


def explain(
    revision: NodePolicy,
    client: Party,
    server: Party,
    port: int,
    request: Request | None,
    protocol: int = TCP,
) -> Explanation:
    """What becomes of a connection, or of a request on it: the client's egress, then the server's ingress."""
    sides = []
    if client.workload is not None:
        side, request = _side(revision, "egress", client.workload, server, port, protocol, request)
        sides.append(side)
    if server.workload is not None:
        sides.append(_side(revision, "ingress", server.workload, client, port, protocol, request)[0])
    if not sides:
        return Explanation("allow", "", "neither end is a known workload: no policy is asked", ())
    strictest = max(sides, key=lambda side: _WEIGHT[side.verdict])
    return Explanation(strictest.verdict, strictest.rule, strictest.reason, tuple(sides))


_WEIGHT = {"allow": 0, "audit": 1, "deny": 2}


def _side(
    revision: NodePolicy,
    direction: str,
    endpoint: Workload,
    peer: Party,
    port: int,
    protocol: int,
    request: Request | None,
) -> tuple[Side, Request | None]:
    """The answer of one side, and the request as it goes on from there."""
    policy = getattr(revision.endpoint(endpoint.namespace, endpoint.name), direction)
    answer = policy.decide(peer.identity.number, protocol, port)
    verdict, rule, reason = _word(answer.action, answer.audit), answer.rule, answer.reason
    forwarded, edits = request, tuple[str, ...]()
    if answer.action is Action.REDIRECT and request is not None:
        judgement = policy.http(peer.identity.number, port).judge(request)
        verdict, rule, reason = judgement.verdict, judgement.rule, judgement.reason
        edits, forwarded = tuple(map(str, judgement.edits)), Edited(request, judgement.edits)
    owner = endpoint if direction == "ingress" else peer.workload
    ports = {name.lower(): number for name, number in owner.ports.items()} if owner else {}
    asked = _Asked(revision, peer, port, protocol, request, ports)
    candidates = (
        candidate
        for one in revision.selecting(endpoint)
        for candidate in _candidates(one, getattr(one, direction), asked)
    )
    nearest = sorted(candidates, key=lambda candidate: candidate.distance)
    side = Side(
        endpoint.full_name, direction, peer.identity.name, verdict, rule, reason, tuple(nearest), edits
    )
    return side, forwarded


def _word(action: Action, audit: bool) -> str:
    if action is Action.DENY:
        return "deny"
    return "audit" if audit else "allow"


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is asked of each rule."""

    revision: NodePolicy
    peer: Party
    port: int
    protocol: int
    request: Request | None
    ports: dict[str, int]


def _candidates(policy: Policy, direction: Direction, asked: _Asked) -> Iterator[Candidate]:
    note = " (audit)" if policy.mode is Mode.AUDIT else ""
    for kind, rules in (("deny", direction.deny), ("allow", direction.allow)):
        for rule in rules:
            for port in rule.ports or (None,):
                yield from _at_port(kind + note, rule, port, asked)


def _at_port(kind: str, rule: Rule, port: PortRule | None, asked: _Asked) -> Iterator[Candidate]:
    who = _peer_failures(rule, asked)
    where = _port_failures(port.ports if port else (EVERY_PORT,), asked)
    if port is None or port.http is None or asked.request is None:
        name = port.name if port else rule.name
        yield Candidate(name, kind, (*who, *where), distance=(len(who), len(where), 0))
        return
    for http in port.http:
        what = (
            *request_failures(http, asked.request, deny=kind.startswith("deny")),
            *_header_failures(http, asked.request, asked.revision.secrets),
        )
        distance = (len(who), len(where), len(what))
        yield Candidate(http.name, kind, (*who, *where, *what), http.description, distance)


def _peer_failures(rule: Rule, asked: _Asked) -> tuple[str, ...]:
    if rule.peers is None or any(
        asked.revision.is_meant(peer, asked.peer.identity.number) for peer in rule.peers
    ):
        return ()
    if not rule.peers:
        return ("peer: the rule names no one",)
    wanted = " or ".join(map(str, rule.peers))
    return (f"peer: {asked.peer.identity.name} is not {wanted}",)


def _port_failures(specs: tuple[PortSpec, ...], asked: _Asked) -> tuple[str, ...]:
    if any(_is_port(spec, asked) for spec in specs):
        return ()
    shown = f"{asked.port}/{PROTOCOL_NAMES.get(asked.protocol, asked.protocol)}"
    return (f"port: {shown} is not {' or '.join(map(str, specs))}",)


def _is_port(spec: PortSpec, asked: _Asked) -> bool:
    if asked.protocol not in spec.protocols:
        return False
    if spec.name:
        return asked.ports.get(spec.name) == asked.port
    return spec.first <= asked.port <= spec.last


def request_failures(rule: HttpRule, request: Request, *, deny: bool = False) -> Iterator[str]:
    """Each condition of a rule that a request does not meet, as a person would say it."""
    for field, condition, value in (
        ("method", conditions.of_method(rule), request.method),
        ("host", conditions.of_host(rule), request.host),
        ("path", conditions.of_path(rule), request.path),
    ):
        if condition is not None and not condition(request):
            yield f"{field}: {value.decode('latin-1')} is not {_wanted(rule, field)}"
    tests: list[HeaderTest | QueryTest] = [*rule.headers, *rule.query]
    for test, condition in zip(tests, conditions.of_rest(rule, deny=deny), strict=True):
        if not condition(request):
            kind = "header" if isinstance(test, HeaderTest) else "query"
            wanted = f" with the value {_shown(test.value)}" if test.value is not None else ""
            yield f"{kind}: there is no {test.name.decode('latin-1')}{wanted}"


def _header_failures(rule: HttpRule, request: Request, secrets: Secrets) -> Iterator[str]:
    """The same for headerMatches, whose values are never shown."""
    for match in rule.header_matches:
        sent = conditions.joined(request.headers, match.name)
        if missing_secret(match, secrets):
            yield f"header: {match.name.decode()} cannot be judged, as there is no secret {match.secret}"
        elif match.mismatch is Mismatch.FAIL and not is_expected(
            sent, secrets.get(match.secret, match.value)
        ):
            yield f"header: {match.name.decode()} does not have the value that the rule wants"


def _wanted(rule: HttpRule, field: str) -> str:
    if field == "path" and rule.path_exact is not None:
        return f"exactly {rule.path_exact.decode()}"
    if field == "path" and rule.path_prefix is not None:
        return f"{rule.path_prefix.decode()} or below"
    return str(getattr(rule, field))


def _shown(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


@dataclass(frozen=True, slots=True)
class Reach:
    """One line of what an endpoint may do: with whom, on which ports, and how it is decided."""

    direction: str
    peers: tuple[str, ...]
    ports: str
    action: str
    rules: tuple[str, ...]


def reach(revision: NodePolicy, endpoint: Workload) -> tuple[Reach, ...]:
    """All that an endpoint may send and receive, by peers and ports; what is not listed takes the default."""
    lines: dict[tuple[str, str, str, tuple[str, ...]], list[str]] = {}
    both = revision.endpoint(endpoint.namespace, endpoint.name)
    for direction in ("ingress", "egress"):
        side = getattr(both, direction)
        for entry in side.entries:
            rules = (entry.rule,)
            if entry.action is Action.REDIRECT:
                judges = side.http(entry.identity, entry.first_port)
                rules = tuple(rule.name for rule in judges.rules) or rules
            spec = PortSpec((entry.protocol,), entry.first_port, entry.last_port)
            word = "audit" if entry.audit else entry.action.value
            lines.setdefault((direction, str(spec), word, rules), []).extend(revision.members(entry.identity))
        peers = ["everyone else" if side.entries else "everyone"]
        lines.setdefault((direction, "any", side.default.action.value, (side.default.rule,)), []).extend(
            peers
        )
    return tuple(
        Reach(direction, tuple(dict.fromkeys(peers)), ports, action, rules)
        for (direction, ports, action, rules), peers in lines.items()
    )
