"""What a tried policy would deny passes as anything else does, and is counted and told."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
from kernel_rig import (
    AUDIT,
    DENY,
    EGRESS,
    FAMILIES,
    INGRESS,
    MAPPED,
    PASS,
    TCP,
    UDP,
    V4,
    V6,
    Family,
    Rig,
    Rule,
    unmapped,
)
from test_guard import ping, raw, udp_lite

from sockmap.layout import Counter, IPAddress

pytestmark = pytest.mark.bpf

PORT = 8081
BY_FAMILY = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
CONNECTED = pytest.mark.parametrize("connected", [False, True], ids=["sendto", "connect"])
ENOUGH = 10  # lines that were not written: the share of that second was used up


def address(rig: Rig, pod: str, family: Family) -> IPAddress:
    """A pod's address, as the programs know it."""
    return rig.network[pod].v6 if family is V6 else rig.network[pod].v4


@BY_FAMILY
@pytest.mark.parametrize("how", ["entry", "default"])
def test_an_audited_call_is_an_ordinary_connection(rig: Rig, family: Family, how: str) -> None:
    """Egress: the server answers itself, nothing of it is in kproxy's books, one audit is counted and told."""
    rules = [Rule("client", EGRESS, AUDIT, peer="server")] if how == "entry" else []
    rig.policy(*rules, defaults={"client": (PASS, DENY if rules else AUDIT)})
    listener = rig.server("server", PORT, family)
    c = rig.socket("client", family.family)
    with rig.answering("client") as counted:
        c.connect(family.to(rig.network["server"], PORT))
        s = rig.accept(listener)
    assert unmapped(c.getpeername()) == unmapped(s.getsockname())
    assert rig.marks.state(c.fileno()) is None
    assert counted == {(EGRESS, AUDIT): 1}
    peer = address(rig, "server", family)
    assert rig.audited() == [(0, EGRESS, rig.identity("server"), TCP, PORT, peer)]


@BY_FAMILY
@pytest.mark.parametrize("caller", ["client", "other"])
def test_an_audited_caller_is_let_in(rig: Rig, family: Family, caller: str) -> None:
    """Ingress: sk_lookup leaves the connection to the server, and counts and tells it."""
    rig.policy(defaults={"server": (AUDIT, PASS)})
    listener = rig.server("server", PORT, family)
    with rig.answering("server") as counted:
        rig.socket(caller, family.family).connect(family.to(rig.network["server"], PORT))
        rig.accept(listener)
    assert counted == {(INGRESS, AUDIT): 1}
    number, peer = rig.endpoints["server"].number, address(rig, caller, family)
    assert rig.audited() == [(number, INGRESS, rig.identity(caller), TCP, PORT, peer)]


def conversation(rig: Rig, family: Family, *, connected: bool, times: int = 3) -> None:
    """The client asks a few times on one socket, and is answered each time."""
    server = rig.socket("server", family.server_family, socket.SOCK_DGRAM)
    if family.server_family == socket.AF_INET6:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.bind((family.anywhere, PORT))
    client = rig.socket("client", family.family, socket.SOCK_DGRAM)
    to = family.to(rig.network["server"], PORT)
    if connected:
        client.connect(to)
    for _ in range(times):
        client.send(b"question") if connected else client.sendto(b"question", to)
        _, whence = server.recvfrom(100)
        server.sendto(b"answer", whence)
        assert client.recv(100) == b"answer"


@BY_FAMILY
@CONNECTED
def test_audited_datagrams_leave_and_are_answered(rig: Rig, family: Family, connected: bool) -> None:
    """Egress: what the hooks see is counted, connect() and the first datagram are told; no answer is an audit.

    They see no datagram of a connected socket, but for those that an IPv6 socket hands over to IPv4.
    """
    rig.policy(defaults={"client": (AUDIT, AUDIT)})
    with rig.answering("client") as counted:
        conversation(rig, family, connected=connected)
    datagrams = 0 if connected and family is not MAPPED else 3
    assert counted == {(EGRESS, AUDIT): connected + datagrams}
    told = (0, EGRESS, rig.identity("server"), UDP, PORT, address(rig, "server", family))
    assert rig.audited() == [told] * (connected + bool(datagrams))


