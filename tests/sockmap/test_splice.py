"""Pairing and splicing: both connections of a flow, in every family, with every byte where it belongs."""

from __future__ import annotations

import contextlib
import ctypes as ct
import fcntl
import hashlib
import itertools
import socket
import struct
import termios
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from kernel_rig import (
    ANNOUNCE,
    EGRESS,
    FAMILIES,
    INGRESS,
    MAPPED,
    REDIRECT,
    SPLICE,
    V4,
    V6,
    Family,
    Flow,
    Rig,
    Rule,
    abort,
    eventually,
    keys,
    memory,
    receive,
)

from sockmap.credit import FIRST_GRANT, tagged
from sockmap.layout import NO_SLOT, Counter, Pair, Role, SlotMode
from sockmap.syscall import map_lookup

pytestmark = pytest.mark.bpf

PORT = 8080
BY_FAMILY = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
SENDERS = {"client": Role.CLIENT, "proxy": Role.PROXY, "upstream": Role.UPSTREAM, "server": Role.SERVER}


def redirecting(rig: Rig) -> None:
    """Both directions of both endpoints go through kproxy."""
    rig.policy(Rule("client", EGRESS, REDIRECT), Rule("server", INGRESS, REDIRECT))


def exchange(flow: Flow, data: bytes) -> None:
    """Send the same bytes on all four ways."""
    for _, sender, reader in flow.ways():
        sender.sendall(data)
        assert receive(reader, len(data)) == data


@BY_FAMILY
@pytest.mark.parametrize("kind", ["egress", "ingress", "both", "host"])
def test_all_four_sockets_are_spliced(rig: Rig, family: Family, kind: str) -> None:
    """C with P and U with S: every byte is redirected, and the counters say whose it was."""
    client, server = Rule("client", EGRESS, REDIRECT), Rule("server", INGRESS, REDIRECT)
    rig.policy(*{"egress": [client], "both": [client, server]}.get(kind, [server]))
    spliced, by_tcp = rig.bytes(Counter.SPLICED_BYTES), rig.bytes(Counter.TCP_BYTES)
    with rig.counting() as counted:
        if kind in ("egress", "both"):
            flow = rig.egress("client", "server", family=family, flags=SPLICE | ANNOUNCE)
        else:
            flow = rig.ingress("client" if kind == "ingress" else "host", "server", family=family)
        exchange(flow, b"x" * 1000)
    assert NO_SLOT not in flow.slots.values()
    assert len(set(flow.slots.values())) == 4
    for name, role in SENDERS.items():
        slot = rig.splicer.snapshot(flow.slots[name])
        assert (slot.bytes, slot.messages, slot.tcp_bytes, slot.role) == (1000, 1, 0, role)
    assert counted[Counter.PAIRED] == 2
    after = rig.bytes(Counter.SPLICED_BYTES)
    assert {role: after[role] - spliced[role] for role in Role} == dict.fromkeys(Role, 1000)
    assert rig.bytes(Counter.TCP_BYTES) == by_tcp


def test_a_pod_under_no_policy_is_spliced_where_its_queue_can_be_seen(rig: Rig) -> None:
    """Its namespace is made known first; before that its connections are plain TCP, and user space is told."""
    redirecting(rig)
    flow = rig.ingress("other", "server")
    assert flow.slots["client"] == flow.slots["proxy"] == NO_SLOT
    exchange(flow, b"plain")
    namespace = rig.namespace("other")
    rig.marks.add_neighbour(namespace.cookie)
    try:
        flow = rig.ingress("other", "server", port=PORT + 1)
        assert NO_SLOT not in flow.slots.values()
        exchange(flow, b"spliced")
    finally:
        rig.marks.remove_neighbour(namespace.cookie)


