"""All rules, for all identities, into one immutable revision: what the policy map holds, and who judges what.

Everything is resolved before it comes into force: a request is judged by rules that were compiled together,
and rules that cannot be compiled whole raise, so that the last good policy stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from policy import labels
from policy.directions import DirectionPolicy, Judges, Piece, Ports
from policy.errors import CompileError, Problem, UnknownEndpoint
from policy.httprules import AuditedRules, HttpRules, Miss, Secrets, missing_secret
from policy.identities import HOST, Address, Identities, Identity, Node, Prefix, Workload
from policy.indexes import TooCostly
from policy.intervals import Answer, Claim, Default, Interval, Outcome, resolve
from policy.lint import all_rules, lint_world
from policy.model import EVERY_PORT, TCP, UDP, Direction, Mode, Policy, PortRule, PortSpec, Rule
from policy.selectors import LabelIndex, PeerSelector, members_of
from policy.verdicts import Action, L4Verdict

ALLOW_LOCALHOST = "allowLocalhost"
"""The name of the rule that lets the node reach its own workloads."""


@dataclass(frozen=True, slots=True)
class EndpointPolicy:
    """What one endpoint may do; `policies` are the names of those that select it."""

    name: str
    policies: tuple[str, ...]
    ingress: DirectionPolicy
    egress: DirectionPolicy


def compile(
    rules: Iterable[Policy],
    workloads: Iterable[Workload],
    node: Node,
    revision: int,
    *,
    secrets: Secrets | None = None,
) -> NodePolicy:
    """All of a node's policy as one value.

    Raises:
        AddressConflict: two workloads have one address.
        CompileError: rules that together could stall the node.
    """
    return NodePolicy(tuple(rules), tuple(workloads), node, revision, secrets or {})


class NodePolicy:
    """One revision of a node's policy. Immutable; what is not asked for at once is resolved on demand."""

    def __init__(
        self,
        rules: tuple[Policy, ...],
        workloads: tuple[Workload, ...],
        node: Node,
        revision: int,
        secrets: Secrets,
    ) -> None:
        self.revision = revision
        self.rules = rules
        self.workloads = workloads
        self.secrets = secrets
        self._identities = Identities(workloads, node, _peer_selectors(rules), _port_names(rules))
        self._resolver = _Resolver(self._identities, node, secrets)
        self._by_name = {(workload.namespace, workload.name): workload for workload in workloads}
        self._endpoints: dict[tuple[str, str], EndpointPolicy] = {}
        local = [workload for workload in workloads if workload.local]
        for workload, selecting in zip(local, _selecting(rules, local), strict=True):
            self._endpoints[workload.namespace, workload.name] = self._endpoint(workload, selecting)
        self.warnings = (*_secret_warnings(rules, secrets), *lint_world(rules, workloads))
        """What is likely not meant, now that it is known who is there."""

    @property
    def prefixes(self) -> tuple[Prefix, ...]:
        """The whole table from addresses to identities, for a longest-prefix map."""
        return self._identities.prefixes

    def identify(self, address: Address) -> Identity:
        """Who an address is."""
        return self._identities.identify(address)

    @property
    def host(self) -> Identity:
        """The node's own identity, whatever address it uses."""
        return self._identities.host

    @property
    def world(self) -> Identity:
        """Whoever is not known, and in no network that a rule names."""
        return self._identities.world

    def identity_of(self, namespace: str, name: str) -> Identity:
        """The identity of a workload, whatever address it uses.

        Raises:
            UnknownEndpoint: there is no such workload.
        """
        found = self._identities.by_name.get((namespace, name))
        if found is None:
            raise UnknownEndpoint(f"there is no workload {namespace}/{name}")
        return found

    def is_meant(self, peer: PeerSelector, number: int) -> bool:
        """Whether a selector of the rules matches an identity."""
        return number in self._identities.numbers[peer]

    def members(self, number: int) -> tuple[str, ...]:
        """The names of all that share an identity number."""
        return self._identities.members.get(number, ())

    def selecting(self, workload: Workload) -> list[Policy]:
        """The policies that select a workload."""
        return _selecting(self.rules, [workload])[0]

    def endpoint(self, namespace: str, name: str) -> EndpointPolicy:
        """What a workload may do (if it is not enforced on this node: what it could where it is).

        Raises:
            UnknownEndpoint: there is no such workload.
        """
        key = (namespace, name)
        found = self._endpoints.get(key)
        if found is None:
            workload = self._by_name.get(key)
            if workload is None:
                raise UnknownEndpoint(f"there is no workload {namespace}/{name}")
            found = self._endpoint(workload, _selecting(self.rules, [workload])[0])
            self._endpoints[key] = found
        return found

    def _endpoint(self, workload: Workload, selecting: Sequence[Policy]) -> EndpointPolicy:
        ports = {name.lower(): port for name, port in workload.ports.items()}
        return EndpointPolicy(
            workload.full_name,
            tuple(policy.name for policy in selecting),
            self._resolver.direction("ingress", selecting, ports),
            self._resolver.direction("egress", selecting, {}),
        )


