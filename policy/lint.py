"""What is right but likely not meant: warnings about rules, with what to write instead.

Each check is a function from rules to problems; none of them changes what a rule means.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from policy import labels
from policy.errors import Problem
from policy.identities import Workload
from policy.lint_http import lint_requests
from policy.model import EVERY_PORT, Direction, Mode, Place, Policy, PortRule, PortSpec, Rule
from policy.selectors import EVERYTHING, LabelIndex, Selector


def lint(policies: Sequence[Policy]) -> list[Problem]:
    """All that can be said of rules alone."""
    found: list[Problem] = []
    for rule in all_rules(policies):
        for port in rule.ports or ():
            found += lint_requests(port.http or ())
    for clauses in _by_subject(policies):
        found += _widened(clauses)
        found += _covered(clauses)
        found += _denied_whole(clauses)
    return found


_ONE_TOO_MANY = "remove one of the two"
_ABSENT = "mend the labels, or add the workload to the endpoints"


def lint_world(policies: Sequence[Policy], workloads: Sequence[Workload]) -> list[Problem]:
    """What can be said once it is known who is there: selectors that select nothing, port names nobody has."""
    known = [labels.of_workload(one.namespace, one.labels) for one in workloads]
    reserved = [labels.reserved("host"), labels.reserved("world", "world-ipv4", "world-ipv6")]
    meant = {peer for rule in all_rules(policies) for peer in rule.peers or ()}
    subjects = LabelIndex(known, [policy.subject for policy in policies])
    peers = LabelIndex([*known, *reserved], [one for one in meant if isinstance(one, Selector)])
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


@dataclass(frozen=True, slots=True)
class _Clause:
    """One place where a rule speaks of ports, with the rule around it."""

    rule: Rule
    port: PortRule | None
    deny: bool
    mode: Mode

    @property
    def place(self) -> Place:
        return self.port.place if self.port else self.rule.place

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
            together.setdefault((policy.subject, word), []).extend(_clauses(direction, policy.mode))
    yield from together.values()


def _clauses(direction: Direction, mode: Mode) -> Iterator[_Clause]:
    for deny, rules in ((False, direction.allow), (True, direction.deny)):
        for rule in rules:
            yield from (_Clause(rule, port, deny, mode) for port in rule.ports or (None,))


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


def _covered(clauses: Sequence[_Clause]) -> Iterator[Problem]:
    """Rules without requests that say nothing which a wider one does not; of two equal ones the later."""
    plain = [one for one in clauses if not one.judges and one.rule.peers != ()]
    about: dict[tuple[object, ...], list[tuple[int, _Clause]]] = {}
    for at, one in enumerate(plain):
        for peer in one.rule.peers or (EVERYTHING,):
            about.setdefault((one.deny, one.mode, peer), []).append((at, one))
    for at, narrow in enumerate(plain):
        # Whatever covers a rule is about the first of its peers as well, or about everyone.
        peers = {EVERYTHING: None} | dict.fromkeys((narrow.rule.peers or ())[:1])
        near = chain(*(about.get((narrow.deny, narrow.mode, peer), ())[:_MOST_COMPARED] for peer in peers))
        covering = (
            one
            for other, one in near
            if other != at and _contains(one, narrow) and (other < at or not _contains(narrow, one))
        )
        wide = next(covering, None)
        if wide is not None:
            done = "denies" if narrow.deny else "allows"
            yield narrow.place.problem(
                f"decides nothing: {wide.name} {done} all that it does", "remove one of the two"
            )


def _denied_whole(clauses: Sequence[_Clause]) -> Iterator[Problem]:
    """Allow rules of which a deny rule leaves nothing."""
    denials = [one for one in clauses if one.deny and not one.judges][:_MOST_COMPARED]
    for allowed in clauses:
        if not allowed.deny:
            wide = next((one for one in denials if _contains(one, allowed)), None)
            if wide is not None:
                yield allowed.place.problem(
                    f"allows nothing: {wide.name} denies all of it", "remove one of the two"
                )


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
