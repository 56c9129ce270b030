"""The endpoints file: which workloads there are, and which of them are enforced on this node.

    {"endpoints": [
      {"name": "jobs-api", "namespace": "hr", "labels": {"app": "jobs-api"}, "netns": "/run/netns/jobs-api",
       "addresses": ["10.0.0.2"], "ports": {"http": 80}},
      {"name": "tweets", "namespace": "hr", "labels": {"app": "turtletweets"}, "addresses": ["10.0.0.3"]}]}

One of `netns` and `pid` makes an endpoint that is enforced here; without, it is a peer known by its address.
`cgroup`, for workloads that share the host's network namespace, is recognised and refused.

This module reads and checks; it opens no namespace.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from kproxy.decode import Mistake, decode, token
from kproxy.files import read_text
from policy import Workload

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

NAMESPACE_LABEL = "io.kubernetes.pod.namespace"
"""The label under which Cilium's selectors see a workload's namespace."""

API_SERVER, OUTSIDE = "reserved:kube-apiserver", "reserved:world"
RESERVED_LABELS = ("reserved:remote-node", API_SERVER)
"""Labels of peers that are no workloads but hosts, as Cilium has them: they stand in no namespace.  An API server
that is not part of the cluster is `OUTSIDE` as well."""

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
# With its source in front where that is not Kubernetes; `any` is for selectors.
_LABEL_KEY = re.compile(r"(?!any:)([a-z][a-z0-9-]{0,62}:)?[!-9;-~]{1,317}")
_KUBERNETES = "k8s:"
_LABEL_VALUE = re.compile(r"[ -~]{0,253}")
# RFC 6335 section 5.1, in the lower case that Kubernetes asks for.
_PORT_NAME = re.compile(r"(?=.{1,15}\Z)(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")

_NAME_MEND = "use letters, digits, '-', '_' and '.', 253 at most"


class EndpointEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One entry of the file, as written."""

    name: Annotated[str, Meta(description="The workload's name, unique in its namespace.")]
    namespace: Annotated[
        str | None,
        Meta(description='The workload\'s Kubernetes namespace; "default" where absent, none for a node.'),
    ] = None
    labels: Annotated[dict[str, str], Meta(description="Labels that selectors see.")] = {}
    addresses: Annotated[tuple[str, ...], Meta(min_length=1, description="IP addresses, without prefix.")]
    ports: Annotated[dict[str, Annotated[int, Meta(ge=1, le=65535)]], Meta(description="Named ports.")] = {}
    netns: Annotated[str | None, Meta(description="Absolute path of the network namespace.")] = None
    pid: Annotated[
        Annotated[int, Meta(ge=1, le=1 << 22)] | None,
        Meta(description="A process in the network namespace."),
    ] = None
    cgroup: Annotated[str | None, Meta(description="Not supported yet.")] = None
    splice: Annotated[
        bool, Meta(description="Off for workloads that cannot bear spliced sockets (docs/operations.md).")
    ] = True


class EndpointsFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file, as written."""

    endpoints: Annotated[list[EndpointEntry], Meta(description="Every workload that rules may speak of.")]


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One workload, checked.

    `namespace` is empty for a node.  `netns` is the path of its network namespace, and None where it is a
    peer that is not enforced here; where the file named a process, it is that process's entry in /proc, which
    goes when the process does.
    """

    name: str
    namespace: str
    labels: Mapping[str, str]
    addresses: tuple[IPAddress, ...]
    ports: Mapping[str, int]
    netns: str | None
    splice: bool

    @property
    def local(self) -> bool:
        """True where the endpoint is enforced on this node."""
        return self.netns is not None

    @property
    def key(self) -> str:
        """The name that logs, metrics and identities use: `namespace/name`, of a node its name alone."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name

    def workload(self) -> Workload:
        """Give it as the policy knows it."""
        return Workload(self.name, self.namespace, self.labels, self.addresses, self.ports, self.local)


def load(path: str | Path) -> tuple[Endpoint, ...]:
    """Read and check an endpoints file.

    Raises FileError with every mistake in it.
    """
    return parse(read_text(path), str(path))


def parse(text: str, file: str) -> tuple[Endpoint, ...]:
    """Check the text of an endpoints file; `file` names it in the FileError."""
    return tuple(_endpoint(entry) for entry in decode(text, file, EndpointsFile, _checks).endpoints)


def _endpoint(entry: EndpointEntry) -> Endpoint:
    return Endpoint(
        name=entry.name,
        namespace=_namespace(entry),
        labels=entry.labels,
        addresses=tuple(ipaddress.ip_address(address) for address in entry.addresses),
        ports=entry.ports,
        netns=entry.netns if entry.pid is None else f"/proc/{entry.pid}/ns/net",
        splice=entry.splice,
    )


def _checks(file: EndpointsFile) -> Iterator[Mistake]:
    """Yield what the types alone do not see."""
    for index, entry in enumerate(file.endpoints):
        pointer = f"/endpoints/{index}"
        yield from _names(entry, pointer)
        yield from _labels(entry, pointer)
        yield from _place(entry, pointer)
        yield from _addresses(entry, pointer)
    yield from _twice(file.endpoints)


def _names(entry: EndpointEntry, pointer: str) -> Iterator[Mistake]:
    if not _NAME.fullmatch(entry.name):
        yield Mistake(f"{pointer}/name", "not a workload's name", _NAME_MEND)
    if not (entry.namespace is None or _NAME.fullmatch(entry.namespace) or _says_no_namespace(entry)):
        yield Mistake(f"{pointer}/namespace", "not a namespace", _NAME_MEND)
    for name in entry.ports:
        if not _PORT_NAME.fullmatch(name):
            mend = "use 1 to 15 lower-case letters, digits and single '-', with a letter (RFC 6335)"
            yield Mistake(f"{pointer}/ports/{token(name)}", f'"{name}" is not a port name', mend)


def _says_no_namespace(entry: EndpointEntry) -> bool:
    """Whether it is a host's, which stands in none."""
    return entry.namespace == "" and any(key.startswith("reserved:") for key in entry.labels)


