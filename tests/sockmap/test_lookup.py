"""sk_lookup: what may come into a pod, who it is held to come from, and how kproxy's own gets through."""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
from kernel_rig import (
    ANNOUNCE,
    DENY,
    EGRESS,
    FAMILIES,
    HOST,
    INGRESS,
    NODE,
    PASS,
    PATIENCE_S,
    REDIRECT,
    TCP,
    UDP,
    V4,
    V6,
    Family,
    Rig,
    Rule,
    abort,
    accept_all,
    eventually,
    receive,
    unmapped,
    unreachable,
)

from sockmap.layout import Action, Counter, Direction

pytestmark = pytest.mark.bpf

PORT = 8080
BY_FAMILY = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
CALLERS = pytest.mark.parametrize("caller", ["client", "other", "host"])
SHUT = {"server": (DENY, PASS)}  # nothing may come into the server


@BY_FAMILY
@CALLERS
def test_what_passes_is_an_ordinary_connection(rig: Rig, family: Family, caller: str) -> None:
    """PASS: the server's own listener takes it, and kproxy has no part in it."""
    listener = rig.server("server", PORT, family)
    c = rig.socket(caller, family.family)
    with rig.counting() as counted:
        c.connect(family.to(rig.network["server"], PORT))
        s = rig.accept(listener)
    assert unmapped(s.getpeername()) == unmapped(c.getsockname())
    assert unmapped(s.getsockname()) == unmapped(c.getpeername())
    assert rig.marks.state(s.fileno()) is None
    assert not any(counted.values())


@BY_FAMILY
@CALLERS
def test_what_is_denied_is_reset_at_once(rig: Rig, family: Family, caller: str) -> None:
    """DENY: the caller is refused by the first packet that comes back, and the denial is counted and told."""
    listener = rig.server("server", PORT, family)
    rig.policy(defaults=SHUT)
    number = rig.endpoints["server"].number
    before = rig.hooks.counters.verdicts(number)[Direction.INGRESS, Action.DENY]
    c = rig.socket(caller, family.family)
    assert c.connect_ex(family.to(rig.network["server"], PORT)) == errno.ECONNREFUSED
    assert list(accept_all(listener)) == []
    assert rig.hooks.counters.verdicts(number)[Direction.INGRESS, Action.DENY] == before + 1
    endpoint, direction, identity, protocol, port, _ = rig.denied()[0]
    assert (endpoint, direction, protocol, port) == (number, INGRESS, TCP, PORT)
    assert identity == (HOST if caller == "host" else rig.identity(caller))


@BY_FAMILY
@CALLERS
def test_what_is_redirected_keeps_every_address(rig: Rig, family: Family, caller: str) -> None:
    """REDIRECT: P's own name is the original destination, and the server is shown the real client."""
    rig.policy(Rule("server", INGRESS, REDIRECT))
    flow = rig.ingress(caller, "server", family=family, port=PORT)
    server = rig.network["server"]
    assert unmapped(flow.p.getsockname()) == (server.v6 if family is V6 else server.v4, PORT)
    assert unmapped(flow.p.getpeername()) == unmapped(flow.c.getsockname())
    assert unmapped(flow.c.getpeername()) == unmapped(flow.p.getsockname())
    assert unmapped(flow.s.getpeername()) == unmapped(flow.c.getsockname())
    assert flow.origin is not None
    assert flow.origin.paired
    namespace = rig.namespace(caller)
    assert flow.origin.peer_netns == namespace.cookie
    for _, sender, reader in flow.ways():
        sender.sendall(b"all four ways")
        assert receive(reader, 13) == b"all four ways"


@pytest.mark.parametrize("family", [V4, V6], ids=lambda family: family.name)
@pytest.mark.parametrize("port", [1, 22, 8080, 65535])
def test_any_port_is_steered_though_nobody_listens(rig: Rig, family: Family, port: int) -> None:
    """The proxy's listener takes the connection for whatever port was called, and can say which."""
    rig.policy(Rule("server", INGRESS, REDIRECT))
    c = rig.socket("other", family.family)
    c.connect(family.to(rig.network["server"], port))
    p = rig.proxy("server", INGRESS, 6 if family is V6 else 4)
    assert p.getsockname()[1] == port


