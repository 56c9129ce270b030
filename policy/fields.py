"""The shapes that all forms share: label selectors, ports, networks."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from policy import labels
from policy.model import LAST_PORT, TCP, UDP, PortSpec
from policy.selectors import CidrBlock, Network, Operator, Requirement, Selector, equals, selector
from policy.shapes import Anything, Choice, Cursor, ListOf, MapOf, Number, Record, Shape, Text, Then

_KEY = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9.]*[A-Za-z0-9])?/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?"
_NO_KEY = "is not a label key (letters, digits, - _ . and at most one /)"
_value = Text(
    r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?)?",
    "is not a label value (letters, digits, - _ ., a letter or digit at both ends)",
)
# IANA service name (RFC 6335 section 5.1): at most 15 letters, digits and single hyphens, with a letter.
PORT_NAME = r"(?=.{1,15}$)(?=.*[A-Za-z])[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*"
PROTOCOLS = {"TCP": (TCP,), "UDP": (UDP,), "ANY": (TCP, UDP)}
_OTHER_PROTOCOLS = {
    "SCTP": "kproxy decides TCP and UDP only; leave SCTP to the CNI",
    "ICMP": "kproxy decides TCP and UDP only; leave ICMP to the CNI",
    "ICMPV6": "kproxy decides TCP and UDP only; leave ICMP to the CNI",
}


def _check_expression(at: Cursor, read: dict[str, Any]) -> None:
    if read.get("operator") in ("In", "NotIn") and not at.value.get("values"):
        at.error(f"{read['operator']} needs values")
    if read.get("operator") in ("Exists", "DoesNotExist") and at.value.get("values"):
        at.at("values").error(f"{read['operator']} takes no values")


def _selector(source: str, key: Text) -> Record[Selector]:
    """matchLabels and matchExpressions; keys that name no source are of this one."""

    def expression(at: Cursor, read: dict[str, Any]) -> Requirement:
        origin, name = labels.split_key(read["key"], source)
        return Requirement(
            origin, name, Operator(read["operator"]), tuple(sorted(set(read.get("values", ()))))
        )

    def build(at: Cursor, read: dict[str, Any]) -> Selector:
        wanted = [
            equals(name, value, origin)
            for full, value in read.get("matchLabels", {}).items()
            for origin, name in [labels.split_key(full, source)]
        ]
        return selector([*wanted, *read.get("matchExpressions", ())])

    operator = Choice(tuple(one.value for one in Operator))
    expressions = Record(
        {"key": key, "operator": operator, "values": ListOf(_value)},
        expression,
        required=("key", "operator"),
        check=_check_expression,
    )
    return Record(
        {"matchLabels": MapOf(key, _value), "matchExpressions": ListOf(expressions)},
        build,
        hints={"labels": "did you mean matchLabels?"},
        description="Selects by labels; {} selects everything in its scope.",
    )


label_selector = _selector(labels.ANY, Text(rf"(?:[a-z0-9_-]+:)?{_KEY}", _NO_KEY))
"""Cilium's: a key may name its source, and means every source if it does not."""
pod_selector = _selector(labels.K8S, Text(_KEY, _NO_KEY))
"""Kubernetes': keys have no source, and labels are those of its objects."""


def network(at: Cursor, text: str) -> Network | None:
    """The network that a CIDR or a single address names; bits beyond the prefix are masked as in Cilium."""
    if not re.fullmatch(r"[0-9A-Fa-f.:]+(?:/[0-9]{1,3})?", text):
        at.error(f"{text!r} is not a CIDR such as 10.0.0.0/8 or 2001:db8::/32")
        return None
    try:
        found: IPv4Network | IPv6Network = ip_network(text, strict=False)
    except ValueError:
        at.error(f"{text!r} is not a CIDR such as 10.0.0.0/8 or 2001:db8::/32")
        return None
    if isinstance(found, IPv6Network) and found.network_address.ipv4_mapped and found.prefixlen >= 96:
        at.error(f"{text!r} is IPv4 written as IPv6: write the IPv4 network")
        return None
    return found


cidr: Then[str, Network] = Then(Text(description="A CIDR, or one address"), network)


def prefix(at: Cursor, text: str) -> Network | None:
    """A network that must be written with its prefix length (Cilium, CIDRRule)."""
    if "/" not in text:
        at.error(f"{text!r} needs a prefix length, such as {text}/32")
        return None
    return network(at, text)


def _block(at: Cursor, read: dict[str, Any]) -> CidrBlock:
    return CidrBlock(read["cidr"], tuple(sorted(set(read.get("except", ())), key=str)))


def _check_block(at: Cursor, read: dict[str, Any]) -> None:
    outer = read.get("cidr")
    if outer is None:
        return
    for i, inner in enumerate(read.get("except", ())):
        if inner.version != outer.version or not inner.subnet_of(outer):
            at.at("except").at(i).error(f"{inner} does not lie in {outer}: there is nothing to except")


def cidr_block(**more: Any) -> Record[CidrBlock]:
    """`cidr` with `except`; `more` are the fields that one form has beside them."""
    written = Then(Text(), prefix)
    fields: dict[str, Shape[Any]] = {"cidr": written, "except": ListOf(written)}
    return Record(
        fields | more,
        _block,
        required=("cidr",),
        check=_check_block,
    )


def _port_number(at: Cursor, text: str) -> int | str | None:
    """A number, or a name in lower case (Cilium compares port names without case)."""
    if re.fullmatch(PORT_NAME, text):
        return text.lower()
    if re.fullmatch(r"0|[1-9][0-9]{0,4}", text) and int(text) <= LAST_PORT:
        return int(text)
    at.error(f"{text!r} is neither a port from 0 to {LAST_PORT} nor a port name of at most 15 characters")
    return None


port_text = Then(Text(description="A port number in quotes, a port name, or 0 for all"), _port_number)
protocol = Choice(tuple(PROTOCOLS), _OTHER_PROTOCOLS, str.upper)
end_port = Number(0, LAST_PORT)


def check_range(at: Cursor, read: dict[str, Any]) -> None:
    """`endPort` needs a port number, not above it (Cilium and Kubernetes alike)."""
    port, last = read.get("port"), read.get("endPort")
    if last is None:
        return
    if not isinstance(port, int) or port == 0:
        if port is not None or "port" not in at.value:
            at.at("endPort").error("endPort needs a port number to begin at")
    elif last < port:
        at.at("endPort").error(f"endPort {last} lies before port {port}")


def port_spec(protocols: tuple[int, ...], port: int | str | None, last: int | None) -> PortSpec:
    """Ports from what was written; 0 or nothing is all of them."""
    if isinstance(port, str):
        return PortSpec(protocols, name=port)
    return PortSpec(protocols, port, last or port) if port else PortSpec(protocols)


_METADATA_ABOUT_OTHER_THINGS: dict[str, Shape[Any]] = {
    key: Anything()
    for key in (
        *("labels", "annotations", "ownerReferences", "finalizers", "generateName"),
        *("uid", "selfLink", "generation", "resourceVersion", "managedFields"),
        *("creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"),
    )
}
metadata: Record[dict[str, Any]] = Record(
    _METADATA_ABOUT_OTHER_THINGS
    | {
        "name": Text(r"[a-z0-9A-Z](?:[-a-z0-9A-Z_.]*[a-z0-9A-Z])?", "is not an object name"),
        "namespace": Text(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?", "is not a namespace name"),
    },
    lambda at, read: read,
    required=("name",),
)
"""Kubernetes object metadata; only the name and the namespace say anything here."""
