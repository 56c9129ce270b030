"""The policy as the kernel side reads it: addresses, defaults and ports under one generation number.

A revision is written beside the one in force, under a generation of its own; then one 32-bit word is changed and
every program decides by the new one. No decision ever mixes two.
"""

from __future__ import annotations

import ctypes as ct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from itertools import count

from sockmap.layout import (
    Action,
    Address,
    Control,
    Defaults,
    DefaultsKey,
    Direction,
    IdentityKey,
    PolicyKey,
    PolicyValue,
    mapped,
)
from sockmap.syscall import map_delete, map_update

_GENERATION_BITS = 32
_EXACT_BITS = 112  # of PolicyKey before the port
_IPV4_MAPPED_BITS = 96
PORT_BITS = 16

IPNetwork = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Entry:
    """One port interval of one endpoint, direction, identity and protocol; both ports are within."""

    endpoint: int
    direction: Direction
    identity: int
    protocol: int
    first_port: int
    last_port: int
    action: Action


@dataclass(frozen=True, slots=True)
class Tables:
    """A whole revision for this node.

    Attributes:
        prefixes: address ranges and the identity behind each; the longest match counts.
        defaults: per endpoint, what is done by (ingress, egress) where no entry matches.
        entries: what is done where one does; intervals of one key do not overlap.
        host_identity: the identity of a connection opened in the host's namespace.
    """

    prefixes: tuple[tuple[IPNetwork, int], ...]
    defaults: dict[int, tuple[Action, Action]]
    entries: tuple[Entry, ...]
    host_identity: int


def port_prefixes(first: int, last: int) -> Iterator[tuple[int, int]]:
    """Cut a port interval into (port, bits) prefixes, as few as there can be.

    >>> list(port_prefixes(80, 80)), list(port_prefixes(0, 65535)), list(port_prefixes(4, 7))
    ([(80, 16)], [(0, 0)], [(4, 14)])
    """
    while first <= last:
        size = first & -first or 1 << PORT_BITS
        while size > last - first + 1:
            size >>= 1
        yield first, PORT_BITS - size.bit_length() + 1
        first += size


class PolicyMaps:
    """Writes revisions into the maps ``control``, ``identities``, ``defaults`` and ``policy``."""

    def __init__(self, control: int, identities: int, defaults: int, policy: int, host_netns: int) -> None:
        self._control, self._identities, self._defaults, self._policy = control, identities, defaults, policy
        self._host_netns = host_netns
        self._generations = count(1)
        self._written: list[tuple[int, ct.Structure]] = []

    def apply(self, tables: Tables) -> int:
        """Put a revision in force and remove the one before; return its generation.

        Raises:
            OSError: ENOSPC or E2BIG: it does not fit beside the one in force, which then stays.
        """
        generation = next(self._generations)
        fresh: list[tuple[int, ct.Structure]] = []
        try:
            for map_fd, key, value in self._elements(tables, generation):
                map_update(map_fd, key, value)
                fresh.append((map_fd, key))
            control = Control(generation, 0, self._host_netns)
            map_update(self._control, ct.c_uint32(0), control)
        except OSError:
            self._delete(fresh)
            raise
        self._delete(self._written)
        self._written = fresh
        return generation

    def _elements(
        self, tables: Tables, generation: int
    ) -> Iterator[tuple[int, ct.Structure, ct.Structure | ct.c_uint32]]:
        for network, identity in tables.prefixes:
            yield self._identities, _identity_key(generation, network), ct.c_uint32(identity)
        for entry in tables.entries:
            value = PolicyValue(entry.action)
            for port, bits in port_prefixes(entry.first_port, entry.last_port):
                yield self._policy, _policy_key(generation, entry, port, bits), value
        for endpoint, actions in tables.defaults.items():
            defaults = Defaults((ct.c_uint32 * 2)(*actions), tables.host_identity, 0)
            yield self._defaults, DefaultsKey(generation, endpoint), defaults

    @staticmethod
    def _delete(keys: Iterable[tuple[int, ct.Structure]]) -> None:
        for map_fd, key in keys:
            map_delete(map_fd, key)


def _identity_key(generation: int, network: IPNetwork) -> IdentityKey:
    bits = network.prefixlen + (_IPV4_MAPPED_BITS if isinstance(network, IPv4Network) else 0)
    address = (ct.c_uint8 * 16).from_buffer_copy(mapped(network.network_address))
    return IdentityKey(_GENERATION_BITS + bits, generation, Address(address))


def _policy_key(generation: int, entry: Entry, port: int, bits: int) -> PolicyKey:
    be_port = (ct.c_uint8 * 2)(*port.to_bytes(2, "big"))
    return PolicyKey(
        _EXACT_BITS + bits,
        generation,
        entry.endpoint,
        entry.identity,
        entry.direction,
        entry.protocol,
        be_port,
    )