def test_an_address_that_only_the_pod_knows_is_steered(rig: Rig) -> None:
    """A second address of the pod, which no file names, is under the same policy."""
    import subprocess

    extra = str(rig.network.v4[77])
    inside = ["nsenter", f"--net={rig.network['server'].netns}"]
    subprocess.run([*inside, "ip", "address", "add", f"{extra}/24", "dev", "eth0"], check=True)
    try:
        rig.policy(Rule("server", INGRESS, REDIRECT))
        c = rig.socket("other")
        c.connect((extra, PORT))
        assert rig.proxy("server", INGRESS).getsockname() == (extra, PORT)
    finally:
        subprocess.run([*inside, "ip", "address", "del", f"{extra}/24", "dev", "eth0"], check=True)


@BY_FAMILY
def test_a_default_decides_where_no_entry_does(rig: Rig, family: Family) -> None:
    """Entries are exceptions: of a peer, a protocol, a range of ports."""
    rig.policy(Rule("server", INGRESS, PASS, peer="client", ports=(8000, 8999)), defaults=SHUT)
    rig.server("server", PORT, family)
    rig.server("server", 9000, family)
    server = rig.network["server"]
    assert rig.socket("client", family.family).connect_ex(family.to(server, PORT)) == 0
    assert rig.socket("client", family.family).connect_ex(family.to(server, 9000)) == errno.ECONNREFUSED
    assert rig.socket("other", family.family).connect_ex(family.to(server, PORT)) == errno.ECONNREFUSED


def test_without_a_listener_of_kproxys_a_redirect_is_a_denial(rig: Rig) -> None:
    """The proxy is down, its hook is not: closed, and counted."""
    rig.policy(Rule("server", INGRESS, REDIRECT))
    server = rig.endpoints["server"]
    listener = server.listeners[INGRESS, 4]
    with rig.server("server") as short_lived:
        rig.marks.mark_listener(short_lived, server.number, INGRESS)
    try:
        with rig.counting() as counted:
            assert rig.socket("client").connect_ex(V4.to(rig.network["server"], PORT)) == errno.ECONNREFUSED
        assert counted[Counter.LISTENER_MISSING] == 1
    finally:
        rig.marks.mark_listener(listener, server.number, INGRESS)


# ---- what kproxy itself opens ---------------------------------------------------------------------------------


@BY_FAMILY
def test_an_upstream_inside_the_pod_is_not_redirected_again(rig: Rig, family: Family) -> None:
    """U is opened in the server's namespace to the pod's own address: it reaches the server, not the proxy."""
    rig.policy(Rule("server", INGRESS, REDIRECT), defaults=SHUT)
    listener = rig.server("server", PORT, family)
    client = (IPv6Address("2001:db8::7"), 1234) if family is V6 else (IPv4Address("192.0.2.7"), 1234)
    server = rig.network["server"]
    u = rig.upstream("server", (V6 if family is V6 else V4).to(server, PORT), client=client)
    s, accepted = listener.accept()
    rig.keep(s)
    assert unmapped(accepted) == unmapped(s.getpeername()) == client
    assert rig.marks.state(u.fileno()) is not None


