"""Why: the verdict on a described request, the rule that decided, and what each other rule failed on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from heapq import nsmallest
from ipaddress import ip_address, ip_network

from policy import conditions
from policy.compilation import NodePolicy
from policy.errors import PolicyError
from policy.identities import Address, Identity, Workload
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
from policy.verdicts import Action, HeaderEdit, Request

# A person reads the nearest few; of ten thousand rules the others are only counted.
MAX_CANDIDATES = 10


class UnknownParty(PolicyError):
    """What was named is neither a known workload nor an address; `mend` says what to write instead."""

    def __init__(self, message: str, mend: str) -> None:
        super().__init__(message)
        self.mend = mend


@dataclass(frozen=True, slots=True)
class Party:
    """One end of what is asked about."""

    identity: Identity
    workload: Workload | None

    @property
    def enforced(self) -> bool:
        """Whether its own policy is enforced on this node."""
        return self.workload is not None and self.workload.local


@dataclass(frozen=True, slots=True)
class Candidate:
    """A rule that was looked at. `failed` says what kept it from matching (nothing: it matches)."""

    rule: str
    kind: str
    """`allow` or `deny`, with ` (audit)` behind it where its policy is only tried."""
    failed: tuple[str, ...]
    description: str = ""
    distance: tuple[int, int, int] = (0, 0, 0)


@dataclass(frozen=True, slots=True)
class Side:
    """The answer of one endpoint's policy.

    `enforced`: on this node; else it is what the rules mean for a workload that is elsewhere, and decides
    nothing here. `judged`: requests are judged one by one; `path_judged`: some rule in force looks at paths.
    `candidates` are the rules, nearest first, at most `MAX_CANDIDATES`, and `more` says how many others were
    looked at.
    """

    endpoint: str
    direction: str
    peer: str
    enforced: bool
    verdict: str
    rule: str
    reason: str
    judged: bool
    path_judged: bool
    candidates: tuple[Candidate, ...]
    more: int
    edits: tuple[HeaderEdit, ...] = ()

    @property
    def description(self) -> str:
        """What the deciding rule says of itself."""
        return next((one.description for one in self.candidates if one.rule == self.rule), "")


@dataclass(frozen=True, slots=True)
class Explanation:
    """The verdict of the policies enforced on this node: `allow`, `deny` or `audit`; and each side's own.

    `decided_by` is the side whose verdict it is, None where no policy was asked.
    """

    verdict: str
    rule: str
    reason: str
    sides: tuple[Side, ...]
    decided_by: Side | None = None


def party(revision: NodePolicy, text: str) -> Party:
    """Who is meant, in the words of people and of the access log.

    `namespace/name`, a name that only one workload has, `host`, `world`, an address, or `cidr:` and a network.

    Raises:
        UnknownParty: it is none of these.
    """
    if text in ("host", "world"):
        return Party(revision.host if text == "host" else revision.world, None)
    named = [one for one in revision.workloads if text in (one.name, one.full_name)]
    if len(named) > 1:
        exact = [one for one in named if one.full_name == text]
        if len(exact) != 1:
            raise UnknownParty(f"{text} is ambiguous", _mean(one.full_name for one in named))
        named = exact
    if named:
        return Party(revision.identity_of(named[0].namespace, named[0].name), named[0])
    identity = revision.identify(_address(revision, text))
    workload = next((one for one in revision.workloads if identity.name == one.full_name), None)
    return Party(identity, workload)


def _address(revision: NodePolicy, text: str) -> Address:
    try:
        if text.startswith("cidr:"):
            return ip_network(text.removeprefix("cidr:")).network_address
        return ip_address(text)
    except ValueError:
        names = {one.name: one.full_name for one in revision.workloads}
        close = get_close_matches(text, [*names, *names.values()], 1)
        mend = _mean([names.get(close[0], close[0])]) if close else "name it as the endpoints file does"
        raise UnknownParty(f"{text} is neither a known workload, host, world, nor an address", mend) from None


def _mean(names: Iterable[str]) -> str:
    return f"did you mean {' or '.join(names)}?"


def explain(
    revision: NodePolicy,
    client: Party,
    server: Party,
    port: int,
    request: Request | None,
    protocol: int = TCP,
) -> Explanation:
    """What becomes of a connection, or of a request on it: the client's egress, then the server's ingress.

    Of a workload that is not enforced on this node the rules are explained too, but they decide nothing here.
    """
    if client.workload is not None and client.workload is server.workload:
        return Explanation("allow", "", "traffic inside one workload passes no hook: no policy is asked", ())
    asked = [("egress", client, server), ("ingress", server, client)]
    sides = tuple(
        _side(revision, direction, own.workload, peer, port, protocol, request)
        for direction, own, peer in asked
        if own.workload is not None and own.workload.namespace
    )
    enforced = [side for side in sides if side.enforced]
    if not enforced:
        return Explanation("allow", "", "neither end is enforced on this node: no policy is asked", sides)
    teller = max(enforced, key=_weight)
    return Explanation(teller.verdict, teller.rule, teller.reason, sides, teller)


_WEIGHT = {"allow": 0, "audit": 1, "deny": 2}


def _weight(side: Side) -> tuple[int, bool, bool, bool]:
    """The stricter one tells, and of equals the one that looked closer, at requests or by a rule.

    A connection that is denied never carries the request that another policy would deny.
    """
    denied = side.verdict == "deny"
    return _WEIGHT[side.verdict], denied and not side.judged, side.judged, bool(side.rule)


def _side(
    revision: NodePolicy,
    direction: str,
    endpoint: Workload,
    peer: Party,
    port: int,
    protocol: int,
    request: Request | None,
) -> Side:
    policy = getattr(revision.endpoint(endpoint.namespace, endpoint.name), direction)
    number = peer.identity.number
    answer = policy.decide(number, protocol, port, peer.identity.name)
    judged = answer.action is Action.REDIRECT
    verdict, rule, reason = _word(answer.action, answer.audit), answer.rule, answer.reason
    path_judged, edits = False, ()
    if judged and request is not None:
        judgement = policy.http(number, port).judge(request)
        verdict, rule, reason, edits = judgement.verdict, judgement.rule, judgement.reason, judgement.edits
        path_judged = judgement.path_judged
    owner = endpoint if direction == "ingress" else peer.workload
    ports = {name.lower(): number for name, number in owner.ports.items()} if owner else {}
    asked = _Asked(revision, peer, port, protocol, request, ports)
    nearest, more = _nearest(revision.selecting(endpoint), direction, asked, rule)
    return Side(
        endpoint.full_name,
        direction,
        peer.identity.name,
        endpoint.local,
        verdict,
        rule,
        reason,
        judged,
        path_judged,
        nearest,
        more,
        edits,
    )


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


def _nearest(
    policies: list[Policy], direction: str, asked: _Asked, decided: str
) -> tuple[tuple[Candidate, ...], int]:
    """The rule that decided, then the others by how far they are; and how many more there are."""
    count = 0

    def counted() -> Iterator[Candidate]:
        nonlocal count
        for policy in policies:
            for candidate in _candidates(policy, getattr(policy, direction), asked):
                count += 1
                yield candidate

    nearest = nsmallest(MAX_CANDIDATES, counted(), key=lambda one: (one.rule != decided, one.distance))
    return tuple(nearest), count - len(nearest)


def _candidates(policy: Policy, direction: Direction, asked: _Asked) -> Iterator[Candidate]:
    note = " (audit)" if policy.mode is Mode.AUDIT else ""
    for kind, rules in (("deny", direction.deny), ("allow", direction.allow)):
        for rule in rules:
            for port in rule.ports or (None,):
                yield from _at_port(kind + note, rule, port, asked, policy.description)


def _at_port(
    kind: str, rule: Rule, port: PortRule | None, asked: _Asked, description: str
) -> Iterator[Candidate]:
    who = _peer_failures(rule, asked)
    where = _port_failures(port.ports if port else (EVERY_PORT,), asked)
    if port is None or port.http is None or asked.request is None:
        name = port.name if port else rule.name
        yield Candidate(name, kind, (*who, *where), description, (len(who), len(where), 0))
        return
    for http in port.http:
        what = tuple(_request_failures(http, asked.request, asked.revision, deny=kind.startswith("deny")))
        distance = (len(who), len(where), len(what))
        yield Candidate(http.name, kind, (*who, *where, *what), http.description or description, distance)


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


def _request_failures(rule: HttpRule, request: Request, revision: NodePolicy, *, deny: bool) -> Iterator[str]:
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
    yield from _header_match_failures(rule, request, revision)


def _header_match_failures(rule: HttpRule, request: Request, revision: NodePolicy) -> Iterator[str]:
    """The same for headerMatches, whose values may be secrets: they are compared, and never shown."""
    for match in rule.header_matches:
        sent, wanted = conditions.joined(request.headers, match.name), revision.expected(match)
        if wanted is None:
            yield f"header: there is no secret {match.secret} to compare {match.name.decode()} with"
        elif match.mismatch is Mismatch.FAIL and (sent is None or wanted not in (b"", sent)):
            yield f"header: {match.name.decode()} does not have the value that the rule wants"


def _wanted(rule: HttpRule, field: str) -> str:
    if field == "path" and rule.path_exact is not None:
        return f"exactly {rule.path_exact.decode()}"
    if field == "path" and rule.path_prefix is not None:
        return f"{rule.path_prefix.decode()} or below"
    return str(getattr(rule, field))


def _shown(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
