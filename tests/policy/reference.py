"""A second matcher, slow and written straight from the documented meaning of each field.

It reads the documents themselves, knows no identities, no compilation and no indexes, uses Python's regular
expressions, and asks every rule about every request. What it says, the compiled policy must say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import unquote_to_bytes

from rules_world import Request

from policy import Node, Workload

Json = Mapping[str, Any]
NAMESPACE = "io.kubernetes.pod.namespace"
NAMESPACE_LABELS = "io.cilium.k8s.namespace.labels."
NUMBERS = {"TCP": {6}, "UDP": {17}, "ANY": {6, 17}}


@dataclass(frozen=True)
class Connection:
    """Who talks to whom: the endpoint under policy, the direction, the other side's address, and the port."""

    endpoint: Workload
    direction: str
    peer: str
    protocol: int
    port: int


@dataclass(frozen=True)
class World:
    """What is known."""

    workloads: tuple[Workload, ...]
    node: Node

    def workload_at(self, address: str) -> Workload | None:
        """The workload that has the address, unless it is the node's."""
        if self.is_host(address):
            return None
        return next((w for w in self.workloads if ip_address(address) in w.addresses), None)

    def is_host(self, address: str) -> bool:
        """Whether it is the node's own address."""
        return ip_address(address) in self.node.addresses

    def is_outside(self, address: str) -> bool:
        """Whether nobody is known by the address: only then do CIDR rules speak of it."""
        return not self.is_host(address) and self.workload_at(address) is None

    def labels_at(self, address: str) -> dict[str, str]:
        """All labels of what has the address."""
        if self.is_host(address):
            return {"reserved:host": ""}
        found = self.workload_at(address)
        world = f"reserved:world-ipv{ip_address(address).version}"
        return labels_of(found) if found else {"reserved:world": "", world: ""}


def labels_of(workload: Workload) -> dict[str, str]:
    """A workload's labels, its namespace's among them; nodes and API servers are in no namespace."""
    own = {key if ":" in key else f"k8s:{key}": value for key, value in workload.labels.items()}
    if any(key.startswith("reserved:") for key in own):
        return own
    return own | {
        f"k8s:{NAMESPACE}": workload.namespace,
        "k8s:io.cilium.k8s.policy.cluster": "default",
        f"k8s:{NAMESPACE_LABELS}kubernetes.io/metadata.name": workload.namespace,
    }


def lookup(labels: Mapping[str, str], key: str) -> str | None:
    """A label's value; a key without a source, or with `any:`, looks at all sources."""
    source, _, name = key.partition(":") if ":" in key else ("any", "", key)
    if source != "any":
        return labels.get(key)
    return next((value for full, value in labels.items() if full.partition(":")[2] == name), None)


def selects(selector: Json, labels: Mapping[str, str], source: str = "") -> bool:
    """matchLabels and matchExpressions, all of which must hold; `source` goes before each key."""
    for key, value in selector.get("matchLabels", {}).items():
        if lookup(labels, source + key) != value:
            return False
    for expression in selector.get("matchExpressions", ()):
        value = lookup(labels, source + expression["key"])
        holds = {
            "In": value in expression.get("values", ()),
            "NotIn": value not in expression.get("values", ()),
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }
        if not holds[expression["operator"]]:
            return False
    return True


def keys_of(selector: Json) -> list[str]:
    """All keys that a selector speaks of."""
    return [*selector.get("matchLabels", {}), *(e["key"] for e in selector.get("matchExpressions", ()))]


@dataclass(frozen=True)
class Spec:
    """One spec with what is around it."""

    kind: str
    namespace: str | None
    body: Json

    @property
    def audit(self) -> bool:
        """Whether it is only tried."""
        return bool(self.body.get("kproxy", {}).get("mode") == "audit")

    def about(self, endpoint: Workload) -> bool:
        """Whether it selects the endpoint."""
        if self.namespace is not None and endpoint.namespace != self.namespace:
            return False
        if self.kind == "NetworkPolicy":
            return selects(self.body.get("podSelector", {}), labels_of(endpoint), "k8s:")
        return selects(self.body["endpointSelector"], labels_of(endpoint))

    def default_denies(self, direction: str) -> bool:
        """Whether it brings default deny in a direction."""
        if self.kind == "NetworkPolicy":
            default = ["Ingress"] + (["Egress"] if self.body.get("egress") else [])
            return direction.capitalize() in (self.body.get("policyTypes") or default)
        said = self.body.get("enableDefaultDeny", {}).get(direction)
        any_rule = bool(self.body.get(direction) or self.body.get(direction + "Deny"))
        return bool(any_rule if said is None else said)

    def rules(self, direction: str) -> Iterator[tuple[bool, Json]]:
        """(is a deny rule, rule)"""
        if self.kind == "NetworkPolicy" and not self.default_denies(direction):
            return
        yield from ((False, rule) for rule in self.body.get(direction, ()))
        yield from ((True, rule) for rule in self.body.get(direction + "Deny", ()))