@BY_FAMILY
def test_an_announced_upstream_passes_where_others_do_not(rig: Rig, family: Family) -> None:
    """One flow has judged both sides: its upstream passes the server's ingress; the pod's own sockets do not."""
    rig.policy(Rule("client", EGRESS, REDIRECT), Rule("server", INGRESS, REDIRECT), defaults=SHUT)
    listener = rig.server("server", PORT, family)
    client, server = rig.network["client"], rig.network["server"]
    plain = V6 if family is V6 else V4
    shown = plain.address_of(client)
    for flags, reaches_server in ((ANNOUNCE, True), (type(ANNOUNCE)(0), False)):
        rig.upstream("client", plain.to(server, PORT), client=(client.v4, 7), source=shown, flags=flags)
        if reaches_server:
            assert unmapped(rig.accept(listener).getpeername()) == (client.v4, 7)
        else:
            rig.proxy("server", INGRESS, 6 if family is V6 else 4)
            assert list(accept_all(listener)) == []


def test_an_announcement_dies_with_its_socket(rig: Rig) -> None:
    """Its SYN lost, U gives up: whoever takes its port then is judged like anybody."""
    rig.policy(defaults=SHUT)
    listener = rig.server("server", PORT)
    client, server = rig.network["client"], rig.network["server"]
    u = rig.socket("client")
    rig.marks.mark_upstream(u.fileno(), rig.endpoints["client"].number, None, ANNOUNCE)
    with unreachable(rig, "server", seen_from="client"):
        u.settimeout(0.1)
        with pytest.raises(TimeoutError):
            u.connect((str(server.v4), PORT))
        port = u.getsockname()[1]
        abort(u)
    attacker = rig.socket("client")
    attacker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    attacker.bind((str(client.v4), port))
    assert attacker.connect_ex((str(server.v4), PORT)) == errno.ECONNREFUSED
    assert list(accept_all(listener)) == []


def test_a_live_announcement_is_of_no_use_to_the_pods_other_sockets(rig: Rig) -> None:
    """While U holds its port, no socket of the pod can have the same two ends."""
    rig.policy(defaults=SHUT)
    listener = rig.server("server", PORT)
    client, server = rig.network["client"], rig.network["server"]
    u = rig.upstream("client", (str(server.v4), PORT), source=str(client.v4), flags=ANNOUNCE)
    rig.accept(listener)
    u.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    attacker = rig.socket("client")
    attacker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    attacker.bind((str(client.v4), u.getsockname()[1]))
    assert attacker.connect_ex((str(server.v4), PORT)) == errno.EADDRNOTAVAIL


# ---- the host -------------------------------------------------------------------------------------------------


@BY_FAMILY
def test_the_host_is_who_opens_a_socket_there(rig: Rig, family: Family) -> None:
    """A connection from the host's namespace has the host's identity; its address alone would say otherwise."""
    rig.policy(Rule("server", INGRESS, PASS, peer=HOST), defaults=SHUT)
    listener = rig.server("server", PORT, family)
    c = rig.socket("host", family.family)
    c.connect(family.to(rig.network["server"], PORT))
    s = rig.accept(listener)
    assert unmapped(s.getpeername()) == unmapped(c.getsockname())


def test_the_nodes_address_in_a_pod_is_not_the_host(rig: Rig) -> None:
    """A pod that takes the node's address (CAP_NET_ADMIN, or a raw socket) is judged by that address."""
    import subprocess

    rig.policy(Rule("server", INGRESS, PASS, peer=HOST), defaults=SHUT)
    rig.server("server", PORT)
    node = str(rig.network.host_v4)
    inside = ["nsenter", f"--net={rig.network['other'].netns}"]
    subprocess.run([*inside, "ip", "address", "add", f"{node}/32", "dev", "lo"], check=True)
    try:
        c = rig.socket("other")
        c.bind((node, 0))
        c.setblocking(False)
        c.connect_ex((str(rig.network["server"].v4), PORT))
        eventually(rig.denied, "the connection is denied")
    finally:
        subprocess.run([*inside, "ip", "address", "del", f"{node}/32", "dev", "lo"], check=True)
    assert [(denial[1], denial[2]) for denial in rig.denied()] == [(INGRESS, NODE)]


# ---- datagrams ------------------------------------------------------------------------------------------------


