"""CiliumNetworkPolicy, CiliumClusterwideNetworkPolicy, and the classic list of rules, which all hold `Rule`s.

Sources: Cilium's pkg/policy/api (rule.go, ingress.go, egress.go, l4.go, rule_validation.go for what may not
stand together) and pkg/k8s/apis/cilium.io/utils (the namespace that a selector means).
"""

from __future__ import annotations

from typing import Any

from policy import labels
from policy.fields import (
    PROTOCOLS,
    check_range,
    cidr,
    cidr_block,
    end_port,
    label_selector,
    port_spec,
    port_text,
    protocol,
)
from policy.http_fields import cilium_rule, kproxy_deny_rule, kproxy_rule
from policy.model import TCP, Direction, HttpRule, Mode, Policy, PortRule, PortSpec, Rule
from policy.selectors import (
    EVERYTHING,
    CidrBlock,
    Network,
    Operator,
    PeerSelector,
    Requirement,
    Selector,
    equals,
    exists,
)
from policy.shapes import (
    Anything,
    Choice,
    Cursor,
    Flag,
    ListOf,
    Record,
    Shape,
    Text,
    Then,
    Unsupported,
)

_NAMESPACE_KEYS = ((labels.ANY, labels.NAMESPACE), (labels.K8S, labels.NAMESPACE))
CLUSTERWIDE = ""
"""The namespace of an owner that has none: CiliumClusterwideNetworkPolicy."""
_KINDS = {None: "rule", CLUSTERWIDE: "CiliumClusterwideNetworkPolicy"}


def in_scope(at: Cursor, one: Selector) -> Selector:
    """What a peer's selector means in this policy (getEndpointSelector).

    In a namespaced policy: pods of its namespace, unless the selector names a namespace, labels of one, or a
    reserved identity. In a clusterwide one: pods. In the classic list: what it says.
    """
    namespace = at.owner.namespace
    if namespace is None or any(r.source == labels.RESERVED for r in one.requirements):
        return one
    if one.names_key(*_NAMESPACE_KEYS):
        return one
    if namespace == CLUSTERWIDE:
        return one.and_also(exists(labels.NAMESPACE, labels.K8S))
    if any(r.key.startswith(labels.NAMESPACE_LABELS) for r in one.requirements):
        return one
    return one.and_also(equals(labels.NAMESPACE, namespace, labels.K8S))


def _subject(at: Cursor, one: Selector) -> Selector | None:
    """An endpointSelector never reaches beyond the policy's namespace (ParseToCiliumRule)."""
    namespace = at.owner.namespace
    if not namespace:
        return one
    own = equals(labels.NAMESPACE, namespace, labels.K8S)
    for r in one.requirements:
        if (r.source, r.key) in _NAMESPACE_KEYS and (r.operator, r.values) != (own.operator, own.values):
            at.error(f"a policy selects endpoints of its own namespace ({namespace}) only, not by {r}")
            return None
    return one.and_also(own)


def _entity(name: str) -> Selector:
    return Selector((Requirement(labels.RESERVED, name, Operator.EXISTS),))


# Everything that is not outside of the cluster: pods, nodes, the host; and the API server wherever it is.
_CLUSTER = (
    Selector((Requirement(labels.RESERVED, "world", Operator.DOES_NOT_EXIST),)),
    _entity("kube-apiserver"),
)
_RESERVED = (
    *("world", "world-ipv4", "world-ipv6", "host", "remote-node", "kube-apiserver"),
    *("ingress", "health", "init", "unmanaged", "none"),
)
ENTITIES: dict[str, tuple[Selector, ...]] = {"all": (EVERYTHING,), "cluster": _CLUSTER} | {
    name: (_entity(name),) for name in _RESERVED
}
"""What each entity selects: any of these (Cilium, entity.go: EntitySelectorMapping)."""

