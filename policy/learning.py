"""From what was seen to the least rules that would have allowed it, as CiliumNetworkPolicy, for review.

One policy for each service (endpoints with the same labels), in it one rule for each peer and port. What a
person should look at, and what was left out, stands in the notes; what each rule stands for, in the evidence
and in an annotation of the policy.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from policy import labels
from policy.identities import Workload
from policy.learned_http import EXAMPLES, Requests, learn_requests
from policy.model import UDP
from policy.records import Record, Records, counted

# Labels that name one replica or one rollout, not a service.
_VOLATILE = {
    "pod-template-hash",
    "controller-revision-hash",
    "pod-template-generation",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
}
ANNOTATION = "kproxy/evidence"
"""Where a learned policy says what each of its rules stands for, a line for each."""
# Kubernetes takes 256 KiB of annotations for one object.
_LONGEST_ANNOTATION = 200_000
_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Z-]+")

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one learned rule stands for: how many requests, and some of them."""

    rule: str
    requests: int
    examples: tuple[str, ...]
    refused: int = 0
    """How many of them the server answered as if nothing were there (404, 405, …)."""

    def __str__(self) -> str:
        refused = f", {self.refused} of them answered with nothing there" if self.refused else ""
        return f"{self.rule}: {counted(self.requests, 'request')}{refused}: {', '.join(self.examples)}"


@dataclass(frozen=True, slots=True)
class Learned:
    """Policies as JSON objects, what each rule stands for, and what a person should look at."""

    policies: tuple[dict[str, Any], ...]
    evidence: tuple[Evidence, ...]
    notes: tuple[str, ...]


def learn(
    seen: Records,
    workloads: Iterable[Workload],
    verdicts: Sequence[str] = ("audit",),
    *,
    leave_out_refused: bool = False,
) -> Learned:
    """The least rules for all records with these verdicts: one rule for each peer and port of a service.

    `leave_out_refused`: make no rules of requests that servers only ever answered as if nothing were there,
    as scanners are answered.
    """
    world = _World(workloads)
    world.notes += [
        f"{counted(count, 'line')} left out: {reason}" for reason, count in sorted(seen.left_out.items())
    ]
    chosen = _usable([one for one in seen.records if one.verdict in verdicts], world.notes)
    if leave_out_refused:
        chosen = _needed(chosen, world.notes)
    by_service: dict[tuple[str, Labels], list[Record]] = {}
    for name, records in _grouped(chosen, lambda record: record.endpoint):
        service = world.service(name, len(records))
        if service is not None:
            by_service.setdefault(service, []).extend(records)
    learners = [_Learner(world, *service, records) for service, records in by_service.items()]
    policies = [learner.policy() for learner in learners]
    evidence = tuple(one for learner in learners for one in learner.evidence)
    return Learned(tuple(one for one in policies if one is not None), evidence, tuple(world.notes))


def stable_labels(workload: Workload) -> dict[str, str]:
    """The labels that say which service a workload belongs to."""
    return {key: value for key, value in sorted(workload.labels.items()) if key not in _VOLATILE}


