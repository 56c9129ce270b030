"""Rules that were looked at for an answer: what each failed on, and how far it is from matching."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import nsmallest

from policy import conditions
from policy.compilation import NodePolicy
from policy.header_matches import Secrets, is_expected, missing_secret
from policy.identities import Identity
from policy.model import (
    EVERY_PORT,
    PROTOCOL_NAMES,
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
from policy.verdicts import Request

# A person reads the nearest few; of ten thousand rules the others are only counted.
MAX_CANDIDATES = 10


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
class Asked:
    """What is asked of each rule."""

    revision: NodePolicy
    peer: Identity
    port: int
    protocol: int
    request: Request | None
    ports: dict[str, int]
    """Named ports of whoever is called."""


def candidates(
    policies: list[Policy], direction: str, asked: Asked, decided: str
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


def _candidates(policy: Policy, direction: Direction, asked: Asked) -> Iterator[Candidate]:
    note = " (audit)" if policy.mode is Mode.AUDIT else ""
    for kind, rules in (("deny", direction.deny), ("allow", direction.allow)):
        for rule in rules:
            for port in rule.ports or (None,):
                yield from _at_port(kind + note, rule, port, asked, policy.description)


def _at_port(
    kind: str, rule: Rule, port: PortRule | None, asked: Asked, description: str
) -> Iterator[Candidate]:
    who = _peer_failures(rule, asked)
    where = _port_failures(port.ports if port else (EVERY_PORT,), asked)
    if port is None or port.http is None or asked.request is None:
        name = port.name if port else rule.name
        yield Candidate(name, kind, (*who, *where), description, (len(who), len(where), 0))
        return
    for http in port.http:
        what = tuple(
            _request_failures(http, asked.request, asked.revision.secrets, deny=kind.startswith("deny"))
        )
        distance = (len(who), len(where), len(what))
        yield Candidate(http.name, kind, (*who, *where, *what), http.description or description, distance)


def _peer_failures(rule: Rule, asked: Asked) -> tuple[str, ...]:
    if rule.peers is None or any(asked.revision.is_meant(peer, asked.peer.number) for peer in rule.peers):
        return ()
    if not rule.peers:
        return ("peer: the rule names no one",)
    wanted = " or ".join(map(str, rule.peers))
    return (f"peer: {asked.peer.name} is not {wanted}",)


def _port_failures(specs: tuple[PortSpec, ...], asked: Asked) -> tuple[str, ...]:
    if any(_is_port(spec, asked) for spec in specs):
        return ()
    shown = f"{asked.port}/{PROTOCOL_NAMES.get(asked.protocol, asked.protocol)}"
    return (f"port: {shown} is not {' or '.join(map(str, specs))}",)


def _is_port(spec: PortSpec, asked: Asked) -> bool:
    if asked.protocol not in spec.protocols:
        return False
    if spec.name:
        return asked.ports.get(spec.name) == asked.port
    return spec.first <= asked.port <= spec.last


def _request_failures(rule: HttpRule, request: Request, secrets: Secrets, *, deny: bool) -> Iterator[str]:
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
    yield from _header_match_failures(rule, request, secrets)


def _header_match_failures(rule: HttpRule, request: Request, secrets: Secrets) -> Iterator[str]:
    """The same for headerMatches, whose values are never shown."""
    for match in rule.header_matches:
        sent, wanted = conditions.joined(request.headers, match.name), secrets.get(match.secret, match.value)
        if missing_secret(match, secrets):
            yield f"header: {match.name.decode()} cannot be judged, as there is no secret {match.secret}"
        elif match.mismatch is Mismatch.FAIL and not is_expected(sent, wanted):
            yield f"header: {match.name.decode()} does not have the value that the rule wants"


def _wanted(rule: HttpRule, field: str) -> str:
    if field == "path" and rule.path_exact is not None:
        return f"exactly {rule.path_exact.decode()}"
    if field == "path" and rule.path_prefix is not None:
        return f"{rule.path_prefix.decode()} or below"
    return str(getattr(rule, field))


def _shown(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