def test_an_endpoint_may_have_its_splice_off(rig: Rig) -> None:
    """Applications that do not get along with it: identity and addresses stay, bytes go through TCP."""
    redirecting(rig)
    client, server = rig.network["client"], rig.network["server"]
    ports = tuple(rig.endpoints["client"].listeners[EGRESS, version].getsockname()[1] for version in (4, 6))
    number = rig.endpoints["client"].number
    rig.marks.set_endpoint(number, client.v4, client.v6, ports, splice=False)  # type: ignore[arg-type]
    try:
        flow = rig.egress("client", "server", flags=ANNOUNCE)
        assert set(flow.slots.values()) == {NO_SLOT}
        assert flow.origin is not None
        assert flow.origin.destination == server.v4
        exchange(flow, b"plain")
    finally:
        rig.marks.set_endpoint(number, client.v4, client.v6, ports, splice=True)  # type: ignore[arg-type]


def numbers(seed: int, size: int) -> Iterator[bytes]:
    """Pieces of a stream in which no two places are alike, so that any loss, repetition or swap shows."""
    block = hashlib.shake_256(seed.to_bytes(4, "little")).digest(1 << 14)
    for position in range(0, size, len(block)):
        piece = bytearray(block)
        piece[:8] = position.to_bytes(8, "little")
        yield bytes(piece[: size - position])


def send_stream(sock: socket.socket, seed: int, size: int) -> str:
    """Send it, end the stream, return its hash."""
    digest = hashlib.blake2b()
    for piece in numbers(seed, size):
        digest.update(piece)
        sock.sendall(piece)
    sock.shutdown(socket.SHUT_WR)
    return digest.hexdigest()


def read_stream(sock: socket.socket) -> tuple[int, str]:
    """Read to the end; how much, and its hash."""
    digest, size = hashlib.blake2b(), 0
    while data := sock.recv(1 << 18):
        digest.update(data)
        size += len(data)
    return size, digest.hexdigest()


def carry(source: socket.socket, sink: socket.socket) -> None:
    """What the proxy does with bytes that it need not look at."""
    while data := source.recv(1 << 18):
        sink.sendall(data)
    sink.shutdown(socket.SHUT_WR)


def test_two_hundred_megabytes_each_way_arrive_as_they_were_sent(rig: Rig) -> None:
    """Through all four sockets at once, whatever part of it went by splice and what by TCP."""
    redirecting(rig)
    flow = rig.egress("client", "server", flags=SPLICE | ANNOUNCE)
    size = 200 * 1000 * 1000
    with rig.pumping(), ThreadPoolExecutor(6) as threads:
        upload = threads.submit(send_stream, flow.c, 1, size)
        download = threads.submit(send_stream, flow.s, 2, size)
        relays = [threads.submit(carry, flow.p, flow.u), threads.submit(carry, flow.u, flow.p)]
        arrived_up, arrived_down = threads.submit(read_stream, flow.s), threads.submit(read_stream, flow.c)
        assert arrived_up.result() == (size, upload.result())
        assert arrived_down.result() == (size, download.result())
        assert [relay.result() for relay in relays] == [None, None]
    for name in flow.slots:
        slot = rig.splicer.snapshot(flow.slots[name])
        assert slot.bytes > 0
        assert slot.bytes + slot.tcp_bytes == size, (
            "blocking senders: every byte is in one count or the other"
        )


ROUND_TRIPS = 1_000_000


