"""Every table is bounded: what happens to a flow that finds one full, and that it recovers."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator
from ipaddress import IPv4Network

import pytest
from kernel_rig import (
    ANNOUNCE,
    DENY,
    EGRESS,
    INGRESS,
    PASS,
    REDIRECT,
    SPLICE,
    UDP,
    Flow,
    Rig,
    Rule,
    abort,
    eventually,
    receive,
)

from kproxy.demo.network import Network
from sockmap.hooks import Hooks
from sockmap.layout import NO_SLOT, Counter, SlotMode
from sockmap.tables import Tables

pytestmark = pytest.mark.bpf

SLOTS = 16  # four flows, of which an endpoint has half
PORTS = itertools.count(20_000)


@pytest.fixture(scope="module")
def module_rig(network: Network) -> Iterator[Rig]:
    """A node with room for four spliced flows, two of each endpoint."""
    with Hooks(slots=SLOTS) as hooks:
        rig = Rig(network, hooks)
        try:
            for name in ("client", "server"):
                rig.enforce(network[name])
            yield rig
        finally:
            rig.close()


def flow(rig: Rig) -> Flow:
    """One more flow, on a port of its own."""
    return rig.egress("client", "server", port=next(PORTS), flags=SPLICE | ANNOUNCE)


def exchange(one: Flow) -> None:
    """Some bytes on all four ways."""
    for _, sender, reader in one.ways():
        sender.sendall(b"x" * 1000)
        assert receive(reader, 1000) == b"x" * 1000


def close(one: Flow) -> None:
    """End it."""
    for sock in (one.c, one.p, one.u, one.s):
        abort(sock)


def test_a_flow_that_finds_no_slot_goes_by_tcp(rig: Rig) -> None:
    """Counted, correct, and only until another flow has ended."""
    rig.policy(Rule("client", EGRESS, REDIRECT))
    first, second = flow(rig), flow(rig)
    with rig.counting() as counted:
        third = flow(rig)
    assert counted[Counter.NO_SLOT] > 0
    assert set(third.slots.values()) == {NO_SLOT}
    for one in (first, second, third):
        exchange(one)
    close(first)
    fourth = flow(rig)
    assert NO_SLOT not in fourth.slots.values()
    exchange(fourth)


def test_one_endpoint_leaves_half_to_the_others(rig: Rig) -> None:
    """The client's pod has all the flows it may have spliced, and more: the server's are spliced as ever."""
    rig.policy(
        Rule("client", EGRESS, REDIRECT, peer="server"), Rule("server", INGRESS, REDIRECT, peer="other")
    )
    greedy = [flow(rig) for _ in range(4)]
    assert [NO_SLOT in one.slots.values() for one in greedy] == [False, False, True, True]
    rig.marks.add_neighbour(rig.namespace("other").cookie)
    try:
        for _ in range(2):
            one = rig.ingress("other", "server", port=next(PORTS))
            assert NO_SLOT not in one.slots.values()
            exchange(one)
    finally:
        rig.marks.remove_neighbour(rig.namespace("other").cookie)


def test_slots_are_used_again_and_again(rig: Rig) -> None:
    """Ten times more flows than slots, one after the other: all are spliced, none inherits anything."""
    rig.policy(Rule("client", EGRESS, REDIRECT))
    for _ in range(10 * SLOTS // 4):
        one = flow(rig)
        assert NO_SLOT not in one.slots.values()
        exchange(one)
        for name in one.slots:
            slot = rig.splicer.snapshot(one.slots[name])
            assert (slot.bytes, slot.messages, slot.tcp_bytes) == (1000, 1, 0)
        close(one)
        rig.pump()


def test_a_full_sockhash_is_counted_and_costs_no_slot(rig: Rig) -> None:
    """Sockets stay in it until they are closed: an application that keeps dead ones fills it."""
    rig.policy(Rule("client", EGRESS, REDIRECT))
    kept: list[Flow] = []
    with rig.counting() as counted:
        while not rig.hooks.counters.read()[Counter.NOT_IN_SOCKHASH]:
            one = flow(rig)
            kept.append(one)
            abort(one.p)
            abort(one.u)
            eventually(
                lambda: owned(rig) == 0, "the slots are free; C and S are closed by their peers' resets"
            )
            assert len(kept) < 10 * SLOTS
    assert counted[Counter.NO_SLOT] == 0
    one = flow(rig)
    exchange(one)
    assert NO_SLOT in one.slots.values()
    close(one)
    for old in kept:
        close(old)
    eventually(lambda: NO_SLOT not in spliced_flow(rig).slots.values(), "there is room again")


def spliced_flow(rig: Rig) -> Flow:
    """One more flow, ended at once."""
    one = flow(rig)
    exchange(one)
    close(one)
    return one


def owned(rig: Rig) -> int:
    """How many slots have an owner."""
    everyone = (rig.splicer.snapshot(slot) for slot in range(SLOTS))
    return sum(slot.cookie != 0 and slot.mode_generation >> 32 != SlotMode.CLOSED for slot in everyone)


def test_a_policy_that_does_not_fit_leaves_the_old_one_in_force(rig: Rig) -> None:
    """Full half way through the address table: the calls are answered as before, and the next policy fits."""
    rig.policy(Rule("client", EGRESS, REDIRECT))
    wide = tuple((network, 9) for network in IPv4Network("10.0.0.0/8").subnets(new_prefix=24))[:65_000]
    huge = Tables(prefixes=wide, defaults={0: (PASS, PASS), 1: (PASS, PASS)}, entries=(), host_identity=1)
    rig.hooks.policy.apply(huge)
    with pytest.raises(OSError, match="No space left"):
        rig.hooks.policy.apply(huge)
    assert rig.socket("client").connect_ex((str(rig.network["server"].v4), next(PORTS))) != 0
    rig.policy(Rule("client", EGRESS, REDIRECT))
    exchange(flow(rig))


def test_datagrams_flood_their_own_table(rig: Rig) -> None:
    """More pairs of ports than it remembers: the oldest answers are forgotten, the newest come in."""
    rig.policy(Rule("client", EGRESS, PASS, protocol=UDP), defaults={"client": (DENY, DENY)})
    sender = rig.socket("client", kind=socket.SOCK_DGRAM)
    address = str(rig.network["other"].v4)
    server = rig.socket("other", kind=socket.SOCK_DGRAM)
    server.bind(("0.0.0.0", 0))
    sender.setblocking(False)
    for port in range(1, 65536):
        sender.sendto(b"", (address, port))
    sender.sendto(b"question", (address, server.getsockname()[1]))
    data, whence = server.recvfrom(100)
    while not data:
        data, whence = server.recvfrom(100)
    server.sendto(b"answer", whence)
    sender.settimeout(5)
    assert sender.recv(100) == b"answer"
