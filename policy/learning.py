"""From what was seen to the least rules that would have allowed it, as CiliumNetworkPolicy, for review."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from policy import labels
from policy.generalise import Generalised, escape, generalise
from policy.identities import Workload
from policy.model import UDP
from policy.records import Record, Records

# Labels that name one replica or one rollout, not a service.
_VOLATILE = {
    "pod-template-hash",
    "controller-revision-hash",
    "pod-template-generation",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
}
# So many words in one place may be names of things; that is for a person to say.
MANY_WORDS = 10
_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one learned rule stands for: how many requests, and some of them."""

    rule: str
    requests: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Learned:
    """Policies as JSON objects, what each rule stands for, and what a person should look at."""

    policies: tuple[dict[str, Any], ...]
    evidence: tuple[Evidence, ...]
    notes: tuple[str, ...]


def learn(seen: Records, workloads: Iterable[Workload], verdicts: Sequence[str] = ("audit",)) -> Learned:
    """The least rules for all records with these verdicts: one rule for each peer and port of an endpoint."""
    known = {workload.full_name: workload for workload in workloads}
    notes = [f"{count} lines left out: {reason}" for reason, count in sorted(seen.left_out.items())]
    by_endpoint: dict[str, list[Record]] = {}
    for record in seen.records:
        if record.verdict in verdicts:
            by_endpoint.setdefault(record.endpoint, []).append(record)
    policies, evidence = [], []
    for name, records in sorted(by_endpoint.items()):
        if name not in known:
            notes.append(f"{len(records)} requests of {name} left out: it is not a known endpoint")
            continue
        policy = _Policy(known[name], known, notes)
        body = policy.learn(records)
        if body is not None:
            policies.append(body)
            evidence += policy.evidence
    return Learned(tuple(policies), tuple(evidence), tuple(notes))


def stable_labels(workload: Workload) -> dict[str, str]:
    """The labels that say which service a workload belongs to."""
    return {key: value for key, value in sorted(workload.labels.items()) if key not in _VOLATILE}


class _Policy:
    """The policy of one endpoint while it is learned."""

    def __init__(self, endpoint: Workload, known: Mapping[str, Workload], notes: list[str]) -> None:
        self._endpoint = endpoint
        self._known = known
        self._notes = notes
        self._name = f"learned-{endpoint.name}"
        self.evidence: list[Evidence] = []

    def learn(self, records: Sequence[Record]) -> dict[str, Any] | None:
        spec: dict[str, Any] = {"endpointSelector": {"matchLabels": stable_labels(self._endpoint)}}
        for direction in ("ingress", "egress"):
            rules = self._direction(direction, [one for one in records if one.direction == direction])
            if rules:
                spec[direction] = rules
        if len(spec) == 1:
            return None
        about = {"name": self._name, "namespace": self._endpoint.namespace}
        return {"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": about, "spec": spec}

    def _direction(self, direction: str, records: Sequence[Record]) -> list[dict[str, Any]]:
        word = "from" if direction == "ingress" else "to"
        groups: dict[tuple[str, int, int], list[Record]] = {}
        for record in records:
            groups.setdefault((record.peer, record.port, record.protocol), []).append(record)
        rules: list[dict[str, Any]] = []
        for (peer, port, protocol), own in sorted(groups.items()):
            selected = self._peer(word, peer)
            if selected is None:
                self._notes.append(f"{len(own)} requests of {peer} left out: it is not a known peer")
                continue
            name = f"{self._endpoint.namespace}/{self._name}#{direction}[{len(rules)}].toPorts[0]"
            to_port: dict[str, Any] = {"ports": [_port(port, protocol)]}
            if all(record.http for record in own):
                outside = direction == "egress" and (peer == "world" or peer.startswith("cidr:"))
                to_port["rules"] = {"http": self._http(name, own, with_host=outside)}
            else:
                self._evidence(name, own)
            rules.append(selected | {"toPorts": [to_port]})
        return rules

    def _peer(self, word: str, peer: str) -> dict[str, Any] | None:
        if peer in ("world", "host"):
            return {f"{word}Entities": [peer]}
        if peer.startswith("cidr:"):
            return {f"{word}CIDR": [peer.removeprefix("cidr:")]}
        found = self._known.get(peer)
        if found is None:
            return None
        wanted = stable_labels(found)
        if found.namespace and found.namespace != self._endpoint.namespace:
            wanted[f"{labels.K8S}:{labels.NAMESPACE}"] = found.namespace
        return {f"{word}Endpoints": [{"matchLabels": wanted}]}

    def _http(self, name: str, records: Sequence[Record], *, with_host: bool) -> list[dict[str, Any]]:
        """Rules for each pattern; methods that were seen with the same pattern stand in one rule."""
        methods: dict[tuple[str, str], dict[str, list[str]]] = {}
        count = Counter(
            (record.method.decode(), _host(record, with_host), record.path.decode()) for record in records
        )
        for method, host in sorted({(method, host) for method, host, _ in count}):
            paths = [path for m, h, path in count if (m, h) == (method, host)]
            patterns = generalise(paths)
            self._many_words(method, patterns)
            for one in patterns:
                methods.setdefault((host, one.pattern), {})[method] = list(one.paths)
        rules = []
        for (host, pattern), seen in sorted(methods.items()):
            rule = {"method": "|".join(escape(method) for method in sorted(seen)), "path": pattern}
            rules.append(rule | ({"host": escape(host)} if host else {}))
            own = [(method, path) for method, paths in sorted(seen.items()) for path in paths]
            total = sum(count[method, host, path] for method, path in own)
            examples = tuple(f"{method} {path}" for method, path in own[:_EXAMPLES])
            self.evidence.append(Evidence(f"{name}.http[{len(rules) - 1}]", total, examples))
        return rules

    def _evidence(self, name: str, records: Sequence[Record]) -> None:
        self.evidence.append(Evidence(name, len(records), tuple(map(str, records[:_EXAMPLES]))))
        if any(record.http for record in records):
            self._notes.append(
                f"{name}: HTTP and other traffic were seen on one port, so it is allowed whole"
            )

    def _many_words(self, method: str, patterns: Iterable[Generalised]) -> None:
        below = Counter(one.paths[0].rpartition("/")[0] for one in patterns if len(one.paths) == 1)
        for parent, number in sorted(below.items()):
            if number >= MANY_WORDS:
                self._notes.append(
                    f"{self._name}: {number} names below {method} {parent}/ are allowed one by one; "
                    f"if they are values of a parameter, write {escape(parent)}/[^/]+ instead"
                )


def _host(record: Record, with_host: bool) -> str:
    return record.host.decode().lower() if with_host else ""


def _port(port: int, protocol: int) -> dict[str, str]:
    return {"port": str(port), "protocol": "UDP" if protocol == UDP else "TCP"}
