"""Ways around the connect hooks that a pod may try, and traffic inside a pod that is nobody's business."""

from __future__ import annotations

import array
import contextlib
import errno
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from kernel_rig import (
    DENY,
    EGRESS,
    FAMILIES,
    INGRESS,
    MAPPED,
    PASS,
    REDIRECT,
    V4,
    V6,
    Family,
    Rig,
    Rule,
    accept_all,
    receive,
    unmapped,
)

from sockmap import cgroup
from sockmap.layout import Counter

pytestmark = pytest.mark.bpf

PORT = 8080
BY_FAMILY = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
CLOSED = {"client": (PASS, DENY)}  # nothing may leave the client


@BY_FAMILY
def test_loopback_inside_the_pod_is_left_alone(rig: Rig, family: Family) -> None:
    """127.0.0.1 and ::1 are the pod talking to itself: no rule holds for it, no record is made of it."""
    rig.policy(defaults={"client": (DENY, DENY)})
    address = {"IPv4": "127.0.0.1", "IPv6": "::1", "IPv4-mapped": "::ffff:127.0.0.1"}[family.name]
    listener = rig.server("client", PORT, family)
    c = rig.socket("client", family.family)
    with rig.counting() as counted:
        c.connect((address, PORT))
        s = rig.accept(listener)
    assert unmapped(c.getpeername()) == unmapped(s.getsockname())
    assert unmapped(s.getpeername()) == unmapped(c.getsockname())
    assert rig.marks.state(c.fileno()) is None
    assert not any(counted.values())


@BY_FAMILY
def test_a_pod_may_call_itself_by_its_own_address(rig: Rig, family: Family) -> None:
    """As with any network policy, which a CNI applies outside of the pod."""
    rig.policy(defaults={"client": (DENY, DENY)})
    listener = rig.server("client", PORT, family)
    c = rig.socket("client", family.family)
    c.connect(family.to(rig.network["client"], PORT))
    s = rig.accept(listener)
    c.sendall(b"self")
    assert receive(s, 4) == b"self"
    assert rig.marks.state(c.fileno()) is None
    assert unmapped(s.getpeername()) == unmapped(c.getsockname())


@BY_FAMILY
@pytest.mark.parametrize("connected", [False, True], ids=["sendto", "connect"])
def test_a_pod_may_send_itself_datagrams(rig: Rig, family: Family, connected: bool) -> None:
    """To its own address and to loopback, and back, although no datagram may come in or go out."""
    rig.policy(defaults={"client": (DENY, DENY)})
    loopback = {"IPv4": "127.0.0.1", "IPv6": "::1", "IPv4-mapped": "::ffff:127.0.0.1"}[family.name]
    for address in (family.address_of(rig.network["client"]), loopback):
        server = rig.socket("client", family.server_family, socket.SOCK_DGRAM)
        server.bind((family.anywhere, 0))
        to = (address, server.getsockname()[1])
        client = rig.socket("client", family.family, socket.SOCK_DGRAM)
        if connected:
            client.connect(to)
            client.send(b"question")
        else:
            client.sendto(b"question", to)
        question, whence = server.recvfrom(100)
        server.sendto(b"answer", whence)
        assert (question, client.recv(100)) == (b"question", b"answer")


@BY_FAMILY
def test_who_calls_the_listener_itself_has_no_destination(rig: Rig, family: Family) -> None:
    """A process may find kproxy's listener and connect to it: the record says that nobody sent it there."""
    version = 6 if family is V6 else 4
    loopback = {"IPv4": "127.0.0.1", "IPv6": "::1", "IPv4-mapped": "::ffff:127.0.0.1"}[family.name]
    port = rig.endpoints["client"].listeners[EGRESS, version].getsockname()[1]
    for address in (loopback, family.address_of(rig.network["client"])):
        c = rig.socket("client", family.family)
        c.connect((address, port))
        origin = rig.marks.origin(rig.proxy("client", EGRESS, version).fileno())
        assert origin is not None
        assert not origin.paired
        assert origin.port == 0


@pytest.mark.parametrize("direction", [INGRESS, EGRESS])
def test_nobody_outside_reaches_a_listener(rig: Rig, direction: int) -> None:
    """From another pod the listeners' ports are closed, even where everything may come in."""
    for version, family in ((4, V4), (6, V6)):
        port = rig.endpoints["client"].listeners[direction, version].getsockname()[1]
        c = rig.socket("other", family.family)
        assert c.connect_ex(family.to(rig.network["client"], port)) == errno.ECONNREFUSED