def _peer_selectors(policies: Iterable[Policy]) -> set[PeerSelector]:
    return {peer for rule in all_rules(policies) for peer in rule.peers or ()}


def _port_names(policies: Iterable[Policy]) -> frozenset[str]:
    """The port names that rules look for at their peers."""
    rules = (rule for policy in policies for rule in (*policy.egress.allow, *policy.egress.deny))
    return frozenset(
        spec.name for rule in rules for port in rule.ports or () for spec in port.ports if spec.name
    )


def _selecting(policies: Sequence[Policy], workloads: Sequence[Workload]) -> list[list[Policy]]:
    """For each workload the policies that select it."""
    index = LabelIndex([labels.of_workload(one.namespace, one.labels) for one in workloads])
    selecting: list[list[Policy]] = [[] for _ in workloads]
    for policy in policies:
        for at in members_of(index.matching(policy.subject)):
            selecting[at].append(policy)
    return selecting


def _secret_warnings(policies: Iterable[Policy], secrets: Secrets) -> tuple[Problem, ...]:
    return tuple(
        http.place.problem(f"there is no secret {match.secret}: the rule allows nothing")
        for rule in all_rules(policies)
        for port in rule.ports or ()
        for http in port.http or ()
        for match in http.header_matches
        if missing_secret(match, secrets)
    )


@dataclass(frozen=True, slots=True)
class _Clause:
    """A rule at work: whom it is about (None: everyone), and what it claims."""

    peers: frozenset[int] | None
    rule: Rule
    deny: bool
    mode: Mode

    def claims(self, ports: Mapping[str, int]) -> list[Claim]:
        """Its claims at a peer; port names that nobody there has claim nothing."""
        if self.rule.ports is None:
            return self._claim(self.rule.name, EVERY_PORT, None, ports)
        return [
            claim
            for port in self.rule.ports
            for spec in port.ports
            for claim in self._claim(port.name, spec, port, ports)
        ]

    def _claim(
        self, name: str, spec: PortSpec, port: PortRule | None, ports: Mapping[str, int]
    ) -> list[Claim]:
        first, last = spec.first, spec.last
        if spec.name:
            if spec.name not in ports:
                return []
            first = last = ports[spec.name]
        http = port.http if port else None
        return [Claim(protocol, first, last, name, self.deny, self.mode, http) for protocol in spec.protocols]


_LOCALHOST = tuple(
    Claim(protocol, EVERY_PORT.first, EVERY_PORT.last, ALLOW_LOCALHOST, deny=False, mode=Mode.ENFORCE)
    for protocol in (TCP, UDP)
)


