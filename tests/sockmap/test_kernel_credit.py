"""Credit on real sockets: what a reader that does not read can be made to hold, and the way back from TCP."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from kernel_rig import (
    ANNOUNCE,
    EGRESS,
    REDIRECT,
    SPLICE,
    V4,
    V6,
    Family,
    Flow,
    Rig,
    Rule,
    eventually,
    memory,
    receive,
)
from test_splice import SENDERS, read_stream, send_stream, write_grant

from sockmap.credit import BUDGET, FIRST_GRANT, GRANT_MASK, MESSAGE_COST, OWN_BUDGET, tagged
from sockmap.layout import Counter, SlotMode

pytestmark = pytest.mark.bpf

WAYS = pytest.mark.parametrize("way", SENDERS)
BUFFER = 64 * 1024  # asked for; the kernel doubles it (socket(7))


def make(rig: Rig, family: Family = V4) -> Flow:
    """A flow with all four directions spliced."""
    rig.policy(Rule("client", EGRESS, REDIRECT))
    return rig.egress("client", "server", family=family, flags=SPLICE | ANNOUNCE)


def cost(rig: Rig, flow: Flow, way: str) -> int:
    """What a direction has redirected, in the currency of grants."""
    slot = rig.splicer.snapshot(flow.slots[way])
    return slot.bytes + slot.messages * MESSAGE_COST


def fill(rig: Rig, sock: socket.socket, size: int, most: int) -> int:
    """Send without blocking until nothing more is taken, with credit served meanwhile; how many bytes were."""
    sock.setblocking(False)
    sent, data = 0, b"x" * size
    full = 0
    while sent < most and full < 3:
        try:
            sent += sock.send(data)
            full = 0
        except BlockingIOError:
            full += 1
            time.sleep(0.01)
        rig.pump()
    sock.settimeout(10)
    return sent


@WAYS
@pytest.mark.parametrize(("size", "most"), [(1, 30_000), (200, 4_000_000), (65536, 16_000_000)])
def test_a_reader_that_never_reads_holds_no_more_than_the_first_grant(
    rig: Rig, way: str, size: int, most: int
) -> None:
    """Redirected bytes and their messages stay within it; the rest is TCP's, whose own back-pressure holds."""
    flow = make(rig)
    sender, reader = flow.way(way)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    taken = fill(rig, sender, size, most)
    slot = rig.splicer.snapshot(flow.slots[way])
    assert cost(rig, flow, way) <= FIRST_GRANT
    assert slot.granted & GRANT_MASK == FIRST_GRANT
    assert slot.mode_generation >> 32 == SlotMode.BY_TCP
    buffers = sum(
        sock.getsockopt(socket.SOL_SOCKET, option)
        for sock, option in ((sender, socket.SO_SNDBUF), (reader, socket.SO_RCVBUF))
    )
    assert rig.splicer._unread(flow.slots[way]) == memory(reader), (
        "sock_diag, where it is asked, says the same"
    )
    assert memory(reader) <= FIRST_GRANT + 2 * reader.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    if size > 1:
        assert taken < FIRST_GRANT + 4 * buffers, "and the sender was told to wait"


def test_without_credit_there_would_be_no_bound(rig: Rig) -> None:
    """The danger that credit is there for: with a grant that never ends, 64 MB sit in a queue of 128 KiB."""
    flow = make(rig)
    flow.p.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    slot = rig.splicer.snapshot(flow.slots["client"])
    write_grant(rig, flow.slots["client"], tagged(slot.mode_generation & 0xFFFFFFFF, GRANT_MASK))
    for _ in range(1000):
        flow.c.sendall(b"x" * 64_000)
    assert memory(flow.p) == 64_000_000