def question(
    rig: Rig, caller: str, family: Family, *, connected: bool = False, patience: float = PATIENCE_S
) -> tuple[bytes, bytes]:
    """Send a datagram to a server in the server's pod and have it answered; what each of them received.

    Raises TimeoutError, PermissionError or ConnectionRefusedError where it does not come through.
    """
    server = rig.socket("server", family.server_family, socket.SOCK_DGRAM)
    if family.server_family == socket.AF_INET6:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.bind((family.anywhere, 0))
    server.settimeout(patience)
    client = rig.socket(caller, family.family, socket.SOCK_DGRAM)
    client.settimeout(patience)
    to = family.to(rig.network["server"], server.getsockname()[1])
    if connected:
        client.connect(to)
        client.send(b"question")
    else:
        client.sendto(b"question", to)
    asked, whence = server.recvfrom(100)
    server.sendto(b"answer", whence)
    return asked, client.recv(100)


BOTH = (b"question", b"answer")
CONNECTED = pytest.mark.parametrize("connected", [False, True], ids=["sendto", "connect"])


@BY_FAMILY
@CALLERS
@CONNECTED
def test_datagrams_that_may_come_in_are_answered(
    rig: Rig, family: Family, caller: str, connected: bool
) -> None:
    """The server's answers leave although nothing else may leave it: they belong to what was let in."""
    rig.policy(Rule("server", INGRESS, PASS, protocol=UDP), defaults={"server": (DENY, DENY)})
    assert question(rig, caller, family, connected=connected) == BOTH


@BY_FAMILY
@CONNECTED
def test_answers_to_datagrams_that_may_go_out_come_in(rig: Rig, family: Family, connected: bool) -> None:
    """The client's default denies all that comes in, as for a pod that only asks its resolver."""
    rig.policy(Rule("client", EGRESS, PASS, peer="server", protocol=UDP), defaults={"client": (DENY, DENY)})
    assert question(rig, "client", family, connected=connected) == BOTH


@BY_FAMILY
@CALLERS
def test_datagrams_that_may_not_come_in_reach_nobody(rig: Rig, family: Family, caller: str) -> None:
    """UDP has no reset: the sender may see ICMP's port unreachable, and the server sees nothing."""
    rig.policy(defaults=SHUT)
    with pytest.raises((TimeoutError, ConnectionRefusedError)):
        question(rig, caller, family, patience=0.3)
    assert {denial[:2] + denial[3:4] for denial in rig.denied()} == {
        (rig.endpoints["server"].number, INGRESS, UDP)
    }


@BY_FAMILY
@CONNECTED
def test_datagrams_that_may_not_go_out_are_refused(rig: Rig, family: Family, connected: bool) -> None:
    """EPERM from connect() and from sendto(); where the rule would redirect TCP, a datagram is refused too."""
    for action in (DENY, REDIRECT):
        rig.policy(Rule("client", EGRESS, action, protocol=UDP))
        with pytest.raises(PermissionError):
            question(rig, "client", family, connected=connected)


def test_a_connected_datagram_socket_may_not_send_elsewhere(rig: Rig) -> None:
    """sendto() on a connected socket is judged by where it goes, also with an address of family AF_UNSPEC."""
    rig.policy(Rule("client", EGRESS, PASS, peer="other", protocol=UDP), defaults={"client": (PASS, DENY)})
    c = rig.socket("client", kind=socket.SOCK_DGRAM)
    c.connect(V4.to(rig.network["other"], PORT))
    c.send(b"allowed")
    with pytest.raises(PermissionError):
        c.sendto(b"x", V4.to(rig.network["server"], PORT))
    assert send_unspecified(c, V4.to(rig.network["server"], PORT)) == errno.EPERM