def _labels(entry: EndpointEntry, pointer: str) -> Iterator[Mistake]:
    for key, value in entry.labels.items():
        place = f"{pointer}/labels/{token(key)}"
        if key.startswith("reserved:"):
            yield from _reserved(entry, key, place)
        elif not _LABEL_KEY.fullmatch(key):
            mend = "use printable ASCII without space; before a ':' stands a source, such as k8s or container"
            yield Mistake(place, "not a label key", mend)
        elif key.startswith(_KUBERNETES) and key.removeprefix(_KUBERNETES) in entry.labels:
            yield Mistake(place, "the same label as the one without a source", "remove one of the two")
        elif not _LABEL_VALUE.fullmatch(value):
            yield Mistake(place, "not a label value", "use printable ASCII, 253 characters at most")
        elif key.removeprefix(_KUBERNETES) == NAMESPACE_LABEL and value != _namespace(entry):
            mend = f'remove it, or make "namespace" say {value!r}'
            yield Mistake(place, "another namespace than the endpoint's own", mend)


def _reserved(entry: EndpointEntry, key: str, place: str) -> Iterator[Mistake]:
    """Yield what is wrong with a label that makes a peer a host."""
    if key not in RESERVED_LABELS and not (key == OUTSIDE and API_SERVER in entry.labels):
        yield Mistake(place, f'"{key}" is not for endpoints', f"known: {', '.join(RESERVED_LABELS)}")
    elif entry.namespace:
        yield Mistake(place, "a host stands in no namespace", 'remove "namespace"')
    elif entry.netns is not None or entry.pid is not None:
        yield Mistake(place, "a host is not enforced here", "remove netns and pid")


def _namespace(entry: EndpointEntry) -> str:
    """Give the namespace that an entry means."""
    if any(key.startswith("reserved:") for key in entry.labels):
        return ""
    return "default" if entry.namespace is None else entry.namespace


def _place(entry: EndpointEntry, pointer: str) -> Iterator[Mistake]:
    """Yield what is wrong with where the endpoint is."""
    named = [word for word in ("netns", "pid", "cgroup") if getattr(entry, word) is not None]
    if entry.cgroup is not None:
        mend = "name the network namespace by netns or pid, or remove the key to have a peer only"
        yield Mistake(f"{pointer}/cgroup", "endpoints by cgroup are not supported yet", mend)
    elif len(named) > 1:
        yield Mistake(f"{pointer}/{named[1]}", "a second place for one endpoint", "keep netns or pid")
    if entry.netns is not None and (not entry.netns.startswith("/") or "\0" in entry.netns):
        mend = f"such as /run/netns/{entry.name}"
        yield Mistake(f"{pointer}/netns", "not an absolute path", mend)


def _addresses(entry: EndpointEntry, pointer: str) -> Iterator[Mistake]:
    for index, text in enumerate(entry.addresses):
        if wrong := _address_mistake(text):
            yield Mistake(f"{pointer}/addresses/{index}", *wrong)


def _address_mistake(text: str) -> tuple[str, str] | None:
    """Say why `text` cannot be a workload's address, and the mend."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        mend = "write the address without its prefix length" if "/" in text else "such as 10.0.0.2"
        return f'"{text}" is not an IP address', mend
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return "an IPv4-mapped address", f"write {address.ipv4_mapped}"
        if address.scope_id is not None:
            return "an address with a zone", "leave the '%' and what follows out"
    if address.is_unspecified or address.is_multicast or address.is_loopback:
        return f"{address} is no one workload's address", "name the address that peers see"
    return None


def _twice(entries: list[EndpointEntry]) -> Iterator[Mistake]:
    """Yield what is claimed twice: a name, a namespace or an address must mean one identity."""
    claimed: dict[tuple[str, str], str] = {}
    for pointer, kind, value in _claims(entries):
        if (first := claimed.setdefault((kind, value), pointer)) != pointer:
            yield Mistake(pointer, f"{value} is already at {first}", _TWICE_MEND[kind])


_TWICE_MEND = {
    "name": "rename or remove one",
    "netns": "one network namespace is one endpoint",
    "address": "an address is one workload's; pods on the host's network are the entity host",
}


def _claims(entries: list[EndpointEntry]) -> Iterator[tuple[str, str, str]]:
    """Yield (pointer, kind, value) of everything that may stand only once in the file."""
    for index, entry in enumerate(entries):
        pointer = f"/endpoints/{index}"
        yield f"{pointer}/name", "name", f"{_namespace(entry)}/{entry.name}"
        if entry.netns is not None:
            yield f"{pointer}/netns", "netns", entry.netns
        for place, address in enumerate(entry.addresses):
            yield f"{pointer}/addresses/{place}", "address", _canonical(address)


def _canonical(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return text