def test_a_million_round_trips_stay_spliced(rig: Rig) -> None:
    """A keep-alive connection of small requests never falls to TCP, on either pair: credit is refilled."""
    redirecting(rig)
    flow = rig.egress("client", "server", flags=SPLICE | ANNOUNCE)
    question, answer = b"GET /jobs/331 HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"
    with rig.counting() as counted:
        for first, second in ((flow.c, flow.p), (flow.u, flow.s)):
            for sock in (first, second):
                sock.setblocking(True)
            one, two, take_two, take_one = first.send, second.send, second.recv, first.recv
            for _ in range(ROUND_TRIPS // 2 // 20):
                for _ in range(20):
                    one(question)
                    take_two(200)
                    two(answer)
                    take_one(200)
                rig.pump()
    fallen = (Counter.TO_TCP_NO_CREDIT, Counter.TO_TCP_NO_PEER, Counter.TO_TCP_REDIRECT_FAILED)
    assert [counted[reason] for reason in fallen] == [0, 0, 0]
    for name in flow.slots:
        slot = rig.splicer.snapshot(flow.slots[name])
        assert (slot.messages, slot.tcp_bytes) == (ROUND_TRIPS // 2, 0)


# ---- a peer that is not there at the first send ---------------------------------------------------------------


def test_a_server_that_defers_accept_is_served_by_tcp(rig: Rig) -> None:
    """TCP_DEFER_ACCEPT, Apache's default: S is there only after the first byte, so both stay outside."""
    redirecting(rig)
    listener = rig.server("server", PORT)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 5)
    c = rig.socket("client")
    c.connect(V4.to(rig.network["server"], PORT))
    p = rig.proxy("client", EGRESS)
    u = rig.upstream("client", V4.to(rig.network["server"], PORT), flags=SPLICE | ANNOUNCE)
    assert rig.splicer.join(u) == NO_SLOT
    u.sendall(b"question")
    s = rig.accept(listener)
    assert receive(s, 8) == b"question"
    for number in range(50):
        s.sendall(b"answer %3d" % number)
        u.sendall(b"more %5d" % number)
        assert receive(u, 10) == b"answer %3d" % number
        assert receive(s, 10) == b"more %5d" % number
    assert rig.slot(s) == NO_SLOT, "it would be in the map alone"
    c.sendall(b"still spliced")
    assert receive(p, 13) == b"still spliced"


@pytest.mark.parametrize("ending", ["upstream", "server"])
def test_what_was_declined_is_forgotten_with_the_connection(rig: Rig, ending: str) -> None:
    """The mark that keeps a late server out of the map goes with the upstream socket."""
    redirecting(rig)
    listener = rig.server("server", PORT)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 5)
    u = rig.upstream("client", V4.to(rig.network["server"], PORT), flags=SPLICE | ANNOUNCE)
    cookie = ct.c_uint64.from_buffer_copy(u.getsockopt(socket.SOL_SOCKET, 57, 8))  # SO_COOKIE
    pairs = rig.hooks._program.map_fd("pairs")
    assert rig.splicer.join(u) == NO_SLOT
    assert map_lookup(pairs, cookie, Pair())
    u.sendall(b"question")
    s = rig.accept(listener)
    for sock in (u, s) if ending == "upstream" else (s, u):
        abort(sock)
    assert not map_lookup(pairs, cookie, Pair())


@pytest.mark.parametrize("family", [V4, V6], ids=lambda family: family.name)
def test_a_client_without_quick_acknowledgement_begins_by_tcp(rig: Rig, family: Family) -> None:
    """TCP_QUICKACK off, HAProxy's tcp-smart-connect: the first send completes the handshake, before P is there."""
    redirecting(rig)
    c = rig.socket("client", family.family)
    c.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
    with rig.counting() as counted:
        c.connect(family.to(rig.network["server"], PORT))
        c.sendall(b"first")
        p = rig.proxy("client", EGRESS, 6 if family is V6 else 4)
    rig.adopt(p, rig.slot(p))
    assert receive(p, 5) == b"first"
    assert counted[Counter.TO_TCP_NO_PEER] == 1
    p.sendall(b"spliced all the same")
    assert receive(c, 20) == b"spliced all the same"
    assert rig.snapshot(p).bytes == 20
    with rig.pumping():
        eventually(lambda: again(c, p) and rig.snapshot(c).bytes > 0, "its direction comes to be spliced too")


def again(sender: socket.socket, reader: socket.socket) -> bool:
    """One more byte, which must arrive."""
    sender.sendall(b"x")
    return receive(reader, 1) == b"x"


# ---- how connections end --------------------------------------------------------------------------------------


def endings(sender: socket.socket, reader: socket.socket) -> list[object]:
    """What the reader of a connection observes when bytes are waiting and the sender resets or ends."""
    found: list[object] = []
    for _ in range(3):
        try:
            found.append(reader.recv(100))
        except OSError as error:
            found.append(error.errno)
    return found