@BY_FAMILY
def test_a_firewall_mark_is_no_pass(rig: Rig, family: Family) -> None:
    """SO_MARK is free to whoever has CAP_NET_RAW: with any value, the call is denied as without."""
    rig.policy(defaults=CLOSED)
    for mark in (0, 1, 0x200, 0x1337, 0xFFFFFFFF):
        c = rig.socket("client", family.family)
        c.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("I", mark))
        assert c.connect_ex(family.to(rig.network["server"], PORT)) == errno.EPERM


@pytest.mark.parametrize("name", ["kt-plain", "kproxy"])
def test_a_control_group_is_no_pass(rig: Rig, name: str) -> None:
    """The hooks hold for every cgroup, whatever its name: also for one that is made inside a container."""
    rig.policy(defaults=CLOSED)
    group = cgroup.root() / f"{name}-{os.getpid()}"
    group.mkdir()
    code = f"""
import socket, sys
open({str(group / "cgroup.procs")!r}, "w").write("0")
sys.exit(socket.socket().connect_ex(({str(rig.network["server"].v4)!r}, {PORT})))
"""
    try:
        done = subprocess.run(
            ["nsenter", f"--net={rig.network['client'].netns}", sys.executable, "-c", code], check=False
        )
    finally:
        remove_cgroup(group)
    assert done.returncode == errno.EPERM


def remove_cgroup(group: Path) -> None:
    """Remove a cgroup whose last process is ending."""
    for _ in range(200):
        with contextlib.suppress(OSError):
            group.rmdir()
            return
        os.sched_yield()


def test_a_socket_belongs_to_the_namespace_that_it_was_made_in(rig: Rig) -> None:
    """Passed to a process elsewhere (SCM_RIGHTS), a pod's socket stays under that pod's policy."""
    rig.policy(defaults=CLOSED)
    rig.server("server", PORT)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for pod, expected in (("client", errno.EPERM), ("other", 0)):
            with rig.namespace(pod).socket(socket.AF_INET, socket.SOCK_STREAM) as made:
                ours.sendmsg(
                    [b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [made.fileno()]))]
                )
            _, control, _, _ = theirs.recvmsg(1, socket.CMSG_SPACE(4))
            descriptor = struct.unpack("i", control[0][2])[0]
            with rig.namespace("other").entered(), socket.socket(fileno=descriptor) as passed:
                assert passed.connect_ex(V4.to(rig.network["server"], PORT)) == expected


@BY_FAMILY
def test_fast_open_asks_before_it_sends(rig: Rig, family: Family) -> None:
    """sendto(MSG_FASTOPEN) connects without connect(): it is denied and redirected all the same."""
    data = b"GET / HTTP/1.1\r\n"
    rig.policy(defaults=CLOSED)
    with pytest.raises(PermissionError):
        rig.socket("client", family.family).sendto(
            data, socket.MSG_FASTOPEN, family.to(rig.network["server"], PORT)
        )
    rig.policy(Rule("client", EGRESS, REDIRECT))
    c = rig.socket("client", family.family)
    c.settimeout(None)  # a blocking socket: without a cookie yet, the call connects and then sends
    c.sendto(data, socket.MSG_FASTOPEN, family.to(rig.network["server"], PORT))
    p = rig.proxy("client", EGRESS, 6 if family is V6 else 4)
    origin = rig.marks.origin(p.fileno())
    assert origin is not None
    assert origin.port == PORT
    assert receive(p, len(data)) == data


def test_fast_open_by_option_asks_at_connect(rig: Rig) -> None:
    """TCP_FASTOPEN_CONNECT: connect() returns before anything is sent, but not before it is judged."""
    rig.policy(defaults=CLOSED)
    c = rig.socket("client")
    c.setsockopt(socket.IPPROTO_TCP, 30, 1)  # TCP_FASTOPEN_CONNECT, include/uapi/linux/tcp.h
    assert c.connect_ex(V4.to(rig.network["server"], PORT)) == errno.EPERM
    rig.policy(Rule("client", EGRESS, REDIRECT))
    c = rig.socket("client")
    c.setsockopt(socket.IPPROTO_TCP, 30, 1)
    c.connect(V4.to(rig.network["server"], PORT))
    c.sendall(b"late")
    assert receive(rig.proxy("client", EGRESS), 4) == b"late"


MPTCP = 262  # IPPROTO_MPTCP, include/uapi/linux/in.h


