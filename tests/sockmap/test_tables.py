"""Policy as map elements: port intervals as prefixes, addresses as longest-prefix keys, revisions side by side."""

from __future__ import annotations

import ctypes as ct
import errno
import itertools
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sockmap import tables
from sockmap.layout import Action, Address, Direction, PolicyKey, mapped
from sockmap.tables import Entry, PolicyMaps, Tables, _identity_key, _policy_key, port_prefixes

PORTS = 1 << 16
INTERVALS = st.tuples(st.integers(0, PORTS - 1), st.integers(0, PORTS - 1)).map(sorted)


def ports_of(port: int, bits: int) -> range:
    """The ports that one prefix matches."""
    return range(port, port + (1 << 16 - bits))


@given(INTERVALS)
def test_prefixes_cover_an_interval_exactly_and_once(interval: list[int]) -> None:
    """They are aligned, follow each other without gap or overlap, and begin and end with the interval."""
    first, last = interval
    following = first
    for port, bits in port_prefixes(first, last):
        assert port % (1 << 16 - bits) == 0, "a prefix has no bit behind its length"
        assert port == following
        following = ports_of(port, bits).stop
    assert following == last + 1


@given(INTERVALS)
def test_there_are_no_fewer_prefixes_that_would_do(interval: list[int]) -> None:
    """Two neighbours that were halves of one prefix could be one: there are none, so the cover is minimal."""
    found = list(port_prefixes(*interval))
    for (port, bits), (following, others) in itertools.pairwise(found):
        halves = bits == others and port % (2 << 16 - bits) == 0 and following == ports_of(port, bits).stop
        assert not halves


@pytest.mark.parametrize(
    ("first", "last", "count"), [(0, 65535, 1), (80, 80, 1), (1, 65534, 30), (1024, 65535, 6), (5, 4, 0)]
)
def test_how_many_prefixes_an_interval_takes(first: int, last: int, count: int) -> None:
    """The worst interval takes 30, the usual ones a handful, an empty one none."""
    assert len(list(port_prefixes(first, last))) == count


@pytest.mark.parametrize(
    ("network", "bits", "address"),
    [
        ("0.0.0.0/0", 32 + 96, "::ffff:0.0.0.0"),
        ("10.1.2.0/24", 32 + 120, "::ffff:10.1.2.0"),
        ("10.1.2.3/32", 32 + 128, "::ffff:10.1.2.3"),
        ("::/0", 32, "::"),
        ("2001:db8::/32", 32 + 32, "2001:db8::"),
        ("2001:db8::1/128", 32 + 128, "2001:db8::1"),
    ],
)
def test_an_address_range_is_a_key_behind_its_generation(network: str, bits: int, address: str) -> None:
    """The prefix length counts the generation's 32 bits, and 96 more for IPv4, which is kept IPv4-mapped."""
    key = _identity_key(0x01020304, ip_network(network))
    assert key.prefix_length == bits
    assert key.generation == 0x01020304
    assert bytes(key.address.bytes) == IPv6Address(address).packed


@given(st.integers(0, 2**128 - 1), st.integers(0, 128), st.integers(0, 2**128 - 1))
def test_a_key_matches_just_the_addresses_of_its_range(base: int, length: int, other: int) -> None:
    """Compared bit by bit, as the kernel's trie does, a key matches what the network contains."""
    network = IPv6Network((base, length), strict=False)
    key = _identity_key(7, network)
    bits = key.prefix_length - 32
    shift = 128 - bits
    held = int.from_bytes(bytes(key.address.bytes), "big")
    for address in (other, base ^ 1, base):
        assert (held >> shift == address >> shift) == (IPv6Address(address) in network)


def test_a_policy_key_is_exact_up_to_the_port() -> None:
    """112 bits of generation, endpoint, identity, direction and protocol, then the port in network order."""
    key = _policy_key(9, Entry(3, Direction.EGRESS, 0x01020304, 6, 80, 95, Action.DENY), 80, 12)
    assert ct.sizeof(PolicyKey) == 20
    assert key.prefix_length == 112 + 12
    assert bytes(key)[4:] == (9).to_bytes(4, "little") + (3).to_bytes(4, "little") + bytes(
        [4, 3, 2, 1, 1, 6, 0, 80]
    )