def waiting(sock: socket.socket) -> int:
    """What FIONREAD says."""
    return int(struct.unpack("i", fcntl.ioctl(sock, termios.FIONREAD, bytes(4)))[0])


@pytest.mark.parametrize("way", SENDERS)
@pytest.mark.parametrize("ending", ["reset", "half-close", "close"])
@pytest.mark.parametrize("splice", [True, False], ids=["spliced", "plain"])
def test_unread_bytes_outlive_their_sender(rig: Rig, way: str, ending: str, splice: bool) -> None:
    """A reader gets what was sent before a reset or an end, and then the reset or the end: spliced or not."""
    redirecting(rig)
    flow = rig.egress("client", "server", flags=(SPLICE if splice else ANNOUNCE) | ANNOUNCE)
    sender, reader = flow.way(way)
    if splice:
        assert flow.slots[way] != NO_SLOT
    sender.sendall(b"last words")
    eventually(lambda: waiting(reader) == 10, "the bytes are there")
    if ending == "reset":
        abort(sender)
    elif ending == "close":
        sender.close()
    else:
        sender.shutdown(socket.SHUT_WR)
    eventually(lambda: ended(reader), "the end is there")
    expected = [b"last words", 104, b""] if ending == "reset" else [b"last words", b"", b""]
    assert endings(sender, reader) == expected
    if ending == "half-close":
        reader.sendall(b"the other way goes on")
        assert receive(sender, 21) == b"the other way goes on"


