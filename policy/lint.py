"""What is right but likely not meant: warnings about rules, with what to write instead.

Each check is a function from rules to problems; none of them changes what a rule means.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from policy import labels
from policy.errors import Problem
from policy.identities import Workload
from policy.lint_http import lint_patterns
from policy.lint_rules import lint_rules
from policy.model import Policy, Rule
from policy.selectors import LabelIndex, Selector


def lint(policies: Sequence[Policy]) -> list[Problem]:
    """All that can be said of rules alone."""
    found: list[Problem] = []
    for rule in all_rules(policies):
        for port in rule.ports or ():
            found += lint_patterns(port.http or ())
    return [*found, *lint_rules(policies)]


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