def send_unspecified(sock: socket.socket, to: tuple[str, int]) -> int:
    """sendto() with family AF_UNSPEC, which IPv4 takes for AF_INET; the error, or 0."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    name = struct.pack("=H", socket.AF_UNSPEC) + struct.pack("!H4s8x", to[1], socket.inet_aton(to[0]))
    sent = libc.sendto(sock.fileno(), b"x", 1, 0, name, len(name))
    return ctypes.get_errno() if sent < 0 else 0


def test_an_answer_is_expected_from_whom_was_asked_only(rig: Rig) -> None:
    """Who was not asked, or answers from another port, is judged like anybody."""
    rig.policy(Rule("client", EGRESS, PASS, protocol=UDP), defaults={"client": (DENY, DENY)})
    asked, stranger = (rig.socket("other", kind=socket.SOCK_DGRAM) for _ in range(2))
    for sock in (asked, stranger):
        sock.bind(("0.0.0.0", 0))
    c = rig.socket("client", kind=socket.SOCK_DGRAM)
    c.sendto(b"question", V4.to(rig.network["other"], asked.getsockname()[1]))
    _, whence = asked.recvfrom(100)
    stranger.sendto(b"forged", whence)
    asked.sendto(b"answer", whence)
    assert c.recv(100) == b"answer"
    c.settimeout(0.1)
    with pytest.raises(TimeoutError):
        c.recv(100)


# ---- forged packets -------------------------------------------------------------------------------------------


ETHERTYPE_IPV6 = 0x86DD


def ipv6_datagram(source: IPv6Address, destination: IPv6Address, port: int, data: bytes) -> bytes:
    """An IPv6 packet with a UDP datagram in it, checksum and all (RFC 8200 section 8.1)."""
    length = 8 + len(data)
    udp = struct.pack("!HHHH", 5353, port, length, 0) + data
    pseudo = source.packed + destination.packed + struct.pack("!IxxxB", length, socket.IPPROTO_UDP) + udp
    total = sum(struct.unpack(f"!{len(pseudo) // 2}H", pseudo + b"\0" * (len(pseudo) % 2)))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~(total + (total >> 16)) & 0xFFFF
    udp = udp[:6] + struct.pack("!H", checksum or 0xFFFF) + udp[8:]
    return (
        struct.pack("!IHBB", 6 << 28, length, socket.IPPROTO_UDP, 64)
        + source.packed
        + destination.packed
        + udp
    )


def hardware_address(rig: Rig, pod: str) -> bytes:
    """The address of a pod's eth0 (SIOCGIFHWADDR, netdevice(7))."""
    with rig.namespace(pod).socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        return fcntl.ioctl(asked, 0x8927, struct.pack("256s", b"eth0"))[18:24]


def inject(rig: Rig, packet: bytes, to: str) -> None:
    """Put a packet on the wire from the pod `other`, as CAP_NET_RAW lets a container do."""
    wire = rig.namespace("other").socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETHERTYPE_IPV6))
    with wire:
        wire.sendto(packet, ("eth0", ETHERTYPE_IPV6, 0, 0, hardware_address(rig, to)))


@pytest.mark.parametrize("forged", ["own", "mapped"])
def test_a_forged_source_opens_no_door(rig: Rig, forged: str) -> None:
    """IPv6 takes a packet whose source is our own address, or IPv4-mapped, from a device: policy does not."""
    server = rig.network["server"]
    source = server.v6 if forged == "own" else IPv6Address(f"::ffff:{rig.network['client'].v4}")
    reader = rig.socket("server", socket.AF_INET6, socket.SOCK_DGRAM)
    reader.bind(("::", 0))
    packet = ipv6_datagram(source, server.v6, reader.getsockname()[1], b"forged")
    inject(rig, packet, "server")
    if forged == "own":
        assert reader.recv(100) == b"forged", "without a policy the kernel lets it in: the packet is right"
    rig.policy(Rule("server", INGRESS, PASS, peer="client"), defaults=SHUT)
    before = len(rig.denied())
    inject(rig, packet, "server")
    eventually(lambda: len(rig.denied()) > before, "it is denied")
    reader.settimeout(0.1)
    with pytest.raises(TimeoutError):
        reader.recv(100)