def ended(sock: socket.socket) -> bool:
    """Whether the peer has ended or reset the connection (tcpi_state is no longer ESTABLISHED)."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[0] != 1


def test_what_was_read_by_nobody_is_still_there_after_both_have_ended(rig: Rig) -> None:
    """Client shuts down, gets its answer and the end, and only then reads: its connection is closed by then."""
    redirecting(rig)
    flow = rig.egress("client", "server", flags=SPLICE | ANNOUNCE)
    flow.c.shutdown(socket.SHUT_WR)
    assert flow.p.recv(1) == b""
    flow.p.sendall(b"the whole answer")
    flow.p.close()
    eventually(lambda: flow.c.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[0] == 7, "TCP_CLOSE")
    assert endings(flow.p, flow.c) == [b"the whole answer", b"", b""]


@pytest.mark.parametrize("way", SENDERS)
def test_fionread_counts_what_is_redirected(rig: Rig, way: str) -> None:
    """nginx, Java and .NET ask how much is there before they read."""
    redirecting(rig)
    flow = rig.egress("client", "server", flags=SPLICE | ANNOUNCE)
    sender, reader = flow.way(way)
    sender.sendall(b"r" * 700)
    eventually(lambda: waiting(reader) == 700, "redirected bytes are counted")
    assert memory(reader) == 700
    reader.recv(300)
    assert waiting(reader) == 400


def test_fionread_does_not_count_what_comes_by_tcp(rig: Rig) -> None:
    """Of a socket in the map, on current kernels: so kproxy waits for credit, and never sends it any."""
    redirecting(rig)
    flow = rig.egress("client", "server", flags=SPLICE | ANNOUNCE)
    flow.p.sendall(b"t" * (FIRST_GRANT + 1))
    eventually(lambda: memory(flow.c) > FIRST_GRANT, "it is there")
    assert waiting(flow.c) == 0
    assert receive(flow.c, FIRST_GRANT + 1) == b"t" * (FIRST_GRANT + 1)


@pytest.mark.parametrize("way", SENDERS)
def test_who_sends_to_a_closed_reader_has_not_fallen_to_tcp(rig: Rig, way: str) -> None:
    """The last answer to a client that went away: nobody reads it, and it is not counted among the falls."""
    redirecting(rig)
    flow = rig.egress("client", "server", flags=SPLICE | ANNOUNCE)
    exchange(flow, b"before")
    sender, reader = flow.way(way)
    with rig.counting() as counted:
        reader.close()
        with contextlib.suppress(OSError):
            sender.send(b"too late")
    fallen = (Counter.TO_TCP_NO_CREDIT, Counter.TO_TCP_NO_PEER, Counter.TO_TCP_REDIRECT_FAILED)
    assert [counted[reason] for reason in fallen] == [0, 0, 0]


def test_a_server_that_speaks_first_begins_by_tcp(rig: Rig) -> None:
    """S sends before kproxy has put U into the map: that goes by TCP, in order, and comes back."""
    redirecting(rig)
    listener = rig.server("server", PORT)
    u = rig.upstream("client", V4.to(rig.network["server"], PORT), flags=SPLICE | ANNOUNCE)
    s = rig.accept(listener)
    with rig.counting() as counted:
        s.sendall(b"220 ready")
    assert counted[Counter.TO_TCP_REDIRECT_FAILED] == 1
    rig.adopt(u, rig.splicer.join(u))
    assert receive(u, 9) == b"220 ready"
    with rig.pumping():
        eventually(lambda: again(s, u) and rig.snapshot(s).bytes > 0, "it is spliced")
    u.sendall(b"hello")
    assert receive(s, 5) == b"hello"
    assert rig.snapshot(u).bytes == 5


# ---- slots ----------------------------------------------------------------------------------------------------


def test_a_slot_has_one_owner_at_a_time(rig: Rig) -> None:
    """When its socket closes it goes to the back of the queue, and its generation moves on."""
    redirecting(rig)
    flow = rig.egress("client", "server", flags=SPLICE | ANNOUNCE)
    before = {name: rig.splicer.snapshot(slot).mode_generation for name, slot in flow.slots.items()}
    slots = dict(flow.slots)
    for sock in (flow.c, flow.p, flow.u, flow.s):
        abort(sock)
    for name, slot in slots.items():
        assert rig.splicer.mode(slot, before[name] & 0xFFFFFFFF) == SlotMode.CLOSED
        assert rig.splicer.snapshot(slot).mode_generation == SlotMode.CLOSED << 32 | before[name] + 1
    again = rig.egress("client", "server", port=PORT + 1, flags=SPLICE | ANNOUNCE)
    assert not set(again.slots.values()) & set(slots.values())


def test_a_grant_for_the_last_owner_is_worth_nothing(rig: Rig) -> None:
    """User space may be late: its word carries the generation, and the program takes the first grant instead."""
    redirecting(rig)
    flow = rig.egress("client", "server", flags=SPLICE | ANNOUNCE)
    slot = rig.splicer.snapshot(flow.slots["client"])
    generation = slot.mode_generation & 0xFFFFFFFF
    write_grant(rig, flow.slots["client"], tagged(generation - 1, 1 << 40))
    flow.c.sendall(b"x" * (FIRST_GRANT - 2000))
    assert rig.snapshot(flow.c).bytes == FIRST_GRANT - 2000
    flow.c.sendall(b"x" * 2000)
    assert rig.snapshot(flow.c).tcp_bytes == 2000
    assert len(receive(flow.p, FIRST_GRANT)) == FIRST_GRANT


def write_grant(rig: Rig, slot: int, word: int) -> None:
    """Write a slot's grant as user space does."""
    from sockmap.splicer import _GRANTED, _STRIDE

    rig.splicer._words[slot * _STRIDE + _GRANTED] = word


def test_a_look_at_a_closed_slot_leaves_the_next_owner_nothing(rig: Rig) -> None:
    """An event may be served after its socket closed: what the last owner moved is no credit for the next one."""
    redirecting(rig)
    flow = rig.egress("client", "server", flags=SPLICE | ANNOUNCE)
    for _ in range(200):
        flow.c.sendall(b"x" * 1000)
        receive(flow.p, 1000)
        rig.pump()
    slot = flow.slots["client"]
    abort(flow.c)
    rig.splicer._asking.add(slot)
    rig.splicer.refill()
    account = rig.splicer._accounts.get(slot)
    generation = rig.splicer.snapshot(slot).mode_generation & 0xFFFFFFFF
    assert account is None or account.generation != generation