@BY_FAMILY
@CONNECTED
def test_audited_datagrams_come_in_and_are_answered(rig: Rig, family: Family, connected: bool) -> None:
    """Ingress: the same, although nothing may leave that pod of itself."""
    rig.policy(defaults={"server": (AUDIT, DENY)})
    with rig.answering("server") as counted:
        conversation(rig, family, connected=connected)
    assert counted == {(INGRESS, AUDIT): 3}
    number, peer = rig.endpoints["server"].number, address(rig, "client", family)
    assert rig.audited() == [(number, INGRESS, rig.identity("client"), UDP, PORT, peer)]


@pytest.mark.parametrize("before", [PASS, AUDIT], ids=lambda action: action.name)
def test_what_came_in_is_not_taken_for_an_answer_once_it_is_denied(rig: Rig, before: int) -> None:
    """A datagram that was let in allows its answers, and none of its own kind after the policy changed."""
    rig.policy(defaults={"server": (before, DENY)})
    server, client = (rig.socket(pod, kind=socket.SOCK_DGRAM) for pod in ("server", "client"))
    server.bind(("0.0.0.0", PORT))
    client.sendto(b"let in", V4.to(rig.network["server"], PORT))
    assert server.recv(100) == b"let in"
    rig.policy(defaults={"server": (DENY, DENY)})
    client.sendto(b"not any more", V4.to(rig.network["server"], PORT))
    server.settimeout(0.1)
    with pytest.raises(TimeoutError):
        server.recv(100)
    assert len(rig.denied()) == 1


@pytest.mark.parametrize("family", [V4, V6], ids=lambda family: family.name)
@pytest.mark.parametrize("leave", [udp_lite, ping, raw], ids=lambda leave: leave.__name__)
def test_other_protocols_are_audited_as_packets(
    rig: Rig, family: Family, leave: Callable[[Rig, str, Family], None]
) -> None:
    """They leave where the peer would be allowed whole but for the tried policy."""
    rig.policy(defaults={"client": (PASS, AUDIT)})
    with rig.answering("client") as counted:
        leave(rig, "client", family)
    assert counted == {(EGRESS, AUDIT): 1}
    assert [told[:3] for told in rig.audited()] == [(0, EGRESS, rig.identity("server"))]


def test_group_datagrams_are_audited(rig: Rig) -> None:
    """Broadcast comes past sk_lookup, and is judged where it reaches a socket."""
    rig.policy(defaults={"server": (AUDIT, PASS)})
    server = rig.socket("server", kind=socket.SOCK_DGRAM)
    server.bind(("0.0.0.0", PORT))
    other = rig.socket("other", kind=socket.SOCK_DGRAM)
    other.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    with rig.answering("server") as counted:
        for _ in range(2):
            other.sendto(b"all of you", (str(rig.network.v4.broadcast_address), PORT))
            assert server.recv(100) == b"all of you"
    assert counted == {(INGRESS, AUDIT): 2}
    assert len(rig.audited()) == 1


def untold(rig: Rig) -> int:
    """How many audits were counted and not told."""
    return rig.hooks.counters.read()[Counter.AUDITS_UNTOLD]


def test_a_flood_of_audits_leaves_denials_their_lines(rig: Rig) -> None:
    """What exceeds an endpoint's share of lines is counted as untold; another verdict has a share of its own."""
    rig.policy(Rule("client", EGRESS, DENY, peer="other"), defaults={"client": (PASS, AUDIT)})
    to = V4.to(rig.network["server"], PORT)
    times = 0
    with rig.counting() as counted, rig.answering("client") as answered:
        before = untold(rig)
        while untold(rig) < before + ENOUGH:
            times += 1
            with rig.namespace("client").socket(socket.AF_INET, socket.SOCK_DGRAM) as caller:
                caller.connect(to)
        with pytest.raises(PermissionError):
            rig.socket("client").connect(V4.to(rig.network["other"], PORT))
    assert answered == {(EGRESS, AUDIT): times, (EGRESS, DENY): 1}
    assert counted[Counter.AUDITS_UNTOLD] == times - len(rig.audited()) == ENOUGH
    assert counted[Counter.DENIALS_UNTOLD] == 0
    assert len(rig.denied()) == 1