def specs(documents: list[Any]) -> list[Spec]:
    """All specs of all documents."""
    found: list[Spec] = []
    for document in documents:
        if isinstance(document, list):
            found += [Spec("rule", None, rule) for rule in document]
        else:
            namespace = document["metadata"].get("namespace")
            bodies = [document["spec"]] if "spec" in document else []
            bodies += document.get("specs", ())
            found += [Spec(document["kind"], namespace, body) for body in bodies]
    return found


def peer_allowed(world: World, spec: Spec, rule: Json, connection: Connection) -> bool:
    """Whether a rule is about the other side."""
    if spec.kind == "NetworkPolicy":
        peers = rule.get("from" if connection.direction == "ingress" else "to")
        return not peers or any(np_peer(world, spec, peer, connection.peer) for peer in peers)
    word = "from" if connection.direction == "ingress" else "to"
    written = {key: value for key, value in rule.items() if key.startswith(word) and key != "toPorts"}
    if not written:
        return bool(rule.get("toPorts"))
    return any(
        cnp_peer(world, spec, key.removeprefix(word), peer, connection.peer)
        for key, peers in written.items()
        for peer in peers
    )


def cnp_peer(world: World, spec: Spec, kind: str, peer: Any, address: str) -> bool:
    """One peer of a Cilium rule."""
    labels = world.labels_at(address)
    outside = world.is_outside(address)
    match kind:
        case "CIDR":
            return outside and in_network(address, peer)
        case "CIDRSet":
            inside = outside and in_network(address, peer["cidr"])
            return inside and not any(in_network(address, one) for one in peer.get("except", ()))
        case "Entities":
            return entity(peer, labels)
    return selects(peer, labels) and in_scope(spec, peer, labels)


def entity(name: str, labels: Mapping[str, str]) -> bool:
    """The cluster is all that is not the world, and its API server wherever that stands."""
    if name == "all":
        return True
    if name == "cluster":
        return "reserved:world" not in labels or "reserved:kube-apiserver" in labels
    return f"reserved:{name}" in labels


def in_scope(spec: Spec, peer: Json, labels: Mapping[str, str]) -> bool:
    """Where a selector that says nothing of namespaces looks."""
    keys = keys_of(peer)
    if spec.kind == "rule" or any(key.startswith("reserved:") for key in keys):
        return True
    plain = [key.removeprefix("k8s:").removeprefix("any:") for key in keys]
    if NAMESPACE in plain:
        return True
    namespace = lookup(labels, NAMESPACE)
    if spec.kind == "CiliumClusterwideNetworkPolicy":
        return namespace is not None
    return any(key.startswith(NAMESPACE_LABELS) for key in plain) or namespace == spec.namespace


def np_peer(world: World, spec: Spec, peer: Json, address: str) -> bool:
    """One peer of a NetworkPolicy."""
    labels = world.labels_at(address)
    if "ipBlock" in peer:
        return cnp_peer(world, spec, "CIDRSet", peer["ipBlock"], address)
    namespace = lookup(labels, NAMESPACE)
    if namespace is None or not selects(peer.get("podSelector", {}), labels, "k8s:"):
        return False
    if "namespaceSelector" not in peer:
        return namespace == spec.namespace
    own = (key.partition(NAMESPACE_LABELS) for key in labels)
    named = {f"k8s:{name}": labels[before + cut + name] for before, cut, name in own if cut}
    return selects(peer["namespaceSelector"], named)


def in_network(address: str, network: str) -> bool:
    """Whether an address lies in a network."""
    return ip_address(address) in ip_network(network, strict=False)


def port_allowed(world: World, specs_of: Json, connection: Connection, default: str) -> bool:
    """Whether one entry of `ports` is about the connection."""
    if connection.protocol not in NUMBERS[specs_of.get("protocol", default)]:
        return False
    port = specs_of.get("port", "0")
    if isinstance(port, str) and not port.isdecimal():
        owner = (
            connection.endpoint if connection.direction == "ingress" else world.workload_at(connection.peer)
        )
        return owner is not None and owner.ports.get(port.lower()) == connection.port
    first = int(port)
    return first == 0 or first <= connection.port <= specs_of.get("endPort", first)


def covering(world: World, spec: Spec, connection: Connection) -> Iterator[tuple[bool, list[Json] | None]]:
    """What a spec says about the connection: (is a denial, its requests or None for all of them)."""
    for deny, rule in spec.rules(connection.direction):
        if not peer_allowed(world, spec, rule, connection):
            continue
        if spec.kind == "NetworkPolicy":
            ports = rule.get("ports")
            if not ports or any(port_allowed(world, port, connection, "TCP") for port in ports):
                yield deny, None
        elif not rule.get("toPorts"):
            yield deny, None
        else:
            for entry in rule["toPorts"]:
                if any(port_allowed(world, port, connection, "ANY") for port in entry["ports"]):
                    rules = entry.get("rules")
                    own = rules.get("kproxy", {}).get("http", []) if rules else []
                    yield deny, None if rules is None else [*rules.get("http", []), *own]


