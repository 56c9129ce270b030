"""The policy as the kernel side reads it: addresses, defaults and ports under one generation number.

A revision is written beside the one in force, under a generation of its own; then one 32-bit word is changed and
every program decides by the new one. No decision ever mixes two.
"""

from __future__ import annotations

import ctypes as ct
import errno
import os
from collections.abc import Iterator, Sequence
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
from sockmap.syscall import map_delete_batch, map_update, map_update_batch

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


@dataclass(frozen=True, slots=True)
class _Batch:
    """Elements of one map: keys and values packed one behind the other."""

    map_fd: int
    keys: bytes
    count: int


class Prepared:
    """A revision that is in the maps, and that no program decides by yet, or any more."""

    __slots__ = ("generation", "written")

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.written: list[_Batch] = []


class PolicyMaps:
    """Writes revisions into the maps ``control``, ``identities``, ``defaults`` and ``policy``.

    What is large (:meth:`prepare`, :meth:`discard`) touches no revision in force and may be done on any thread;
    :meth:`put_in_force` is one write.
    """

    def __init__(self, control: int, identities: int, defaults: int, policy: int, host_netns: int) -> None:
        self._control, self._identities, self._defaults, self._policy = control, identities, defaults, policy
        self._host_netns = host_netns
        self._generations = count(1)
        self._in_force = Prepared(0)

    def prepare(self, tables: Tables) -> Prepared:
        """Write a revision beside the one in force.

        Raises:
            OSError: ENOSPC or E2BIG: it does not fit there; nothing of it stays.
        """
        prepared = Prepared(next(self._generations))
        try:
            self.extend(prepared, tables)
        except OSError:
            self.discard(prepared)
            raise
        return prepared

    def extend(self, prepared: Prepared, tables: Tables) -> None:
        """Write more of a revision: of endpoints that it does not know yet, whose defaults are written last.

        Raises:
            OSError: ENOSPC or E2BIG: it does not fit.
        """
        generation = prepared.generation
        for map_fd, elements in (
            (self._identities, self._of_prefixes(tables, generation)),
            (self._policy, self._of_entries(tables, generation)),
            (self._defaults, self._of_defaults(tables, generation)),
        ):
            _write(map_fd, list(elements), prepared.written)

    def put_in_force(self, prepared: Prepared) -> Prepared:
        """Have every program decide by a revision; return the one before, to be discarded."""
        map_update(self._control, ct.c_uint32(0), Control(prepared.generation, 0, self._host_netns))
        before, self._in_force = self._in_force, prepared
        return before

    @staticmethod
    def discard(prepared: Prepared) -> None:
        """Remove a revision that is not in force."""
        for batch in prepared.written:
            _remove(batch)
        prepared.written.clear()

    def apply(self, tables: Tables) -> int:
        """Put a revision in force and remove the one before; return its generation.

        Raises:
            OSError: ENOSPC or E2BIG: it does not fit beside the one in force, which then stays.
        """
        prepared = self.prepare(tables)
        self.discard(self.put_in_force(prepared))
        return prepared.generation

    def _of_prefixes(self, tables: Tables, generation: int) -> Iterator[_Element]:
        for network, identity in tables.prefixes:
            yield _identity_key(generation, network), ct.c_uint32(identity)

    def _of_entries(self, tables: Tables, generation: int) -> Iterator[_Element]:
        for entry in tables.entries:
            value = PolicyValue(entry.action)
            for port, bits in port_prefixes(entry.first_port, entry.last_port):
                yield _policy_key(generation, entry, port, bits), value

    def _of_defaults(self, tables: Tables, generation: int) -> Iterator[_Element]:
        for endpoint, actions in tables.defaults.items():
            defaults = Defaults((ct.c_uint32 * 2)(*actions), tables.host_identity, 0)
            yield DefaultsKey(generation, endpoint), defaults


_Element = tuple[ct.Structure, ct.Structure | ct.c_uint32]


def _write(map_fd: int, elements: Sequence[_Element], written: list[_Batch]) -> None:
    """Write elements with one call, and note what came to be there, also where not all did."""
    if not elements:
        return
    keys = b"".join(bytes(key) for key, _ in elements)
    values = b"".join(bytes(value) for _, value in elements)
    done = map_update_batch(map_fd, keys, values, len(elements))
    written.append(_Batch(map_fd, keys[: done * (len(keys) // len(elements))], done))
    if done < len(elements):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _remove(batch: _Batch) -> None:
    size = len(batch.keys) // batch.count if batch.count else 0
    done = 0
    while done < batch.count:
        # A call stops at a key that is not there, such as one that was written twice: the next begins behind it.
        done += map_delete_batch(batch.map_fd, batch.keys[done * size :], batch.count - done) + 1


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
