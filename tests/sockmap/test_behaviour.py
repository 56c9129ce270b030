"""How sockets behave to applications: bystanders as without kproxy, spliced ones with the known differences."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from kernel_rig import (
    ANNOUNCE,
    EGRESS,
    INGRESS,
    REDIRECT,
    SPLICE,
    V4,
    Rig,
    Rule,
    abort,
    eventually,
    keys,
    receive,
    unreachable,
)
from test_connect import disconnect
from test_splice import open_slots

from sockmap.layout import NO_SLOT

pytestmark = pytest.mark.bpf

PORT = 8080


class Pair(NamedTuple):
    """Two ends of one connection."""

    sender: socket.socket
    reader: socket.socket


BYSTANDERS = {
    "a call that passes, in a pod under policy": ("client", "server"),
    "from a pod under policy to another pod": ("client", "other"),
    "inside a pod under policy": ("client", "client"),
    "from a pod under no policy to the host": ("other", "host"),
    "from the host to a pod under policy": ("host", "server"),
    "on the host": ("host", "host"),
}


def address(rig: Rig, where: str) -> str:
    """Where a server in a pod, or on the host, is called."""
    return str(rig.network.host_v4 if where == "host" else rig.network[where].v4)


def connect(rig: Rig, caller: str, called: str) -> Pair:
    """An ordinary connection; the host's ports are others' too, so there it is one that is free."""
    listener = rig.server(called, 0 if called == "host" else PORT)
    c = rig.socket(caller)
    c.connect((address(rig, called), listener.getsockname()[1]))
    s = rig.accept(listener)
    listener.close()
    return Pair(c, s)


def spliced(rig: Rig) -> Pair:
    """The client's end of a redirected connection and kproxy's."""
    rig.policy(Rule("client", EGRESS, REDIRECT))
    flow = rig.egress("client", "server", flags=SPLICE | ANNOUNCE)
    assert flow.slots["client"] != NO_SLOT
    return Pair(flow.c, flow.p)


# ---- what an application may observe --------------------------------------------------------------------------


def splice_from(pair: Pair) -> object:
    """splice(2) from the socket into a pipe, as HAProxy and Go's io.Copy do."""
    pair.sender.sendall(b"bytes")
    assert readable(pair.reader)
    readable_end, writable_end = os.pipe()
    try:
        pair.reader.setblocking(False)
        return os.splice(pair.reader.fileno(), writable_end, 5)
    except BlockingIOError:
        return "EAGAIN"
    finally:
        os.close(readable_end)
        os.close(writable_end)


def low_water(pair: Pair) -> object:
    """SO_RCVLOWAT: readable only once so much is there."""
    pair.reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 10)
    pair.sender.sendall(b"bytes")
    eventually(lambda: waiting(pair.reader) == 5, "they are there")
    return "readable" if readable(pair.reader, 0) else "not yet"


def waiting(sock: socket.socket) -> int:
    """FIONREAD."""
    import fcntl
    import termios

    return int(struct.unpack("i", fcntl.ioctl(sock, termios.FIONREAD, bytes(4)))[0])


def wait_all(pair: Pair) -> object:
    """MSG_WAITALL: return when the buffer is full."""
    pair.sender.sendall(b"12345")
    later = threading.Timer(0.05, pair.sender.sendall, [b"67890"])
    later.start()
    pair.reader.settimeout(None)
    found = pair.reader.recv(10, socket.MSG_WAITALL)
    later.join()
    return found


def zero_copy(pair: Pair) -> object:
    """MSG_ZEROCOPY: the error queue says when the pages are free again."""
    pair.sender.setsockopt(socket.SOL_SOCKET, 60, 1)  # SO_ZEROCOPY
    pair.sender.send(b"x" * 30_000, 0x4000000)  # MSG_ZEROCOPY
    receive(pair.reader, 30_000)
    poll = select.poll()
    poll.register(pair.sender, select.POLLERR)
    return "completed" if poll.poll(200) else "never"


def urgent(pair: Pair) -> object:
    """Urgent data: a byte beside the stream, at a mark in it."""
    pair.sender.sendall(b"ab")
    pair.sender.send(b"!", socket.MSG_OOB)
    pair.sender.sendall(b"cd")
    eventually(lambda: waiting(pair.reader) >= 2, "it is there")
    found = pair.reader.recv(10)
    with contextlib.suppress(BlockingIOError, TimeoutError):
        pair.reader.settimeout(0.05)
        found += pair.reader.recv(10)
    return found


def send_after_end(pair: Pair) -> object:
    """send() after shutdown(SHUT_WR)."""
    pair.sender.shutdown(socket.SHUT_WR)
    try:
        return pair.sender.send(b"x")
    except BrokenPipeError:
        return "EPIPE"


def tcp_info(pair: Pair) -> object:
    """tcpi_bytes_sent, at 200 of struct tcp_info."""
    pair.sender.sendall(b"x" * 1000)
    receive(pair.reader, 1000)
    return struct.unpack("Q", pair.sender.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 208)[200:])[0]


def reset_while_waiting(pair: Pair) -> object:
    """A blocking recv() that waits when the connection is reset, and the one after it."""
    pair.reader.settimeout(None)
    threading.Timer(0.05, abort, [pair.sender]).start()
    found = []
    for _ in range(2):
        try:
            found.append(pair.reader.recv(10))
        except OSError as error:
            found.append(errno.errorcode[error.errno or 0])
    return found


def time_out(pair: Pair) -> object:
    """SO_RCVTIMEO: EAGAIN after the time."""
    pair.reader.settimeout(None)
    pair.reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 50_000))
    try:
        return pair.reader.recv(10)
    except BlockingIOError:
        return "EAGAIN"