_peer = Then(label_selector, in_scope)
_blocks = cidr_block(
    cidrGroupRef=Unsupported("CiliumCIDRGroup objects are not read", "write the CIDRs here"),
    cidrGroupSelector=Unsupported("CiliumCIDRGroup objects are not read", "write the CIDRs here"),
)
_entities = Then(
    ListOf(Choice(tuple(ENTITIES))), lambda at, names: tuple(one for name in names for one in ENTITIES[name])
)
_cidrs: Then[Network, CidrBlock] = Then(cidr, lambda at, net: CidrBlock(net))
_PEERS: dict[str, Shape[Any]] = {
    "Endpoints": ListOf(_peer),
    "CIDR": ListOf(_cidrs),
    "CIDRSet": ListOf(_blocks),
    "Entities": _entities,
    "Requires": Unsupported("Requires was removed from Cilium", "put the labels into the selectors"),
    "Nodes": Unsupported("node selectors are not supported", "use the entities host and remote-node"),
    "Groups": Unsupported("groups of cloud providers cannot be resolved on a node", "write CIDRs"),
}
_TO_ONLY: dict[str, Shape[Any]] = {
    "toFQDNs": Unsupported(
        "kproxy sees no DNS answers, so it cannot know a name's addresses", "use toCIDR with rules.http host"
    ),
    "toServices": Unsupported(
        "kproxy knows no Services", "select the backends with toEndpoints, which are judged behind a Service"
    ),
}


def _port(at: Cursor, read: dict[str, Any]) -> PortSpec:
    return port_spec(PROTOCOLS[read.get("protocol", "ANY")], read["port"], read.get("endPort"))


_ports = ListOf(
    Record(
        {"port": port_text, "endPort": end_port, "protocol": protocol},
        _port,
        required=("port",),
        check=check_range,
    ),
    empty="is empty: name the ports (port 0 is all of them)",
)

_GRPC = Unsupported("grpc rules are not supported", "write the call as path: /package.Service/Method")
_KAFKA = Unsupported("kafka rules are not supported")


def _rules_shape(fields: dict[str, Shape[Any]], http: Shape[HttpRule]) -> Record[tuple[HttpRule, ...]]:
    own = Record(
        {"http": ListOf(http, empty="is empty: {} is every request"), "grpc": _GRPC},
        lambda at, read: read.get("http", ()),
        description="kproxy's own rules; Cilium does not have this field.",
    )
    return Record(
        fields | {"kproxy": own},
        lambda at, read: (*read.get("http", ()), *read.get("kproxy", ())),
        check=_check_one_kind,
        hints={"HTTP": "did you mean http?", "grpc": "use http with path: /package.Service/Method"},
    )


def _check_one_kind(at: Cursor, read: dict[str, Any]) -> None:
    if not at.value:
        at.error("names no rules: leave rules out to allow the ports whatever is sent")
    elif at.value.get("kproxy") == {} and "http" not in at.value:
        at.at("kproxy").error("names no rules")


_allow_rules = _rules_shape(
    {
        "http": ListOf(cilium_rule, empty="is empty: {} is every request; leave rules out for any protocol"),
        "kafka": _KAFKA,
        "dns": Unsupported("DNS rules are not supported", "allow port 53 without rules"),
        "l7": Unsupported("proxylib parsers are not supported"),
        "l7proto": Unsupported("proxylib parsers are not supported"),
    },
    kproxy_rule,
)
_deny_rules = _rules_shape(
    {"http": Unsupported("Cilium has no L7 deny rules", "kproxy's stand in rules.kproxy.http")},
    kproxy_deny_rule,
)
_TLS = Unsupported("TLS is not intercepted: encrypted traffic cannot be judged by its requests")


def _port_rule(at: Cursor, read: dict[str, Any]) -> PortRule:
    return PortRule(at.rule_name, at.place, read["ports"], read.get("rules"), at.owner.description)


def _check_l7(at: Cursor, read: dict[str, Any]) -> None:
    """HTTP runs over TCP, and not on all ports at once (PortRule.sanitize)."""
    rules = at.value.get("rules")
    if not isinstance(rules, dict) or not rules.keys() & {"http", "kproxy"}:
        return
    for i, port in enumerate(read.get("ports", ())):
        where = at.at("ports").at(i)
        if port.protocols != (TCP,):
            where.error("http rules are for TCP: write protocol: TCP")
        elif port == PortSpec((TCP,)):
            where.error("http rules cannot stand on all ports: name the port")


def _to_ports(rules: Shape[Any]) -> ListOf[PortRule]:
    return ListOf(
        Record(
            {
                "ports": _ports,
                "rules": rules,
                "terminatingTLS": _TLS,
                "originatingTLS": _TLS,
                "serverNames": Unsupported("TLS server names are not read", "use addresses and ports"),
                "listener": Unsupported("there is no Envoy to hand traffic to"),
            },
            _port_rule,
            required=("ports",),
            check=_check_l7,
        )
    )


