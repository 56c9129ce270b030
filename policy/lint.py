"""What is right but likely not meant: warnings about rules, with what to write instead.

Each check is a function from rules to problems; none of them changes what a rule means.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, combinations, product
from typing import Any

from policy import labels
from policy.anatomy import tokens
from policy.errors import Problem
from policy.identities import Workload
from policy.model import EVERY_PORT, Direction, HttpRule, Policy, PortRule, PortSpec, Rule
from policy.selectors import EVERYTHING, LabelIndex, Selector


def lint(policies: Sequence[Policy]) -> list[Problem]:
    """All that can be said of rules alone."""
    found: list[Problem] = []
    for rule in all_rules(policies):
        for port in rule.ports or ():
            for http in port.http or ():
                found += _patterns(http)
            found += _shadowed_requests(port)
    for clauses in _by_subject(policies):
        found += _widened(clauses)
        found += _denied_whole(clauses)
    return found


_ABSENT = "mend the labels, or add the workload to the endpoints"


def lint_world(policies: Sequence[Policy], workloads: Sequence[Workload]) -> list[Problem]:
    """What can be said once it is known who is there: selectors that select nothing, port names nobody has."""
    known = [labels.of_workload(one.namespace, one.labels) for one in workloads]
    subjects = LabelIndex(known)
    peers = LabelIndex(
        [*known, labels.reserved("host"), labels.reserved("world", "world-ipv4", "world-ipv6")]
    )
    found: list[Problem] = []
    for policy in policies:
        if not subjects.matching(policy.subject):
            found.append(
                policy.place.problem(f"selects no endpoint: nothing has the labels {policy.subject}", _ABSENT)
            )
        for rule in all_rules([policy]):
            found += _absent_peers(rule, peers)
    names = {name.lower() for workload in workloads for name in workload.ports}
    return found + _absent_port_names(policies, names)


def all_rules(policies: Iterable[Policy]) -> Iterator[Rule]:
    """Every rule of every policy, both ways."""
    for policy in policies:
        for direction in (policy.ingress, policy.egress):
            yield from chain(direction.allow, direction.deny)


def _absent_peers(rule: Rule, peers: LabelIndex) -> Iterator[Problem]:
    for peer in rule.peers or ():
        reserved = isinstance(peer, Selector) and any(r.source == labels.RESERVED for r in peer.requirements)
        if isinstance(peer, Selector) and not reserved and not peers.matching(peer):
            yield rule.place.problem(f"no known peer has the labels {peer}", _ABSENT)


def _absent_port_names(policies: Iterable[Policy], names: set[str]) -> list[Problem]:
    return [
        port.place.problem(
            f"nothing has a port named {spec.name}", "add it to the endpoints, or write its number"
        )
        for rule in all_rules(policies)
        for port in rule.ports or ()
        for spec in port.ports
        if spec.name and spec.name not in names
    ]


def _patterns(rule: HttpRule) -> Iterator[Problem]:
    path, host, method = rule.path, rule.host, rule.method
    for word in path.words if path else ():
        if word.endswith(b"/") and len(word) > 1:
            text = word.decode()
            yield _in(rule, "path", f"matches the path {text} itself and nothing below it", f"write {text}.*")
    starts = [*path.words, path.head] if path else []
    if any(word and not word.startswith((b"/", b"*")) for word in starts):
        yield _in(rule, "path", f"{path} matches no path: all of a path is matched, and it begins with /")
    if host is not None and _bare_dot(host.source):
        yield _in(rule, "host", f"the dots of {host} match any character", r"write \. for a dot")
    for word in method.words if method else ():
        if word != word.upper():
            yield _in(
                rule, "method", f"methods are upper case: {word.decode()} is never sent", "write upper case"
            )


def _in(rule: HttpRule, name: str, message: str, mend: str = "") -> Problem:
    place = rule.place
    pointer = f"{place.pointer}/{name}"
    return Problem(place.file, place.line_of(pointer), pointer, message, mend)


def _bare_dot(source: bytes) -> bool:
    """Whether a `.` that is not repeated stands between letters or digits."""
    cut = tokens(source.removeprefix(b"^").removesuffix(b"$")) or []
    return any(
        dot.text == b"." and before.plain.isalnum() and after.plain.isalnum()
        for before, dot, after in zip(cut, cut[1:], cut[2:], strict=False)
    )


Conditions = tuple[Any, Any, Any, frozenset[Any]]
"""Method, host, path (None: any), and the tests of headers and query parameters."""

# A rule tests few headers; each more doubles the look-ups of what could cover it.
_MOST_TESTS = 6


def _shadowed_requests(port: PortRule) -> Iterator[Problem]:
    """Rules of one list that match nothing that another of them does not, found by look-up: lists are long."""
    plain = [(at, rule) for at, rule in enumerate(port.http or ()) if not rule.header_matches]
    first: dict[Conditions, int] = {}
    for at, rule in plain:
        first.setdefault(_conditions(rule), at)
    for at, rule in plain:
        wider = (first.get(wide, at) for wide in _wider(_conditions(rule)))
        other = next((found for found in wider if found != at), None)
        if other is not None and port.http:
            yield rule.place.problem(
                f"decides nothing: {port.http[other].name} matches all that it does", "remove one of the two"
            )


def _conditions(rule: HttpRule) -> Conditions:
    everywhere = rule.path is not None and rule.path.text in (".*", "/.*")
    path = None if everywhere else rule.path or rule.path_exact or _prefix_key(rule)
    return rule.method, rule.host, path, frozenset((*rule.headers, *rule.query))


def _prefix_key(rule: HttpRule) -> tuple[str, bytes] | None:
    return None if not rule.path_prefix else ("prefix", rule.path_prefix)


def _wider(own: Conditions) -> Iterator[Conditions]:
    """All conditions that are these, or leave some of them out."""
    method, host, path, tests = own
    kept = [frozenset(some) for n in range(len(tests) + 1) for some in combinations(tests, n)]
    if len(tests) > _MOST_TESTS:
        kept = [frozenset(), tests]
    for parts in product({method, None}, {host, None}, {path, None}):
        yield from ((*parts, some) for some in kept)


@dataclass(frozen=True, slots=True)
class _Clause:
    """One place where a rule speaks of ports, with the rule around it."""

    rule: Rule
    port: PortRule | None
    deny: bool

    @property
    def name(self) -> str:
        return self.port.name if self.port else self.rule.name

    @property
    def ports(self) -> tuple[PortSpec, ...]:
        return self.port.ports if self.port else (EVERY_PORT,)

    @property
    def judges(self) -> bool:
        return self.port is not None and self.port.http is not None


def _by_subject(policies: Iterable[Policy]) -> Iterator[list[_Clause]]:
    """What is said of the same endpoints in the same direction."""
    together: dict[tuple[Selector, str], list[_Clause]] = {}
    for policy in policies:
        for word, direction in (("ingress", policy.ingress), ("egress", policy.egress)):
            together.setdefault((policy.subject, word), []).extend(_clauses(direction))
    yield from together.values()


def _clauses(direction: Direction) -> Iterator[_Clause]:
    for deny, rules in ((False, direction.allow), (True, direction.deny)):
        for rule in rules:
            yield from (_Clause(rule, port, deny) for port in rule.ports or (None,))


# Every rule of an endpoint is compared with this many others, so that ten thousand take a second, not minutes.
_MOST_COMPARED = 200


def _widened(clauses: Sequence[_Clause]) -> Iterator[Problem]:
    """Requests that are not judged, as another rule allows the port to the same peers whatever is sent."""
    opening = [one for one in clauses if not one.deny and not one.judges][:_MOST_COMPARED]
    for judged in clauses:
        if judged.judges and not judged.deny and judged.port is not None:
            wide = next((one for one in opening if _meets(one, judged)), None)
            if wide is not None:
                message = f"requests are not judged here: {wide.name} allows the port whatever is sent"
                yield judged.port.place.problem(message, "give that rule http rules too, or other peers")


def _denied_whole(clauses: Sequence[_Clause]) -> Iterator[Problem]:
    """Allow rules of which a deny rule leaves nothing."""
    denials = [one for one in clauses if one.deny and not one.judges][:_MOST_COMPARED]
    for allowed in clauses:
        if not allowed.deny:
            wide = next((one for one in denials if _contains(one, allowed)), None)
            if wide is not None:
                place = allowed.port.place if allowed.port else allowed.rule.place
                yield place.problem(f"allows nothing: {wide.name} denies all of it", "remove one of the two")


def _meets(wide: _Clause, narrow: _Clause) -> bool:
    """Whether some port of both is the same, for some peers that are certainly the same."""
    same_ports = any(_overlap(one, other) for one in wide.ports for other in narrow.ports)
    one, other = wide.rule, narrow.rule
    shared = set(one.peers or ()) & set(other.peers or ())
    return same_ports and bool(shared or _peers_contain(one, other) or _peers_contain(other, one))


def _contains(wide: _Clause, narrow: _Clause) -> bool:
    ports = all(any(_within(one, other) for other in wide.ports) for one in narrow.ports)
    return ports and _peers_contain(wide.rule, narrow.rule)


def _peers_contain(wide: Rule, narrow: Rule) -> bool:
    if narrow.peers == ():
        return False
    if wide.peers is None or EVERYTHING in wide.peers:
        return True
    return narrow.peers is not None and set(narrow.peers) <= set(wide.peers)


def _overlap(one: PortSpec, other: PortSpec) -> bool:
    protocols = bool(set(one.protocols) & set(other.protocols))
    if one.name or other.name:
        return protocols and one.name == other.name
    return protocols and one.first <= other.last and other.first <= one.last


def _within(narrow: PortSpec, wide: PortSpec) -> bool:
    if not set(narrow.protocols) <= set(wide.protocols):
        return False
    if narrow.name or wide.name:
        return wide == EVERY_PORT or narrow.name == wide.name
    return wide.first <= narrow.first and narrow.last <= wide.last