@pytest.mark.parametrize("family", [V4, V6], ids=lambda family: family.name)
def test_mptcp_is_policed_and_carried_without_a_splice(rig: Rig, family: Family) -> None:
    """An MPTCP socket's first subflow is judged and redirected as TCP is; it cannot enter a sockhash."""
    to = family.to(rig.network["server"], PORT)
    rig.policy(defaults=CLOSED)
    assert rig.socket("client", family.family, protocol=MPTCP).connect_ex(to) == errno.EPERM
    rig.policy(Rule("client", EGRESS, REDIRECT))
    c = rig.socket("client", family.family, protocol=MPTCP)
    with rig.counting() as counted:
        c.connect(to)
        p = rig.proxy("client", EGRESS, 6 if family is V6 else 4)
    origin = rig.marks.origin(p.fileno())
    assert origin is not None
    assert (origin.paired, origin.port) == (True, PORT)
    assert counted[Counter.NOT_IN_SOCKHASH] == 1
    listener = rig.endpoints["client"].listeners[EGRESS, 6 if family is V6 else 4]
    assert c.getpeername()[1] == listener.getsockname()[1], "the hook does not know an MPTCP socket's subflow"
    c.sendall(b"over TCP")
    assert receive(p, 8) == b"over TCP"
    p.sendall(b"and back")
    assert receive(c, 8) == b"and back"


def test_an_mptcp_listener_is_a_server_like_any_other(rig: Rig) -> None:
    """Go listens with MPTCP by default: what reaches such a listener from kproxy is plain TCP, and spliced."""
    rig.policy(Rule("server", INGRESS, REDIRECT))
    listener = rig.socket("server", protocol=MPTCP)
    listener.bind(("0.0.0.0", PORT))
    listener.listen(8)
    c = rig.socket("client")
    c.connect(V4.to(rig.network["server"], PORT))
    p = rig.proxy("server", INGRESS)
    rig.upstream("server", p.getsockname(), client=unmapped(p.getpeername()))
    s = rig.accept(listener)
    assert unmapped(s.getpeername()) == unmapped(c.getsockname())


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "::ffff:0.0.0.0"])
def test_no_address_means_the_pod_itself(rig: Rig, address: str) -> None:
    """connect() to the unspecified address goes to loopback, and is as free."""
    rig.policy(defaults={"client": (DENY, DENY)})
    family = MAPPED if "." in address and ":" in address else V6 if ":" in address else V4
    listener = rig.server("client", PORT, family)
    c = rig.socket("client", family.family)
    c.connect((address, PORT))
    c.sendall(b"x")
    assert receive(rig.accept(listener), 1) == b"x"


@pytest.mark.parametrize("address", ["255.255.255.255", "224.0.0.251", "ff02::1", "ff05::2", "broadcast"])
def test_one_to_many_is_judged_like_one_to_one(rig: Rig, address: str) -> None:
    """Broadcast and multicast addresses have an identity as others have, and the default holds for them."""
    to = (str(rig.network.v4.broadcast_address) if address == "broadcast" else address, PORT)
    sender = rig.socket("client", socket.AF_INET6 if ":" in to[0] else socket.AF_INET, socket.SOCK_DGRAM)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    destination = (*to, 0, if_index(rig)) if ":" in to[0] else to
    rig.policy(defaults=CLOSED)
    with pytest.raises(PermissionError):
        sender.sendto(b"x", destination)
    rig.policy()
    assert sender.sendto(b"x", destination) == 1


def if_index(rig: Rig) -> int:
    """The number of eth0 in the client's pod."""
    with rig.namespace("client").entered():
        return socket.if_nametoindex("eth0")


@pytest.mark.parametrize("protocol", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["TCP", "UDP"])
def test_loopback_through_a_device_is_not_loopback(rig: Rig, protocol: int) -> None:
    """Bound to eth0, a socket routes 127.0.0.1 out of the pod: that is a call like any other, and denied."""
    rig.policy(defaults=CLOSED)
    c = rig.socket("client", kind=protocol)
    c.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0\0")
    assert c.connect_ex(("127.0.0.1", PORT)) == errno.EPERM


def test_a_refused_call_can_not_be_made_by_io_uring(rig: Rig) -> None:
    """IORING_OP_CONNECT ends in the same function of the kernel: EPERM."""
    from uring import connect

    rig.policy(defaults=CLOSED)
    c = rig.socket("client")
    result = connect(c.fileno(), (str(rig.network["server"].v4), PORT))
    assert result == -errno.EPERM
    assert list(accept_all(rig.server("server", PORT))) == []