@WAYS
def test_who_reads_may_hold_more_but_never_more_than_the_budget(rig: Rig, way: str) -> None:
    """Trust grows with what was read, up to the budget; then the reader stops, and that is all it holds."""
    flow = make(rig)
    sender, reader = flow.way(way)
    budget = OWN_BUDGET if way in ("proxy", "upstream") else BUDGET
    for _ in range(budget // 1000):
        sender.sendall(b"x" * 1000)
        receive(reader, 1000)
        rig.pump()
    before = cost(rig, flow, way)
    assert before > budget
    granted = rig.splicer.snapshot(flow.slots[way]).granted & GRANT_MASK
    assert granted <= before + budget
    fill(rig, sender, 1000, 16_000_000)
    after = cost(rig, flow, way)
    assert budget // 4 < after - before <= budget
    assert rig.splicer.snapshot(flow.slots[way]).mode_generation >> 32 == SlotMode.BY_TCP


@pytest.mark.parametrize("family", [V4, V6], ids=lambda family: family.name)
@WAYS
def test_a_direction_comes_back_once_it_is_drained(rig: Rig, way: str, family: Family) -> None:
    """Fallen to TCP with its reader away, it is spliced again after the reader has read all, in order."""
    flow = make(rig, family)
    sender, reader = flow.way(way)
    data = b"".join(number.to_bytes(4, "big") for number in range(100_000))
    with rig.counting() as counted, rig.pumping():
        with ThreadPoolExecutor(1) as threads:
            sending = threads.submit(sender.sendall, data)
            eventually(lambda: fallen(rig, flow, way), "out of credit")
            assert receive(reader, len(data)) == data
            sending.result()
        for number in range(1000):
            if rig.splicer.snapshot(flow.slots[way]).mode_generation >> 32 == SlotMode.SPLICING:
                break
            sender.sendall(number.to_bytes(4, "big"))
            assert receive(reader, 4) == number.to_bytes(4, "big")
            time.sleep(0.002)
    assert rig.splicer.snapshot(flow.slots[way]).mode_generation >> 32 == SlotMode.SPLICING
    assert counted[Counter.TO_TCP_NO_CREDIT] == counted[Counter.REOPENED] == 1


def fallen(rig: Rig, flow: Flow, way: str) -> bool:
    """Whether a direction goes by TCP."""
    return rig.splicer.snapshot(flow.slots[way]).mode_generation >> 32 == SlotMode.BY_TCP


TRIALS, MESSAGES = 30, 120


@pytest.mark.parametrize("blocking", [True, False], ids=["blocking", "not blocking"])
@WAYS
def test_falling_and_coming_back_keeps_every_byte_in_its_place(rig: Rig, way: str, blocking: bool) -> None:
    """Random sizes and pauses on both sides, so that directions fall and reopen at any moment."""
    seed = random.Random(f"{way} {blocking}")
    flow = make(rig)
    sender, reader = flow.way(way)
    with rig.counting() as counted, rig.pumping(), ThreadPoolExecutor(2) as threads:
        for _ in range(TRIALS):
            sizes = [
                int(seed.choice([1, 10, 500, 5_000, 40_000]) * seed.uniform(0.5, 1.5)) or 1
                for _ in range(MESSAGES)
            ]
            data = seed.randbytes(sum(sizes))
            pauses = [seed.random() < 0.04 for _ in sizes]
            sending = threads.submit(send_pieces, sender, data, sizes, pauses, blocking)
            reading = threads.submit(read_slowly, reader, len(data), seed.random())
            assert reading.result(60) == data
            sending.result()
            time.sleep(seed.choice([0, 0, 0.002, 0.01]))
    assert counted[Counter.TO_TCP_NO_CREDIT] > 0
    assert counted[Counter.REOPENED] > 0


def send_pieces(
    sock: socket.socket, data: bytes, sizes: list[int], pauses: list[bool], blocking: bool
) -> None:
    """Send pieces, now and then after a pause; not blocking: what is left of a piece when there is room for it."""
    sock.settimeout(10 if blocking else 0)
    at = 0
    for size, pause in zip(sizes, pauses, strict=True):
        if pause:
            time.sleep(0.003)
        end = at + size
        while at < end:
            try:
                at += sock.send(data[at:end])
            except BlockingIOError:
                time.sleep(0.0005)


def read_slowly(sock: socket.socket, size: int, laziness: float) -> bytes:
    """Read it all, with pauses."""
    seed = random.Random(laziness)
    found = bytearray()
    while len(found) < size:
        found += sock.recv(seed.choice([100, 4_000, 70_000, 1 << 20]))
        if seed.random() < laziness / 8:
            time.sleep(0.001)
    return bytes(found)


def test_many_senders_of_one_socket_get_no_more_than_one(rig: Rig) -> None:
    """The lock is not held while a message is moved: looks that fall between must not take it for read."""
    flow = make(rig)
    with senders(flow.c, 16):
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            rig.hooks.consume()
            rig.splicer._look(flow.slots["client"])
    assert rig.splicer.snapshot(flow.slots["client"]).granted & GRANT_MASK == FIRST_GRANT
    assert cost(rig, flow, "client") <= FIRST_GRANT


@contextlib.contextmanager
def senders(sock: socket.socket, count: int) -> Iterator[None]:
    """So many processes send on one socket while the block runs."""
    children = []
    sock.settimeout(None)
    for _ in range(count):
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                while True:
                    sock.send(b"x" * 3000)
            os._exit(0)
        children.append(child)
    try:
        yield
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
        for child in children:
            os.waitpid(child, 0)


def test_a_bulk_stream_passes_whether_or_not_credit_is_served(rig: Rig) -> None:
    """With nobody to refill (kproxy is busy elsewhere), everything goes on by TCP."""
    flow = make(rig)
    with ThreadPoolExecutor(2) as threads:
        sending = threads.submit(send_stream, flow.c, 3, 20_000_000)
        reading = threads.submit(read_stream, flow.p)
        assert reading.result() == (20_000_000, sending.result())
    assert cost(rig, flow, "client") <= FIRST_GRANT


def test_an_event_that_was_lost_is_told_again(rig: Rig) -> None:
    """A full ring buffer would leave a direction by TCP for ever: it is told of at its next message instead."""
    flow = make(rig)
    sender, reader = flow.c, flow.p
    lost = rig.hooks.counters.read()[Counter.EVENTS_LOST]
    for _ in range(20_000):
        if rig.hooks.counters.read()[Counter.EVENTS_LOST] > lost:
            break
        fall_and_return(rig, flow, sender, reader)  # leaves a record that nobody takes
    assert rig.hooks.counters.read()[Counter.EVENTS_LOST] > lost
    rig.pump()
    with rig.pumping():
        eventually(lambda: again(sender, reader) and not fallen(rig, flow, "client"), "it comes back")


def fall_and_return(rig: Rig, flow: Flow, sender: socket.socket, reader: socket.socket) -> None:
    """Out of credit by one message, read, and settled by hand: one record in the ring."""
    slot = flow.slots["client"]
    view = rig.splicer.snapshot(slot)
    generation = view.mode_generation & 0xFFFFFFFF
    write_grant(rig, slot, tagged(generation, 0))
    again(sender, reader)
    view = rig.splicer.snapshot(slot)
    from sockmap.splicer import _REOPEN, _STRIDE

    rig.splicer._words[slot * _STRIDE + _REOPEN] = tagged(generation, view.bytes + view.tcp_bytes)


def again(sender: socket.socket, reader: socket.socket) -> bool:
    """One more byte, which must arrive."""
    sender.sendall(b"x")
    return receive(reader, 1) == b"x"