def peek(pair: Pair) -> object:
    """MSG_PEEK, then the same bytes again."""
    pair.sender.sendall(b"bytes")
    return pair.reader.recv(3, socket.MSG_PEEK) + pair.reader.recv(10)


def vectors(pair: Pair) -> object:
    """sendmsg() of several pieces, recvmsg() into several buffers."""
    pair.sender.sendmsg([b"one", b"two", b"three"])
    buffers = [bytearray(4), bytearray(4), bytearray(4)]
    size = pair.reader.recvmsg_into(buffers)[0]
    return b"".join(buffers)[:size]


def sent_file(pair: Pair) -> object:
    """sendfile(2)."""
    descriptor = os.memfd_create("file")
    os.write(descriptor, b"from a file")
    try:
        os.sendfile(pair.sender.fileno(), descriptor, 0, 11)
    finally:
        os.close(descriptor)
    return receive(pair.reader, 11)


# (what, as without kproxy, on a spliced socket)
OBSERVED: tuple[tuple[Callable[[Pair], object], object, object], ...] = (
    (splice_from, 5, "EAGAIN"),
    (low_water, "not yet", "readable"),
    (wait_all, b"1234567890", b"12345"),
    (zero_copy, "completed", "never"),
    (urgent, b"abcd", b"ab!cd"),
    (send_after_end, "EPIPE", 1),
    (tcp_info, 1000, 0),
    (reset_while_waiting, ["ECONNRESET", b""], ["EAGAIN", "ECONNRESET"]),
    (time_out, "EAGAIN", "EAGAIN"),
    (peek, b"bytbytes", b"bytbytes"),
    (vectors, b"onetwothree", b"onetwothree"),
    (sent_file, b"from a file", b"from a file"),
)
EACH = pytest.mark.parametrize(
    ("observe", "plain", "differs"), OBSERVED, ids=[observe.__name__ for observe, _, _ in OBSERVED]
)


def readable(sock: socket.socket, milliseconds: int = 5000) -> bool:
    """Whether poll() says so."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(milliseconds))


def in_sockhash(rig: Rig) -> Iterator[int]:
    """The cookies of all sockets in the map."""
    return keys(rig.hooks._program.map_fd("spliced"))


def cookie(sock: socket.socket) -> int:
    """SO_COOKIE."""
    return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, 57, 8), "little")


@EACH
@pytest.mark.parametrize("where", BYSTANDERS)
def test_a_bystander_behaves_as_without_kproxy(
    rig: Rig, where: str, observe: Callable[[Pair], object], plain: object, differs: object
) -> None:
    """Whoever is no part of a flow is not in the map, changes no counter, and sees nothing of kproxy."""
    with rig.counting() as counted:
        pair = connect(rig, *BYSTANDERS[where])
        cookies = {cookie(sock) for sock in pair}
        assert observe(pair) == plain
    assert not cookies & set(in_sockhash(rig))
    assert not any(counted.values())


@EACH
def test_a_spliced_socket_behaves_as_the_documentation_says(
    rig: Rig, observe: Callable[[Pair], object], plain: object, differs: object
) -> None:
    """Every difference that is known stands here; one that goes away, or a new one, shows."""
    pair = spliced(rig)
    assert {cookie(sock) for sock in pair} <= set(in_sockhash(rig))
    assert observe(pair) == differs


def test_a_pod_under_policy_has_bystanders_too(rig: Rig) -> None:
    """Beside a spliced connection to one server, the same pod's connection to another is left alone."""
    rig.policy(Rule("client", EGRESS, REDIRECT, peer="server"))
    flow = rig.egress("client", "server", flags=SPLICE | ANNOUNCE)
    pair = connect(rig, "client", "other")
    pair.sender.sendall(b"x")
    assert receive(pair.reader, 1) == b"x"
    found = set(in_sockhash(rig))
    assert {cookie(sock) for sock in (flow.c, flow.p, flow.u, flow.s)} <= found
    assert not {cookie(sock) for sock in pair} & found


def test_a_socket_that_leaves_its_flow_is_a_bystander_again(rig: Rig) -> None:
    """Disconnected and connected to whom it may call directly: out of the map, and as any other."""
    rig.policy(Rule("client", EGRESS, REDIRECT, peer="server"))
    flow = rig.egress("client", "server", flags=SPLICE | ANNOUNCE)
    assert cookie(flow.c) in set(in_sockhash(rig))
    disconnect(flow.c)
    listener = rig.server("other", PORT)
    flow.c.connect(V4.to(rig.network["other"], PORT))
    pair = Pair(flow.c, rig.accept(listener))
    assert cookie(flow.c) not in set(in_sockhash(rig))
    assert low_water(pair) == "not yet"


def test_a_client_that_is_none_after_all_is_a_bystander(rig: Rig) -> None:
    """Its SYN passed, and before the handshake is over the policy says redirect: it does not stay in the map."""
    rig.marks.add_neighbour(rig.namespace("other").cookie)
    try:
        listener = rig.server("server", PORT)
        c = rig.socket("other")
        c.setblocking(False)
        with unreachable(rig, "other", seen_from="server"):
            c.connect_ex(V4.to(rig.network["server"], PORT))
            time.sleep(0.05)
            rig.policy(Rule("server", INGRESS, REDIRECT))
        pair = Pair(c, rig.accept(listener))  # the SYN-ACK comes again after a second
    finally:
        rig.marks.remove_neighbour(rig.namespace("other").cookie)
    c.settimeout(5)
    assert cookie(c) not in set(in_sockhash(rig))
    assert low_water(Pair(pair.reader, pair.sender)) == "not yet"
    assert rig.slot(c) != NO_SLOT, "it had entered"
    abort(c)
    eventually(lambda: open_slots(rig) == 0, "both slots are free again")
