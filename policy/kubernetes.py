"""networking.k8s.io/v1 NetworkPolicy, with the meaning that Kubernetes gives it.

Sources: Kubernetes' NetworkPolicySpec documentation; Cilium's pkg/k8s/network_policy.go for how its parts
become selectors. An empty or absent `from`, `to` or `ports` means all; empty rule lists mean none.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from policy import labels
from policy.fields import PORT_NAME, PROTOCOLS, check_range, cidr_block, end_port, pod_selector, port_spec
from policy.model import LAST_PORT, Direction, Mode, Policy, PortRule, PortSpec, Rule
from policy.selectors import PeerSelector, Requirement, Selector, equals, exists, selector
from policy.shapes import Choice, Cursor, ListOf, Number, Record, Text


def _of_namespaces(one: Selector) -> tuple[Requirement, ...]:
    """Requirements on a namespace's labels, as requirements on the labels its pods carry for it.

    Whatever has no namespace is not selected, by NotIn and DoesNotExist neither.
    """
    on_labels = (replace(r, key=labels.NAMESPACE_LABELS + r.key) for r in one.requirements)
    return (exists(labels.NAMESPACE, labels.K8S), *on_labels)


def _peer(at: Cursor, read: dict[str, Any]) -> PeerSelector | None:
    if "ipBlock" in read:
        block: PeerSelector = read["ipBlock"]
        return block
    pods = read.get("podSelector", Selector())
    if "namespaceSelector" in read:
        return selector(pods.requirements + _of_namespaces(read["namespaceSelector"]))
    return selector((*pods.requirements, equals(labels.NAMESPACE, at.owner.namespace or "", labels.K8S)))


def _check_peer(at: Cursor, read: dict[str, Any]) -> None:
    if not at.value:
        at.error("an empty peer: name a podSelector, a namespaceSelector or an ipBlock")
    elif "ipBlock" in at.value and len(at.value) > 1:
        at.error("ipBlock stands alone: write the selectors as a peer of their own")


class _PortOrName:
    """A port number, or a port name (IntOrString)."""

    def read(self, at: Cursor) -> int | str | None:
        """The number, or the name in lower case."""
        if type(at.value) is int:
            return Number(1, LAST_PORT).read(at)
        text = Text(PORT_NAME, "is not a port name; write port numbers without quotes").read(at)
        return None if text is None else text.lower()

    def schema(self) -> dict[str, Any]:
        """Either of the two."""
        return {"anyOf": [Number(1, LAST_PORT).schema(), Text(PORT_NAME).schema()]}


def _port(at: Cursor, read: dict[str, Any]) -> PortSpec:
    return port_spec(PROTOCOLS[read.get("protocol", "TCP")], read.get("port"), read.get("endPort"))


_protocol = Choice(("TCP", "UDP"), {"SCTP": "kproxy decides TCP and UDP only; leave SCTP to the CNI"})
_ports = ListOf(
    Record({"protocol": _protocol, "port": _PortOrName(), "endPort": end_port}, _port, check=check_range)
)
_peers = ListOf(
    Record(
        {"podSelector": pod_selector, "namespaceSelector": pod_selector, "ipBlock": cidr_block()},
        _peer,
        check=_check_peer,
    )
)


def _rule(at: Cursor, read: dict[str, Any]) -> Rule:
    peers = read.get("from") or read.get("to") or None
    ports = read.get("ports") or None
    about = at.owner.description
    allowed = None if ports is None else (PortRule(f"{at.rule_name}.ports", at.place, ports, None, about),)
    return Rule(at.rule_name, at.place, peers, allowed, about)


_HINTS = {
    "fromEndpoints": "did you mean from?",
    "toEndpoints": "did you mean to?",
    "toPorts": "did you mean ports?",
}


def _rules(word: str) -> ListOf[Rule]:
    return ListOf(Record({word: _peers, "ports": _ports}, _rule, hints=_HINTS))


def _direction(read: dict[str, Any], name: str) -> Direction:
    """A NetworkPolicy without policyTypes is about ingress, and about egress if it has rules for it.

    An empty `egress` is no rule (Kubernetes, SetDefaults_NetworkPolicy).
    """
    default = ("Ingress", "Egress") if read.get("egress") else ("Ingress",)
    if name not in (read.get("policyTypes") or default):
        return Direction()
    return Direction(True, read.get(name.lower(), ()))


def _policy(at: Cursor, read: dict[str, Any]) -> Policy:
    own = equals(labels.NAMESPACE, at.owner.namespace or "", labels.K8S)
    return Policy(
        name=at.owner.policy,
        kind="NetworkPolicy",
        place=at.place,
        subject=read.get("podSelector", Selector()).and_also(own),
        ingress=_direction(read, "Ingress"),
        egress=_direction(read, "Egress"),
        description=at.owner.description,
        mode=read.get("kproxy", Mode.ENFORCE),
    )


def _check_types(at: Cursor, read: dict[str, Any]) -> None:
    types = read.get("policyTypes")
    if not types and at.value.get("egress") == []:
        at.at("egress").warn("is empty, which is no rule", "to deny all egress write policyTypes: [Egress]")
    for key in ("ingress", "egress"):
        if types and read.get(key) and key.capitalize() not in types:
            at.at(key).error(f"has rules, but policyTypes does not name {key.capitalize()}")


spec: Record[Policy] = Record(
    {
        "podSelector": pod_selector,
        "policyTypes": ListOf(Choice(("Ingress", "Egress"))),
        "ingress": _rules("from"),
        "egress": _rules("to"),
        "kproxy": Record(
            {"mode": Choice(tuple(mode.value for mode in Mode))},
            lambda at, read: Mode(read.get("mode", Mode.ENFORCE.value)),
            description="kproxy's own; Kubernetes does not have this field.",
        ),
    },
    _policy,
    check=_check_types,
    hints={
        "endpointSelector": "did you mean podSelector?",
        "ingressDeny": "a NetworkPolicy has no deny rules: write a CiliumNetworkPolicy",
        "egressDeny": "a NetworkPolicy has no deny rules: write a CiliumNetworkPolicy",
    },
)