class _Resolver:
    """Resolves directions; endpoints under the same policies with the same named ports share the answer."""

    def __init__(self, identities: Identities, node: Node, secrets: Secrets) -> None:
        self._identities = identities
        self._localhost = _LOCALHOST if node.allow_localhost == "always" else ()
        self._secrets = secrets
        self._done: dict[tuple[object, ...], DirectionPolicy] = {}
        self._judges: dict[tuple[object, ...], Judges] = {}
        self._names = {number: peer.example for number, peer in identities.peers.items()}

    def direction(self, word: str, policies: Sequence[Policy], ports: Mapping[str, int]) -> DirectionPolicy:
        """One direction of an endpoint that these policies select."""
        used = [policy for policy in policies if getattr(policy, word).says_something]
        key = (word, tuple(map(id, used)), tuple(sorted(ports.items())))
        if key not in self._done:
            self._done[key] = self._resolve(word, used, ports)
        return self._done[key]

    def _resolve(self, word: str, policies: Sequence[Policy], ports: Mapping[str, int]) -> DirectionPolicy:
        default = _default(word, policies)
        clauses = [clause for policy in policies for clause in self._clauses(policy, getattr(policy, word))]
        localhost = self._localhost if word == "ingress" and policies else ()
        about = self._by_peer(clauses)
        if localhost:
            about.setdefault(HOST, [])
        found: dict[int, Ports] = {}
        shared: dict[tuple[object, ...], Ports] = {}
        for number, own in about.items():
            named = ports if word == "ingress" else dict(self._identities.peers[number].ports)
            extra = localhost if number == HOST else ()
            key = (tuple(own), tuple(named.items()), bool(extra))
            if key not in shared:
                claims = [claim for i in own for claim in clauses[i].claims(named)]
                shared[key] = self._ports([*claims, *extra], default)
            if shared[key].pieces:
                found[number] = shared[key]
        return DirectionPolicy(word, default, found, self._names)

    def _clauses(self, policy: Policy, direction: Direction) -> list[_Clause]:
        return [
            _Clause(self._numbers(rule), rule, deny, policy.mode)
            for deny, rules in ((True, direction.deny), (False, direction.allow))
            for rule in rules
        ]

    def _numbers(self, rule: Rule) -> frozenset[int] | None:
        if rule.peers is None:
            return None
        return frozenset().union(*(self._identities.numbers[peer] for peer in rule.peers))

    def _by_peer(self, clauses: Sequence[_Clause]) -> dict[int, list[int]]:
        """For each identity that any clause is about, which ones, in their order."""
        everyone = [i for i, clause in enumerate(clauses) if clause.peers is None]
        about: dict[int, list[int]] = (
            {number: list(everyone) for number in self._identities.peers} if everyone else {}
        )
        for i, clause in enumerate(clauses):
            for number in clause.peers or ():
                about.setdefault(number, []).append(i)
        return {number: sorted(own) for number, own in about.items()}

    def _ports(self, claims: Sequence[Claim], default: Default) -> Ports:
        return Ports([self._piece(interval) for interval in resolve(claims, default)])

    def _piece(self, interval: Interval) -> Piece:
        outcome = interval.outcome
        shown = outcome.enforced if outcome.audit else outcome.every
        if outcome.audit:
            reason = f"audit: {outcome.every.reason}"
            verdict = L4Verdict(outcome.action, outcome.every.rule, reason, outcome.action is Action.PASS)
        else:
            verdict = L4Verdict(outcome.action, shown.rule, shown.reason)
        judges = self._judges_of(outcome) if outcome.action is Action.REDIRECT else None
        return Piece(interval, verdict, judges)

    def _judges_of(self, outcome: Outcome) -> Judges:
        key = tuple(
            (answer.action, answer.rule, answer.open_by, *map(id, (*answer.allow, None, *answer.deny)))
            for answer in (outcome.every, outcome.enforced)
        )
        if key not in self._judges:
            every = self._rules(outcome.every)
            audited = outcome.every is not outcome.enforced
            self._judges[key] = AuditedRules(every, self._rules(outcome.enforced)) if audited else every
        return self._judges[key]

    def _rules(self, answer: Answer) -> HttpRules:
        """What judges requests under one answer; one that passes or denies says so for each of them."""
        match answer.action:
            case Action.DENY:
                return HttpRules((), (), Miss(answer.rule, answer.reason))
            case Action.PASS:
                return HttpRules((), (), Miss(answer.rule, ""), open_by=answer.rule)
        rules = [*answer.allow, *answer.deny]
        count = f"{len(answer.allow)} rules" if len(answer.allow) != 1 else "rule"
        miss = Miss(answer.place, f"default deny: the {count} allowing requests here did not match")
        try:
            return HttpRules(answer.allow, answer.deny, miss, open_by=answer.open_by, secrets=self._secrets)
        except TooCostly as cost:
            raise CompileError([rules[0].place.problem(str(cost), cost.mend)]) from None


def _default(word: str, policies: Sequence[Policy]) -> Default:
    def first(mode: Mode) -> str:
        names = (
            f"{policy.name}#{policy.section}{word}"
            for policy in policies
            if policy.mode is mode and getattr(policy, word).default_deny
        )
        return next(names, "")

    return Default(first(Mode.ENFORCE), first(Mode.AUDIT))
