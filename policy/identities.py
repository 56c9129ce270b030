"""Who is who: addresses into identities, and which identities each selector means.

An identity is a class of peers that no rule tells apart: its number is derived from the selectors that match
it, so it is the same in every revision in which it means the same, and however many workloads there are, the
policy map holds one entry for each class. Workloads come and go without renumbering the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from policy import labels
from policy.errors import AddressConflict
from policy.labels import Label
from policy.selectors import CidrBlock, LabelIndex, Network, PeerSelector, Selector, digest, members_of

Address = IPv4Address | IPv6Address

HOST = 1
"""The number of this node's own identity, as in Cilium (reserved identities)."""
FIRST_NUMBER = 256
"""Numbers below are reserved, as in Cilium."""
_NUMBERS = (1 << 31) - FIRST_NUMBER

_WORLD = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}


@dataclass(frozen=True, slots=True)
class Workload:
    """A workload, or another host, that is known by its labels and addresses.

    `ports` are its named ports. `local`: it is enforced on this node. A node or an API server has a
    `reserved:` label (`reserved:remote-node`) and no namespace.
    """

    name: str
    namespace: str
    labels: Mapping[str, str]
    addresses: tuple[Address, ...] = ()
    ports: Mapping[str, int] = field(default_factory=dict)
    local: bool = False

    @property
    def full_name(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


@dataclass(frozen=True, slots=True)
class Node:
    """This node: its own addresses, and whether it may always reach its own workloads (for probes)."""

    addresses: tuple[Address, ...] = ()
    allow_localhost: str = "always"
    """`always` or `policy` (Cilium, --allow-localhost)."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What an address is to the rules, and to people."""

    number: int
    kind: str
    """`workload`, `host`, `world` or `cidr`."""
    name: str
    """`hr/turtletweets`, `host`, `world`, `cidr:10.0.0.0/8`."""
    labels: frozenset[Label] = frozenset()


@dataclass(frozen=True, slots=True)
class Prefix:
    """One line of the table from addresses to identities; the longest prefix counts."""

    network: Network
    identity: int


@dataclass(frozen=True, slots=True)
class Peer:
    """A class of peers: its number, its named ports, and one member's name for messages."""

    number: int
    ports: tuple[tuple[str, int], ...]
    example: str


@dataclass(frozen=True, slots=True)
class _Known:
    """A subject of selection: a workload, the host, or a network."""

    kind: str
    name: str
    labels: frozenset[Label]
    networks: tuple[Network, ...]
    ports: tuple[tuple[str, int], ...] = ()
    key: tuple[str, str] = ("", "")


class Identities:
    """All identities of a revision, and for each selector of its rules the numbers of those it matches."""

    def __init__(
        self,
        workloads: Iterable[Workload],
        node: Node,
        selectors: Iterable[PeerSelector],
        port_names: frozenset[str],
    ) -> None:
        unique = sorted(set(selectors), key=lambda one: (type(one).__name__, str(one)))
        blocks = [one for one in unique if isinstance(one, CidrBlock)]
        known = _known(workloads, node, port_names)
        known += _outside(blocks, {network for one in known for network in one.networks})
        matched = _matches(known, unique, blocks)
        numbers = _numbers(known, matched)
        self.peers = _peers(known, numbers)
        self.numbers: dict[PeerSelector, frozenset[int]] = {
            one: frozenset(numbers[i] for i in members) for one, members in matched.items()
        }
        identities = [Identity(numbers[i], one.kind, one.name, one.labels) for i, one in enumerate(known)]
        self.host = identities[0]
        self.world = next(identity for identity in identities if identity.kind == "world")
        members: dict[int, list[str]] = {}
        for identity in identities:
            members.setdefault(identity.number, []).append(identity.name)
        self.members = {number: tuple(dict.fromkeys(names)) for number, names in members.items()}
        self.by_name = {
            one.key: identity for one, identity in zip(known, identities, strict=True) if one.key[1]
        }
        self._by_network = {
            network: identity
            for one, identity in zip(known, identities, strict=True)
            for network in one.networks
        }
        self.prefixes = tuple(Prefix(network, one.number) for network, one in self._by_network.items())
        self._lengths = {
            version: sorted({n.prefixlen for n in self._by_network if n.version == version}, reverse=True)
            for version in (4, 6)
        }

    def identify(self, address: Address) -> Identity:
        """The identity of an address."""
        address = _plain(address)
        make = IPv4Network if isinstance(address, IPv4Address) else IPv6Network
        bits = address.max_prefixlen
        value = int(address)
        for length in self._lengths[address.version]:
            found = self._by_network.get(make((value >> (bits - length) << (bits - length), length)))
            if found is not None:
                return found
        raise AssertionError("0.0.0.0/0 and ::/0 are always in the table")


def _plain(address: Address) -> Address:
    """An IPv4 address inside an IPv6 one (RFC 4291 section 2.5.5.2) is the IPv4 address."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _network(address: Address) -> Network:
    """The network of one address, made from its number: ten thousand texts would take a tenth of a second."""
    plain = _plain(address)
    make = IPv4Network if isinstance(plain, IPv4Address) else IPv6Network
    return make((int(plain), plain.max_prefixlen))


def _known(workloads: Iterable[Workload], node: Node, port_names: frozenset[str]) -> list[_Known]:
    """The host and the workloads. An address of the node is the host's, as in Cilium."""
    host = tuple(map(_network, node.addresses))
    known = [_Known("host", "host", labels.reserved("host"), host)]
    owner: dict[Network, str] = {}
    for workload in workloads:
        own = tuple(n for n in map(_network, workload.addresses) if n not in host)
        for network in own:
            first = owner.setdefault(network, workload.full_name)
            if first != workload.full_name:
                raise AddressConflict(
                    f"{network.network_address} is {first}'s and {workload.full_name}'s address"
                )
        ports = tuple(sorted((n.lower(), p) for n, p in workload.ports.items() if n.lower() in port_names))
        all_labels = labels.of_workload(workload.namespace, workload.labels)
        key = (workload.namespace, workload.name)
        known.append(_Known("workload", workload.full_name, all_labels, own, ports, key))
    return known


def _outside(blocks: Iterable[CidrBlock], taken: set[Network]) -> list[_Known]:
    """The world, and each network that rules speak of, unless it is exactly one known address."""
    networks = {network for block in blocks for network in (block.network, *block.excepts)} - taken
    known = []
    for network in sorted(networks | set(_WORLD.values()), key=lambda n: (n.version, n)):
        world = network == _WORLD[network.version]
        known.append(
            _Known(
                "world" if world else "cidr",
                "world" if world else f"cidr:{network}",
                labels.reserved("world", f"world-ipv{network.version}"),
                (network,),
            )
        )
    return known


def _matches(
    known: list[_Known], selectors: Iterable[PeerSelector], blocks: list[CidrBlock]
) -> dict[PeerSelector, list[int]]:
    """For each selector, which of the known it matches, as positions in the list."""
    by_labels = [one for one in selectors if isinstance(one, Selector)]
    index = LabelIndex([one.labels for one in known], by_labels)
    matched: dict[PeerSelector, list[int]] = {one: members_of(index.matching(one)) for one in by_labels}
    for block in blocks:
        matched[block] = []
    by_network: dict[Network, list[CidrBlock]] = {}
    for block in blocks:
        by_network.setdefault(block.network, []).append(block)
    lengths = {network.prefixlen for block in blocks for network in (block.network, *block.excepts)}
    for i, subject in enumerate(known):
        if subject.kind in ("cidr", "world"):
            for block in _covering(subject.networks[0], by_network, lengths):
                matched[block].append(i)
    return matched


def _covering(
    network: Network, by_network: dict[Network, list[CidrBlock]], lengths: set[int]
) -> list[CidrBlock]:
    """The blocks that hold all of a network; `lengths` are those of all their prefixes."""
    above: set[Network] = {network}
    above.update(network.supernet(new_prefix=length) for length in lengths if length < network.prefixlen)
    return [
        block
        for wider in above & by_network.keys()
        for block in by_network[wider]
        if above.isdisjoint(block.excepts)
    ]


def _numbers(known: list[_Known], matched: dict[PeerSelector, list[int]]) -> list[int]:
    """A number for each, equal where the same selectors match and the same port names mean the same."""
    signatures: list[list[bytes]] = [[] for _ in known]
    for one, members in matched.items():
        own = digest(one)
        for i in members:
            signatures[i].append(own)
    classes: dict[bytes, list[int]] = {}
    for i, subject in enumerate(known):
        # What kind of peer it is stays apart as well, so that names and metrics mean one thing.
        seed = f"{subject.kind} {subject.ports}".encode()
        classes.setdefault(blake2b(b"".join([seed, *sorted(signatures[i])])).digest(), []).append(i)
    numbers = [HOST] * len(known)
    taken = {HOST}
    for signature in sorted(classes):
        if known[classes[signature][0]].kind == "host":
            continue
        number = FIRST_NUMBER + int.from_bytes(signature[:8], "big") % _NUMBERS
        while number in taken:
            number = FIRST_NUMBER + (number + 1 - FIRST_NUMBER) % _NUMBERS
        taken.add(number)
        for i in classes[signature]:
            numbers[i] = number
    return numbers


def _peers(known: list[_Known], numbers: list[int]) -> dict[int, Peer]:
    peers: dict[int, Peer] = {}
    for one, number in zip(known, numbers, strict=True):
        peers.setdefault(number, Peer(number, one.ports, one.name))
    return peers