def _grouped(records: Iterable[Record], key: Any) -> list[tuple[Any, list[Record]]]:
    groups: dict[Any, list[Record]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return sorted(groups.items(), key=lambda pair: pair[0])


def _usable(records: list[Record], notes: list[str]) -> list[Record]:
    """Without requests that no right rule could mean."""
    usable = [one for one in records if not one.http or _METHOD.fullmatch(one.method)]
    if len(usable) < len(records):
        notes.append(
            f"{counted(len(records) - len(usable), 'request')} left out: a method that is not in upper case"
        )
    return usable


def _needed(records: list[Record], notes: list[str]) -> list[Record]:
    """Without requests that were never answered but as if nothing were there."""

    def target(record: Record) -> tuple[object, ...]:
        return record.endpoint, record.direction, record.port, record.host, record.path, record.method

    answered = {target(one) for one in records if not one.refused}
    needed = [one for one in records if target(one) in answered]
    if len(needed) < len(records):
        notes.append(
            f"{counted(len(records) - len(needed), 'request')} left out: servers answered that nothing is there"
        )
    return needed


class _World:
    """Who is known, and what is to be told of what was seen."""

    def __init__(self, workloads: Iterable[Workload]) -> None:
        self._known = {workload.full_name: workload for workload in workloads}
        self._names: set[tuple[str, str]] = set()
        self.notes: list[str] = []

    def service(self, endpoint: str, requests: int) -> tuple[str, Labels] | None:
        """The namespace and labels by which a policy selects an endpoint."""
        found = self._known.get(endpoint)
        if found is None:
            self.notes.append(
                f"{counted(requests, 'request')} of {endpoint} left out: it is not a known endpoint"
            )
            return None
        wanted = stable_labels(found)
        if not wanted:
            self.notes.append(
                f"{counted(requests, 'request')} of {endpoint} left out: it has no labels to select it by, "
                f"and a policy without them is about all of {found.namespace}"
            )
            return None
        return found.namespace, tuple(wanted.items())

    def members(self, namespace: str, wanted: Labels) -> list[str]:
        """All workloads that these labels select, by name."""
        return sorted(
            one.name
            for one in self._known.values()
            if one.namespace == namespace and set(wanted) <= set(one.labels.items())
        )

    def policy_name(self, namespace: str, wanted: Labels) -> str:
        """A name that Kubernetes takes, after the first workload that is selected, not given before."""
        first = self.members(namespace, wanted)[0].lower()
        base = name = "learned-" + re.sub("[^a-z0-9.-]+", "-", first).strip("-.")
        number = 2
        while (namespace, name) in self._names:
            name, number = f"{base}-{number}", number + 1
        self._names.add((namespace, name))
        return name

    def peer(self, word: str, peer: str, namespace: str) -> dict[str, Any] | str:
        """What selects a peer as seen from a namespace, or why nothing does."""
        if peer in ("world", "host"):
            return {f"{word}Entities": [peer]}
        if peer.startswith("cidr:"):
            return {f"{word}CIDR": [peer.removeprefix("cidr:")]}
        found = self._known.get(peer)
        if found is None:
            return "it is not a known peer"
        wanted = stable_labels(found)
        if not wanted:
            return "it has no labels to select it by"
        if found.namespace and found.namespace != namespace:
            wanted[f"{labels.K8S}:{labels.NAMESPACE}"] = found.namespace
        return {f"{word}Endpoints": [{"matchLabels": wanted}]}


class _Learner:
    """The policy of one service while it is learned."""

    def __init__(self, world: _World, namespace: str, wanted: Labels, records: Sequence[Record]) -> None:
        self._world = world
        self._namespace = namespace
        self._labels = wanted
        self._records = records
        self._name = world.policy_name(namespace, wanted)
        self.evidence: list[Evidence] = []

    def policy(self) -> dict[str, Any] | None:
        """As CiliumNetworkPolicy; None if no record can become a rule."""
        spec: dict[str, Any] = {"endpointSelector": {"matchLabels": dict(self._labels)}}
        for direction, word in (("ingress", "from"), ("egress", "to")):
            rules = self._direction(direction, word)
            spec |= {direction: rules} if rules else {}
        if len(spec) == 1:
            return None
        self._note_others()
        about = {
            "name": self._name,
            "namespace": self._namespace,
            "annotations": {ANNOTATION: _annotation(self.evidence)},
        }
        return {"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": about, "spec": spec}

    def _direction(self, direction: str, word: str) -> list[dict[str, Any]]:
        own = [record for record in self._records if record.direction == direction]
        rules: list[dict[str, Any]] = []
        for selected, port, protocol, records in self._services(word, own):
            name = f"{self._namespace}/{self._name}#{direction}[{len(rules)}].toPorts[0]"
            outside = f"{word}CIDR" in selected or "world" in selected.get(f"{word}Entities", ())
            allowed = self._requests(name, records, with_host=outside and direction == "egress")
            if allowed is None:
                continue
            if outside and direction == "ingress":
                note = f"{name}: lets anyone outside in; name who it is with fromCIDR if you can"
                self._world.notes.append(note)
            ports = {"ports": [{"port": str(port), "protocol": "UDP" if protocol == UDP else "TCP"}]}
            rules.append({**selected, "toPorts": [ports | allowed]})
        return rules

    def _services(
        self, word: str, records: Sequence[Record]
    ) -> Iterable[tuple[dict[str, Any], int, int, list[Record]]]:
        """(what selects the peer, port, protocol, records): peers that are selected alike are one."""
        groups: dict[tuple[str, int, int], tuple[dict[str, Any], list[Record]]] = {}
        for peer, own in _grouped(records, lambda record: record.peer):
            selected = self._world.peer(word, peer, self._namespace)
            if isinstance(selected, str):
                self._world.notes.append(f"{counted(len(own), 'request')} of {peer} left out: {selected}")
                continue
            for record in own:
                key = (json.dumps(selected, sort_keys=True), record.port, record.protocol)
                groups.setdefault(key, (selected, []))[1].append(record)
        # In the order of peers' names, then of ports.
        order = {key: at for at, key in enumerate(dict.fromkeys(key[0] for key in groups))}
        for key in sorted(groups, key=lambda key: (order[key[0]], *key[1:])):
            yield groups[key][0], key[1], key[2], groups[key][1]

    def _requests(self, name: str, records: Sequence[Record], *, with_host: bool) -> dict[str, Any] | None:
        """The `rules` of one toPorts entry, if it has any; None if there is nothing to allow."""
        if not all(record.http for record in records):
            self._whole(name, records)
            return {}
        found = learn_requests(name, records, with_host=with_host)
        self._world.notes += found.notes
        if not found.requests:
            return None
        self._tell_refused(name, found.requests)
        self.evidence += [_evidence(name, at, one) for at, one in enumerate(found.requests)]
        return {"rules": {"http": [one.rule() for one in found.requests]}}

    def _whole(self, name: str, records: Sequence[Record]) -> None:
        examples = tuple(islice(sorted({str(record) for record in records}), EXAMPLES))
        self.evidence.append(Evidence(name, len(records), examples))
        if any(record.http for record in records):
            self._world.notes.append(
                f"{name}: HTTP and other traffic were seen on one port, so it is allowed whole"
            )

    def _tell_refused(self, name: str, found: Sequence[Requests]) -> None:
        """Rules that rest on nothing but what servers had nothing for."""
        refused = [one for one in found if one.refused == one.count]
        if refused:
            self._world.notes.append(
                f"{name}: {len(refused)} of its rules are for requests that the server only ever answered as "
                f"if nothing were there, such as {refused[0].example}: make sure that it is no scanner's"
            )

    def _note_others(self) -> None:
        seen = {record.endpoint.rpartition("/")[2] for record in self._records}
        others = [one for one in self._world.members(self._namespace, self._labels) if one not in seen]
        if others:
            shown = ", ".join(others[:EXAMPLES]) + (", …" if len(others) > EXAMPLES else "")
            self._world.notes.append(
                f"{self._name}: its labels also select {shown}, of which nothing was seen: "
                "what they need will be denied"
            )


def _evidence(name: str, at: int, one: Requests) -> Evidence:
    return Evidence(f"{name}.http[{at}]", one.count, one.examples, one.refused)


def _annotation(evidence: Iterable[Evidence]) -> str:
    text = "\n".join(map(str, evidence))
    return text if len(text) <= _LONGEST_ANNOTATION else text[:_LONGEST_ANNOTATION] + "…"
