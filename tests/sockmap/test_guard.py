"""Packets that come past the connect hooks or sk_lookup: other protocols, other ways, other addresses."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from kernel_rig import (
    DENY,
    EGRESS,
    INGRESS,
    NODE,
    PASS,
    PATIENCE_S,
    TCP,
    UDP,
    V4,
    V6,
    Family,
    Rig,
    Rule,
    eventually,
)
from test_lookup import ETHERTYPE_IPV6, hardware_address, ipv6_datagram

from sockmap.layout import Action, Direction

pytestmark = pytest.mark.bpf

PORT = 9000
CLOSED = {"client": (PASS, DENY)}
SHUT = {"server": (DENY, PASS)}
UDP_LITE = 136  # IPPROTO_UDPLITE
ECHO, ECHO6 = b"\x08\0\0\0\0\1\0\1hello", b"\x80\0\0\0\0\1\0\1hello"


def whole(pod: str, direction: Direction, peer: str) -> tuple[Rule, Rule]:
    """What a rule without ports becomes."""
    return tuple(Rule(pod, direction, PASS, peer=peer, protocol=protocol) for protocol in (TCP, UDP))  # type: ignore[return-value]


# ---- leaving --------------------------------------------------------------------------------------------------


def udp_lite(rig: Rig, where: str, family: Family) -> None:
    """UDP-Lite (RFC 3828): its connect() asks no hook."""
    sock = rig.socket(where, family.family, socket.SOCK_DGRAM, UDP_LITE)
    sock.connect(family.to(rig.network["server"], PORT))
    sock.send(b"lite")


def ping(rig: Rig, where: str, family: Family, patience: float = PATIENCE_S) -> None:
    """A ping socket, which container runtimes let anybody have (net.ipv4.ping_group_range)."""
    with rig.namespace(where).entered():
        Path("/proc/sys/net/ipv4/ping_group_range").write_text("0 65535")
    protocol = socket.IPPROTO_ICMPV6 if family is V6 else socket.IPPROTO_ICMP
    sock = rig.socket(where, family.family, socket.SOCK_DGRAM, protocol)
    sock.settimeout(patience)
    sock.sendto(ECHO6 if family is V6 else ECHO, family.to(rig.network["server"], 0))
    assert sock.recv(100)[:1] == (b"\x81" if family is V6 else b"\x00")


def raw(rig: Rig, where: str, family: Family) -> None:
    """Some other protocol on a raw socket (253 is for experiments, RFC 3692)."""
    sock = rig.socket(where, family.family, socket.SOCK_RAW, 253)
    sock.sendto(b"raw", family.to(rig.network["server"], 0))


WAYS_OUT = pytest.mark.parametrize("leave", [udp_lite, ping, raw], ids=lambda leave: leave.__name__)
FAMILY = pytest.mark.parametrize("family", [V4, V6], ids=lambda family: family.name)


@FAMILY
@WAYS_OUT
def test_other_protocols_do_not_leave_a_closed_pod(
    rig: Rig, family: Family, leave: Callable[[Rig, str, Family], None]
) -> None:
    """Whose egress is denied by default sends nothing by them; the denial is counted, and told to most senders."""
    rig.policy(Rule("client", EGRESS, PASS, peer="server", ports=(PORT, PORT), protocol=UDP), defaults=CLOSED)
    before = rig.hooks.counters.verdicts(0)[Direction.EGRESS, Action.DENY]
    if (leave, family) == (ping, V6):
        with pytest.raises(TimeoutError):  # its sockets swallow the error
            ping(rig, "client", family, patience=0.3)
    else:
        with pytest.raises(PermissionError):
            leave(rig, "client", family)
    assert rig.hooks.counters.verdicts(0)[Direction.EGRESS, Action.DENY] == before + 1
    denial = rig.denied()[0]
    assert denial[:3] == (0, EGRESS, rig.identity("server"))


@FAMILY
@WAYS_OUT
@pytest.mark.parametrize("why", ["no policy", "whole peer", "another pod"])
def test_other_protocols_leave_where_policy_allows_the_peer(
    rig: Rig, family: Family, leave: Callable[[Rig, str, Family], None], why: str
) -> None:
    """A rule without ports lets them out too, as does having no egress policy, or no policy at all."""
    if why == "whole peer":
        rig.policy(*whole("client", EGRESS, "server"), defaults=CLOSED)
    leave(rig, "other" if why == "another pod" else "client", family)


def segment_routing(last: bytes, first: bytes) -> bytes:
    """A routing header of type 4 (RFC 8754) that goes to `first` before the destination of the call."""
    return bytes([0, 4, 4, 1, 1, 0, 0, 0]) + last + first


IPV6_RTHDR, IP_PKTINFO = 57, 8  # include/uapi/linux/in6.h and in.h


def test_a_routing_header_leads_nowhere_else(rig: Rig) -> None:
    """The call is to whom policy allows, the packet's first stop is not: that is what is judged."""
    other, server = rig.network["other"], rig.network["server"]
    rig.policy(*whole("client", EGRESS, "other"), defaults=CLOSED)
    sock = rig.socket("client", socket.AF_INET6, socket.SOCK_DGRAM)
    assert sock.sendto(b"straight", (str(other.v6), PORT)) == 8
    sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RTHDR, segment_routing(other.v6.packed, server.v6.packed))
    with pytest.raises(PermissionError):
        sock.sendto(b"around", (str(other.v6), PORT))
    assert rig.denied()[-1][5] == server.v6