def decide(
    documents: list[Any],
    world: World,
    connection: Connection,
    request: Request | None,
    *,
    audited: bool = False,
) -> str:
    """`allow`, `deny` or `audit` for a request on a connection (None: nothing is sent that is judged)."""
    selecting = [spec for spec in specs(documents) if spec.about(connection.endpoint)]
    verdict = _decide(selecting, world, connection, request)
    if verdict == "allow" or not any(spec.audit for spec in selecting):
        return verdict
    enforced = [spec for spec in selecting if not spec.audit]
    return "audit" if _decide(enforced, world, connection, request) == "allow" else "deny"


def _decide(selecting: list[Spec], world: World, connection: Connection, request: Request | None) -> str:
    said = [one for spec in selecting for one in covering(world, spec, connection)]
    for deny, http in said:
        if deny and (http is None or any(http_matches(rule, request, deny=True) for rule in http)):
            return "deny"
    from_host = connection.direction == "ingress" and world.is_host(connection.peer)
    if from_host and world.node.allow_localhost == "always":
        return "allow"
    allows = [http for deny, http in said if not deny]
    matching = [rule for http in allows for rule in http or () if http_matches(rule, request, deny=False)]
    if any(lacks_secret(match) for rule in matching for match in rule.get("headerMatches", ())):
        return "deny"  # what would have been put into the request, or taken out of it, is not known
    if any(http is None for http in allows):
        return "allow"
    if allows:
        return "allow" if matching else "deny"
    return "deny" if any(spec.default_denies(connection.direction) for spec in selecting) else "allow"


def http_matches(rule: Json, request: Request | None, *, deny: bool) -> bool:
    """Whether all that a rule says holds for a request."""
    if request is None:
        return False
    method, path, host = request.method.decode(), request.path.decode(), request.host.decode()
    plain_path = path.split("?")[0]
    if rule.get("method") and not re.fullmatch(rule["method"], method):
        return False
    if rule.get("path") and not re.fullmatch(rule["path"], path):
        return False
    if rule.get("host") and not re.fullmatch(rule["host"], host, re.IGNORECASE):
        return False
    if "pathExact" in rule and plain_path != rule["pathExact"]:
        return False
    if "pathPrefix" in rule and not f"{plain_path}/".startswith(rule["pathPrefix"].rstrip("/") + "/"):
        return False
    sent = [(name.decode(), value.decode()) for name, value in request.headers]
    return (
        all(header_holds(header, sent, deny=deny) for header in rule.get("headers", ()))
        and all(query_holds(test, path, deny=deny) for test in rule.get("query", ()))
        and all(mismatch_passes(match, sent) for match in rule.get("headerMatches", ()))
    )


def header_holds(header: str, sent: list[tuple[str, str]], *, deny: bool) -> bool:
    """One `headers` entry."""
    name, colon, value = header.partition(": ")
    values = [text for key, text in sent if key == name.lower()]
    if not colon:
        return bool(values)
    joined = ",".join(values)
    if not values:
        return False
    members = [part.strip() for part in joined.split(",")]
    return joined == value or (deny and (value in values or value in members))


def query_holds(test: Json, path: str, *, deny: bool) -> bool:
    """One `query` entry: allow rules read at `&` and want every value to match, deny rules look for any."""
    readings = [query_of(path, "&"), query_of(path, "&;")] if deny else [query_of(path, "&")]
    for pairs in readings:
        readable = all(name is not None for name, _ in pairs)
        values = [value for name, value in pairs if name == test["name"]]
        fits = [
            value is not None and bool(re.fullmatch(test.get("value", ".*"), value, re.DOTALL))
            for value in values
        ]
        unreadable = not readable or (None in values)
        if deny and (unreadable or any(fits)):
            return True
        if not deny and (not readable or not fits or not all(fits)):
            return False
    return not deny


def query_of(path: str, separators: str) -> list[tuple[str | None, str | None]]:
    """Decoded names and values; None for what is not percent-encoding."""
    parts = re.split(f"[{separators}]", path.partition("?")[2])
    pairs = (part.partition("=") for part in parts if part)
    return [(decoded(name), decoded(value)) for name, _, value in pairs]


def decoded(text: str) -> str | None:
    """Percent-decoded, with plus for a blank."""
    if re.search("%(?![0-9A-Fa-f]{2})", text):
        return None
    return unquote_to_bytes(text.replace("+", " ")).decode("latin-1")


def mismatch_passes(match: Json, sent: list[tuple[str, str]]) -> bool:
    """One `headerMatches` entry: only without `mismatch` must the header have its value."""
    if lacks_secret(match):
        return match.get("mismatch") in ("ADD", "DELETE", "REPLACE")  # such a rule matches, and denies
    values = [value for name, value in sent if name == match["name"].lower()]
    wanted = match.get("value", "")
    return "mismatch" in match or (bool(values) and wanted in ("", ",".join(values)))


def lacks_secret(match: Json) -> bool:
    """Whether a `headerMatches` entry has no value: no secrets are known here."""
    return "secret" in match and not match.get("value")