def test_a_server_that_resets_at_once_costs_no_slot(rig: Rig) -> None:
    """Whichever end closes first, before or after user space joins them: every slot comes back."""
    redirecting(rig)
    listener = rig.server("server", PORT, backlog=512)

    def serve() -> None:
        with contextlib.suppress(OSError):  # the listener is shut down
            for delay in itertools.cycle((False, True)):
                sock, _ = listener.accept()
                with contextlib.suppress(OSError):  # it may be reset before it has sent
                    if delay:
                        sock.recv(1)
                abort(sock)

    listener.settimeout(None)
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with rig.counting() as counted:
            for number in range(600):  # more than there are slots
                u = rig.namespace("client").socket(socket.AF_INET, socket.SOCK_STREAM)
                rig.marks.mark_upstream(u.fileno(), 0, None, SPLICE | ANNOUNCE)
                u.connect(V4.to(rig.network["server"], PORT))
                slot = NO_SLOT
                with contextlib.suppress(OSError):  # it is reset already: it cannot enter
                    slot = rig.splicer.join(u)
                if number % 3 == 0 and slot != NO_SLOT:
                    with contextlib.suppress(OSError):  # it may be reset by now
                        u.send(b"x")
                    rig.splicer.release(slot)
                abort(u)
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert counted[Counter.NO_SLOT] == 0
    eventually(lambda: open_slots(rig) == 0, "every slot is free again")


def open_slots(rig: Rig) -> int:
    """How many slots have an owner."""
    everyone = (rig.splicer.snapshot(slot) for slot in range(512))
    return sum(slot.cookie != 0 and slot.mode_generation >> 32 != SlotMode.CLOSED for slot in everyone)


def test_a_reader_bound_to_a_device_is_seen(rig: Rig) -> None:
    """sock_diag finds such a socket only where it is told the device: without, its direction would stall."""
    redirecting(rig)
    listener = rig.server("server", PORT)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0\0")
    c = rig.socket("client", MAPPED.family)
    c.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0\0")
    c.connect(MAPPED.to(rig.network["server"], PORT))
    p = rig.proxy("client", EGRESS)
    u = rig.upstream("client", V4.to(rig.network["server"], PORT), flags=SPLICE | ANNOUNCE)
    s = rig.accept(listener)
    rig.adopt(p, rig.slot(p))
    rig.adopt(u, rig.splicer.join(u))
    for sender, reader in ((p, c), (u, s)):
        for _ in range(500):
            sender.sendall(b"x" * 1000)
            receive(reader, 1000)
            rig.pump()
        assert (rig.snapshot(sender).bytes, rig.snapshot(sender).tcp_bytes) == (500_000, 0)


# ---- attackers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("caller", ["client", "other"])
def test_made_up_connections_leave_nothing_to_pair_with(rig: Rig, caller: str) -> None:
    """TCP_REPAIR (CAP_NET_ADMIN) makes a socket established with any sequence numbers: it is no end of a flow.

    Else a pod could leave records under numbers that others will have, or as many as the table holds.
    """
    redirecting(rig)
    with rig.counting() as counted:
        for number in range(5):
            sock = repaired(
                rig, caller, V4.to(rig.network["server"], PORT + number), 1000 + number, 5000 + number
            )
            assert rig.slot(sock) == NO_SLOT
    assert counted[Counter.HANDSHAKES_FULL] == 0
    assert handshakes(rig) == 0


TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ = 19, 20, 21  # include/uapi/linux/tcp.h
RECEIVE_QUEUE, SEND_QUEUE = 1, 2


def repaired(rig: Rig, where: str, to: tuple[str, int], sent: int, received: int) -> socket.socket:
    """An established socket that never spoke to anybody."""
    sock = rig.socket(where)
    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    for queue, sequence in ((SEND_QUEUE, sent), (RECEIVE_QUEUE, received)):
        sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, queue)
        sock.setsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ, sequence)
    sock.bind((str(rig.network[where].v4), 0))
    sock.connect(to)
    return sock


def handshakes(rig: Rig) -> int:
    """How many records wait for their other end."""
    return len(list(keys(rig.hooks._program.map_fd("handshakes"))))