def test_addresses_are_kept_mapped_and_come_back_as_they_were() -> None:
    """IPv4 and its IPv4-mapped form are one key; both come back as IPv4."""
    assert mapped(IPv4Address("10.0.0.1")) == mapped(IPv6Address("::ffff:10.0.0.1"))
    for address in (IPv4Address("10.0.0.1"), IPv6Address("2001:db8::1")):
        assert Address.of(address).value() == address
    assert Address.of(IPv6Address("::ffff:10.0.0.1")).value() == IPv4Address("10.0.0.1")


class Maps:
    """Maps in memory, in place of bpf(2): what is in them, and what happened in which order."""

    def __init__(self, room: int = 1000) -> None:
        self.elements: dict[tuple[int, bytes], bytes] = {}
        self.log: list[tuple[str, int]] = []
        self.room = room

    def update(self, fd: int, key: ct._CData, value: ct._CData) -> None:
        """BPF_MAP_UPDATE_ELEM; E2BIG where there is no room."""
        if len(self.elements) >= self.room and (fd, bytes(key)) not in self.elements:
            raise OSError(errno.E2BIG, "full")
        self.log.append(("update", fd))
        self.elements[fd, bytes(key)] = bytes(value)

    def update_batch(self, fd: int, keys: bytes, values: bytes, count: int) -> int:
        """BPF_MAP_UPDATE_BATCH; how many there was room for."""
        size, value_size = len(keys) // count, len(values) // count
        for done in range(count):
            if len(self.elements) >= self.room:
                return done
            self.log.append(("update", fd))
            value = values[done * value_size : (done + 1) * value_size]
            self.elements[fd, keys[done * size : (done + 1) * size]] = value
        return count

    def delete_batch(self, fd: int, keys: bytes, count: int) -> int:
        """BPF_MAP_DELETE_BATCH."""
        size = len(keys) // count if count else 0
        for done in range(count):
            self.log.append(("delete", fd))
            del self.elements[fd, keys[done * size : (done + 1) * size]]
        return count


CONTROL, IDENTITIES, DEFAULTS, POLICY = 1, 2, 3, 4


@pytest.fixture
def maps(monkeypatch: pytest.MonkeyPatch) -> Maps:
    """Maps in memory under the module that writes them."""
    found = Maps()
    monkeypatch.setattr(tables, "map_update", found.update)
    monkeypatch.setattr(tables, "map_update_batch", found.update_batch)
    monkeypatch.setattr(tables, "map_delete_batch", found.delete_batch)
    return found


def revision(ports: range) -> Tables:
    """A revision with an entry for each port."""
    return Tables(
        prefixes=((ip_network("0.0.0.0/0"), 2), (ip_network("::/0"), 2)),
        defaults={1: (Action.PASS, Action.DENY)},
        entries=tuple(Entry(1, Direction.EGRESS, 2, 6, port, port, Action.PASS) for port in ports),
        host_identity=1,
    )


def test_a_revision_comes_into_force_by_one_write_and_then_the_old_one_goes(maps: Maps) -> None:
    """All elements are there before the generation changes, and none is deleted before that."""
    policy = PolicyMaps(CONTROL, IDENTITIES, DEFAULTS, POLICY, host_netns=1)
    first = policy.apply(revision(range(3)))
    maps.log.clear()
    second = policy.apply(revision(range(5)))
    assert second > first
    switch = maps.log.index(("update", CONTROL))
    assert {word for word, _ in maps.log[:switch]} == {"update"}
    assert {word for word, _ in maps.log[switch + 1 :]} == {"delete"}
    assert len(maps.elements) == 1 + 2 + 1 + 5, (
        "control, two prefixes, a default, five entries: of one revision"
    )


def test_a_revision_that_does_not_fit_leaves_the_old_one_whole(maps: Maps) -> None:
    """E2BIG half way: what was written of it goes again, and the generation in force is as before."""
    policy = PolicyMaps(CONTROL, IDENTITIES, DEFAULTS, POLICY, host_netns=1)
    policy.apply(revision(range(3)))
    before = dict(maps.elements)
    maps.room = len(before) + 4
    with pytest.raises(OSError, match="No space left"):
        policy.apply(revision(range(5)))
    assert maps.elements == before
    maps.room = 1000
    policy.apply(revision(range(5)))
    assert len(maps.elements) == 1 + 2 + 1 + 5