def test_a_routing_header_does_not_open_a_connection(rig: Rig) -> None:
    """TCP: no SYN leaves, so the call times out."""
    other, server = rig.network["other"], rig.network["server"]
    rig.policy(*whole("client", EGRESS, "other"), defaults=CLOSED)
    sock = rig.socket("client", socket.AF_INET6)
    sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RTHDR, segment_routing(other.v6.packed, server.v6.packed))
    sock.setblocking(False)
    assert sock.connect_ex((str(other.v6), PORT)) in (errno.EINPROGRESS, errno.EPERM)
    eventually(rig.denied, "it is denied")
    assert rig.denied()[0][5] == server.v6


def test_loopback_cannot_be_routed_out(rig: Rig) -> None:
    """IP_PKTINFO names eth0 for a datagram to 127.0.0.1, which would reach the node where it routes such."""
    rig.policy(defaults=CLOSED)
    with rig.namespace("client").entered():
        index = socket.if_nametoindex("eth0")
    sock = rig.socket("client", kind=socket.SOCK_DGRAM)
    info = struct.pack("i4s4s", index, bytes(4), bytes(4))
    with pytest.raises(PermissionError):
        sock.sendmsg([b"out"], [(socket.IPPROTO_IP, IP_PKTINFO, info)], 0, ("127.0.0.1", PORT))
    assert sock.sendto(b"in", ("127.0.0.1", PORT)) == 2


def test_a_closed_pod_still_speaks_ip(rig: Rig) -> None:
    """Neighbour discovery, echo replies and port unreachable are the kernel's, not the application's."""
    import subprocess

    rig.policy(*whole("client", EGRESS, "server"), defaults=CLOSED)
    inside = ["nsenter", f"--net={rig.network['client'].netns}"]
    subprocess.run([*inside, "ip", "-6", "neighbour", "flush", "dev", "eth0"], check=True)
    rig.server("server", PORT, V6)
    assert rig.socket("client", socket.AF_INET6).connect_ex(V6.to(rig.network["server"], PORT)) == 0
    for family in (V4, V6):
        ping_from_other(rig, family)
    caller = rig.socket("other", kind=socket.SOCK_DGRAM)
    caller.connect(V4.to(rig.network["client"], PORT))
    caller.send(b"x")
    with pytest.raises(ConnectionRefusedError):
        caller.recv(10)


def ping_from_other(rig: Rig, family: Family) -> None:
    """The client's pod answers an echo request."""
    protocol = socket.IPPROTO_ICMPV6 if family is V6 else socket.IPPROTO_ICMP
    with rig.namespace("other").entered():
        Path("/proc/sys/net/ipv4/ping_group_range").write_text("0 65535")
    sock = rig.socket("other", family.family, socket.SOCK_DGRAM, protocol)
    sock.sendto(ECHO6 if family is V6 else ECHO, family.to(rig.network["client"], 0))
    assert sock.recv(100)[:1] == (b"\x81" if family is V6 else b"\x00")


# ---- arriving -------------------------------------------------------------------------------------------------

GROUP4, GROUP6 = "239.1.2.3", "ff05::1:2"