def _peers_of(at: Cursor, read: dict[str, Any], word: str) -> tuple[PeerSelector, ...] | None:
    written = [kind for kind in _PEERS if word + kind in at.value]
    if written:
        return tuple(peer for kind in written for peer in read.get(word + kind, ()))
    # Ports without peers are ports of anyone; nothing at all allows no one (it only brings default deny).
    return None if read.get("toPorts") else ()


def _rule_of(word: str) -> Any:
    def build(at: Cursor, read: dict[str, Any]) -> Rule:
        peers, ports = _peers_of(at, read, word), read.get("toPorts") or None
        return Rule(at.rule_name, at.place, peers, ports, at.owner.description)

    return build


def _check_one_peer_kind(word: str) -> Any:
    def check(at: Cursor, read: dict[str, Any]) -> None:
        filled = [word + kind for kind in _PEERS if at.value.get(word + kind)]
        if len(filled) > 1:
            at.error(f"{' and '.join(filled)} cannot stand in one rule: write a rule for each")
        if at.value.get("toPorts") == []:
            at.at("toPorts").warn("is empty, which means every port: leave it out if that is meant")

    return check


def _rules_list(word: str, rules: Shape[Any]) -> ListOf[Rule]:
    fields: dict[str, Shape[Any]] = {word + kind: shape for kind, shape in _PEERS.items()}
    fields |= {
        "toPorts": _to_ports(rules),
        "icmps": Unsupported("kproxy decides TCP and UDP only", "leave ICMP to the CNI"),
        "authentication": Unsupported("mutual authentication is not supported"),
    }
    fields |= _TO_ONLY if word == "to" else {}
    other = "to" if word == "from" else "from"
    hints = {
        other + kind: f"did you mean {word}{kind}? ({other}… belongs to the other direction)"
        for kind in _PEERS
    } | {"ports": "ports stand in toPorts[].ports", "rules": "rules stand in toPorts[].rules"}
    return ListOf(Record(fields, _rule_of(word), check=_check_one_peer_kind(word), hints=hints))


_default_deny = Record({"ingress": Flag(), "egress": Flag()}, lambda at, read: read)
_own = Record(
    {"mode": Choice(tuple(mode.value for mode in Mode))},
    lambda at, read: Mode(read.get("mode", Mode.ENFORCE.value)),
    description="kproxy's own; Cilium does not have this field.",
)


def _direction(read: dict[str, Any], name: str) -> Direction:
    allow, deny = read.get(name, ()), read.get(name + "Deny", ())
    # Any rule of the direction brings default deny, unless the policy says otherwise (Rule.Sanitize).
    wanted = read.get("enableDefaultDeny", {}).get(name, bool(allow or deny))
    return Direction(wanted, allow, deny)


def _policy(at: Cursor, read: dict[str, Any]) -> Policy:
    return Policy(
        name=at.owner.policy,
        kind=_KINDS.get(at.owner.namespace, "CiliumNetworkPolicy"),
        place=at.place,
        subject=read["endpointSelector"],
        ingress=_direction(read, "ingress"),
        egress=_direction(read, "egress"),
        section=at.owner.section,
        mode=read.get("kproxy", Mode.ENFORCE),
        description=at.owner.description,
    )


def _check_says_something(at: Cursor, read: dict[str, Any]) -> None:
    sections = ("ingress", "ingressDeny", "egress", "egressDeny")
    if not any(at.value.get(key) for key in sections):
        at.error(f"has no rules: it needs one of {', '.join(sections)}")


_rule_labels = ListOf(Anything())
rule: Record[Policy] = Record(
    {
        "endpointSelector": Then(label_selector, _subject),
        "nodeSelector": Unsupported("host policies are not supported: kproxy enforces at workloads"),
        "ingress": _rules_list("from", _allow_rules),
        "ingressDeny": _rules_list("from", _deny_rules),
        "egress": _rules_list("to", _allow_rules),
        "egressDeny": _rules_list("to", _deny_rules),
        "enableDefaultDeny": _default_deny,
        "description": Text(),
        "labels": _rule_labels,
        "log": Unsupported("the log field of policies is not supported"),
        "kproxy": _own,
    },
    _policy,
    required=("endpointSelector",),
    check=_check_says_something,
    hints={
        "podSelector": "did you mean endpointSelector?",
        "mode": "write kproxy: {mode: …}",
        "audit": "write kproxy: {mode: audit}",
    },
)
"""One rule as Cilium's API has it: `spec`, an item of `specs`, or an item of the classic list."""