def group_reader(rig: Rig, address: str) -> socket.socket:
    """A socket in the server's pod that hears a group, or broadcasts."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    reader = rig.socket("server", family, socket.SOCK_DGRAM)
    reader.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", PORT))
    with rig.namespace("server").entered():
        index = socket.if_nametoindex("eth0")
    if address == GROUP6:
        request = socket.inet_pton(socket.AF_INET6, address) + struct.pack("@I", index)
        reader.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)
    elif address == GROUP4:
        request = socket.inet_aton(address) + struct.pack("@4si", bytes(4), index)
        reader.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
    return reader


def hears_nothing(reader: socket.socket) -> bool:
    """Whether nothing more comes, after what was denied has been told of."""
    reader.settimeout(0.1)
    with contextlib.suppress(TimeoutError):
        reader.recv(100)
        return False
    return True


def send_to_group(rig: Rig, where: str, address: str) -> None:
    """One datagram to it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sender = rig.socket(where, family, socket.SOCK_DGRAM)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    with rig.namespace(where).entered():
        index = socket.if_nametoindex("eth0" if where != "host" else rig.network.name)
    if family == socket.AF_INET6:
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
    else:
        sender.setsockopt(
            socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("@4s4si", bytes(4), bytes(4), index)
        )
    sender.sendto(b"to all", (address, PORT))


def groups(rig: Rig) -> list[str]:
    """A broadcast of the subnet, and a group of each family."""
    return [str(rig.network.v4.broadcast_address), GROUP4, GROUP6]


@pytest.mark.parametrize("group", [0, 1, 2], ids=["broadcast", "IPv4 multicast", "IPv6 multicast"])
def test_datagrams_to_all_are_judged_where_they_arrive(rig: Rig, group: int) -> None:
    """Broadcast and multicast come past sk_lookup; who may not send to the pod does not reach it so either."""
    address = groups(rig)[group]
    reader = group_reader(rig, address)
    send_to_group(rig, "other", address)
    assert reader.recv(100) == b"to all", "without a policy it arrives"
    rig.policy(Rule("server", INGRESS, PASS, peer="client", protocol=UDP), defaults=SHUT)
    send_to_group(rig, "other", address)
    eventually(rig.denied, "it is denied")
    assert rig.denied()[0][:5] == (rig.endpoints["server"].number, INGRESS, rig.identity("other"), UDP, PORT)
    send_to_group(rig, "client", address)
    assert reader.recv(100) == b"to all", "from whom the rule allows"
    assert hears_nothing(reader)


def test_a_pod_hears_its_own_multicast(rig: Rig) -> None:
    """What it sends to a group that it is in comes back to it, whatever policy says of others."""
    reader = group_reader(rig, GROUP4)
    rig.policy(defaults=SHUT)
    send_to_group(rig, "server", GROUP4)
    assert reader.recv(100) == b"to all"


@FAMILY
def test_other_protocols_do_not_reach_a_shut_pod(rig: Rig, family: Family) -> None:
    """UDP-Lite has listeners as UDP has, which sk_lookup does not guard."""
    reader = rig.socket("server", family.family, socket.SOCK_DGRAM, UDP_LITE)
    reader.bind(("::" if family is V6 else "0.0.0.0", PORT))
    for rules, defaults, arrives in (
        ((), {}, True),
        ((), SHUT, False),
        (whole("server", INGRESS, "other"), SHUT, True),
    ):
        rig.policy(*rules, defaults=defaults)
        udp_lite(rig, "other", family)
        if arrives:
            assert reader.recv(100) == b"lite"
        else:
            eventually(rig.denied, "it is denied")
            assert hears_nothing(reader)


def test_the_nodes_own_packets_are_judged_by_its_address(rig: Rig) -> None:
    """A broadcast from the host has the node's address, not the host's identity: that is of connections."""
    reader = group_reader(rig, groups(rig)[0])
    rig.policy(defaults=SHUT)
    send_to_group(rig, "host", groups(rig)[0])
    eventually(rig.denied, "it is denied")
    assert rig.denied()[0][2] == NODE
    assert hears_nothing(reader)


def test_a_forged_packet_of_another_protocol_is_judged_by_its_source(rig: Rig) -> None:
    """There is no more to go by: who may forge sources is the network's to prevent."""
    server, client = rig.network["server"], rig.network["client"]
    rig.policy(Rule("server", INGRESS, PASS, peer="client", protocol=UDP), defaults=SHUT)
    reader = rig.socket("server", socket.AF_INET6, socket.SOCK_DGRAM)
    reader.bind(("::", PORT))
    wire = rig.namespace("other").socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETHERTYPE_IPV6))
    with wire:
        packet = ipv6_datagram(client.v6, server.v6, PORT, b"forged")
        wire.sendto(packet, ("eth0", ETHERTYPE_IPV6, 0, 0, hardware_address(rig, "server")))
    assert reader.recv(100) == b"forged"
