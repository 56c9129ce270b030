"""The connect hooks: who may call whom, and that a call which is sent to kproxy looks as if it were not."""

from __future__ import annotations

import errno
import os
import socket
from ipaddress import ip_network

import pytest
from kernel_rig import (
    DENY,
    EGRESS,
    FAMILIES,
    MAPPED,
    PASS,
    REDIRECT,
    TCP,
    UDP,
    V4,
    V6,
    WORLD,
    Family,
    Rig,
    Rule,
    accept_all,
    receive,
    unmapped,
)

from sockmap.layout import Action, Counter, Direction

pytestmark = pytest.mark.bpf

PORT = 8080
BY_FAMILY = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


def listener_version(family: Family) -> int:
    """Which of kproxy's listeners such a client reaches."""
    return 6 if family is V6 else 4


@BY_FAMILY
def test_what_passes_is_an_ordinary_connection(rig: Rig, family: Family) -> None:
    """PASS: the server itself answers, both ends see each other, and nothing of it is in kproxy's books."""
    listener = rig.server("server", PORT, family)
    c = rig.socket("client", family.family)
    with rig.counting() as counted:
        c.connect(family.to(rig.network["server"], PORT))
        s = rig.accept(listener)
    assert unmapped(c.getpeername()) == unmapped(s.getsockname())
    assert unmapped(c.getsockname()) == unmapped(s.getpeername())
    assert rig.marks.state(c.fileno()) is None
    assert rig.marks.state(s.fileno()) is None
    assert not any(counted.values())


@BY_FAMILY
def test_what_is_denied_ends_with_eperm_before_a_packet_leaves(rig: Rig, family: Family) -> None:
    """DENY: the caller is told at once, the server sees nothing, and the denial is counted and told."""
    listener = rig.server("server", PORT, family)
    rig.policy(Rule("client", EGRESS, DENY, peer="server"))
    before = rig.hooks.counters.verdicts(0)[Direction.EGRESS, Action.DENY]
    with pytest.raises(PermissionError):
        rig.socket("client", family.family).connect(family.to(rig.network["server"], PORT))
    assert list(accept_all(listener)) == []
    assert rig.hooks.counters.verdicts(0)[Direction.EGRESS, Action.DENY] == before + 1
    server = rig.network["server"]
    peer = server.v6 if family is V6 else server.v4
    assert rig.denied() == [(0, EGRESS, rig.identity("server"), TCP, PORT, peer)]


@BY_FAMILY
def test_a_redirected_call_keeps_every_address(rig: Rig, family: Family) -> None:
    """REDIRECT: client and server see what they would see without kproxy; P's record has the destination."""
    rig.policy(Rule("client", EGRESS, REDIRECT, peer="server"))
    client, server = rig.network["client"], rig.network["server"]
    with rig.counting() as counted:
        flow = rig.egress("client", "server", family=family, port=PORT)
    own, called = (client.v6, server.v6) if family is V6 else (client.v4, server.v4)
    local = unmapped(flow.c.getsockname())
    assert local[0] == own
    assert unmapped(flow.c.getpeername()) == (called, PORT)
    assert unmapped(flow.p.getpeername()) == local
    assert flow.origin is not None
    assert (flow.origin.destination, flow.origin.port) == (called, PORT)
    assert flow.origin.paired
    assert flow.origin.peer_netns == rig.endpoints["client"].namespace.cookie
    assert unmapped(flow.s.getpeername()) == local
    assert counted[Counter.REDIRECTED] == counted[Counter.REDIRECTS_ARRIVED] == 1


def test_accept_says_what_getpeername_says(rig: Rig) -> None:
    """accept() asks the same hook: a server that only reads its result sees the real client too."""
    rig.policy(Rule("client", EGRESS, REDIRECT))
    listener = rig.server("server", PORT)
    c = rig.socket("client")
    c.connect(V4.to(rig.network["server"], PORT))
    rig.proxy("client", EGRESS)
    local = unmapped(c.getsockname())
    rig.upstream("client", V4.to(rig.network["server"], PORT), client=local, source=str(local[0]))
    s, accepted = listener.accept()
    rig.keep(s)
    assert unmapped(accepted) == local


@BY_FAMILY
def test_the_longest_prefix_names_the_peer(rig: Rig, family: Family) -> None:
    """An address belongs to the narrowest range that holds it; a socket's family makes no difference."""
    net = rig.network.v6 if family is V6 else rig.network.v4
    wide, narrow, exact = 40, 41, 42
    ranges = [
        (net, wide),
        (ip_network((net[192], net.max_prefixlen - 6)), narrow),
        (ip_network(net[201]), exact),
    ]
    rig.policy(
        defaults={"client": (PASS, DENY)},
        prefixes=[(str(network), identity) for network, identity in ranges],
    )
    outside = "2001:db8::1" if family is V6 else "192.0.2.1"
    called = [str(net[100]), str(net[191]), str(net[192]), str(net[200]), str(net[201]), str(net[3]), outside]
    for address in called:
        written = f"::ffff:{address}" if family is MAPPED else address
        assert refused(rig, (written, PORT), family) == errno.EPERM
    identities = [wide, wide, narrow, narrow, exact, rig.identity("server"), WORLD]
    assert [denial[2] for denial in rig.denied()] == identities
    assert [str(denial[5]) for denial in rig.denied()] == called


def refused(rig: Rig, to: tuple[str, int], family: Family = V4, kind: int = socket.SOCK_STREAM) -> int:
    """The error of a connect(); 0 where it went well."""
    c = rig.socket("client", family.family, kind)
    try:
        return c.connect_ex(to)
    finally:
        c.close()


@pytest.mark.parametrize(
    ("ports", "inside", "outside"),
    [
        ((80, 80), [80], [79, 81]),
        ((1000, 1999), [1000, 1023, 1024, 1500, 1999], [999, 2000]),
        ((0, 65535), [1, 80, 65535], []),
        ((32768, 65535), [32768, 65535], [32767]),
        ((1, 65534), [1, 65534], [65535]),
    ],
)
def test_a_port_range_holds_its_ports_and_no_others(
    rig: Rig, ports: tuple[int, int], inside: list[int], outside: list[int]
) -> None:
    """Ranges are cut into prefixes: their edges are where that could go wrong."""
    rig.policy(Rule("client", EGRESS, DENY, peer="server", ports=ports))
    address = str(rig.network["server"].v4)
    assert [refused(rig, (address, port)) for port in inside] == [errno.EPERM] * len(inside)
    assert [refused(rig, (address, port)) for port in outside] == [errno.ECONNREFUSED] * len(outside)


def test_protocols_are_told_apart(rig: Rig) -> None:
    """A rule for UDP says nothing of TCP on the same port."""
    rig.policy(Rule("client", EGRESS, DENY, protocol=UDP, ports=(PORT, PORT)))
    to = V4.to(rig.network["server"], PORT)
    assert refused(rig, to, kind=socket.SOCK_DGRAM) == errno.EPERM
    assert refused(rig, to) == errno.ECONNREFUSED


def test_an_endpoint_that_no_policy_knows_is_denied_everything(rig: Rig) -> None:
    """Between being enforced and the first policy that has it, and after a failure: closed, and counted."""
    number = rig.endpoints["client"].number
    rig.marks.enforce(rig.endpoints["client"].namespace.cookie, 999)
    try:
        with rig.counting() as counted:
            assert refused(rig, V4.to(rig.network["server"], PORT)) == errno.EPERM
        assert counted[Counter.NO_POLICY] == 1
    finally:
        rig.marks.enforce(rig.endpoints["client"].namespace.cookie, number)


@BY_FAMILY
def test_a_non_blocking_call_is_redirected_as_well(rig: Rig, family: Family) -> None:
    """connect() says EINPROGRESS or that it is done, and the socket becomes writable with no error."""
    rig.policy(Rule("client", EGRESS, REDIRECT))
    c = rig.socket("client", family.family)
    c.setblocking(False)
    assert c.connect_ex(family.to(rig.network["server"], PORT)) in (0, errno.EINPROGRESS)
    p = rig.proxy("client", EGRESS, listener_version(family))
    assert c.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    c.settimeout(5)
    c.sendall(b"hello")
    assert receive(p, 5) == b"hello"


@BY_FAMILY
def test_a_socket_may_call_again_after_a_refusal(rig: Rig, family: Family) -> None:
    """What a refused or reset call left on the socket does not speak for the next one."""
    other, server = (family.to(rig.network[name], PORT) for name in ("other", "server"))
    rig.policy(Rule("client", EGRESS, DENY, peer="other"), Rule("client", EGRESS, REDIRECT, peer="server"))
    c = rig.socket("client", family.family)
    assert c.connect_ex(other) == errno.EPERM
    assert c.connect_ex(server) == 0
    rig.proxy("client", EGRESS, listener_version(family))
    assert unmapped(c.getpeername()) == unmapped(server)


DISCONNECT = b"\0\0" + bytes(14)  # struct sockaddr with AF_UNSPEC


def disconnect(sock: socket.socket) -> None:
    """connect(AF_UNSPEC): TCP sockets close their connection and can be used again (connect(2))."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.connect(sock.fileno(), DISCONNECT, len(DISCONNECT)) == 0, os.strerror(ctypes.get_errno())


@BY_FAMILY
def test_a_socket_may_be_disconnected_and_call_someone_else(rig: Rig, family: Family) -> None:
    """Redirected, disconnected, then a call that passes: nothing of the first is left on the socket."""
    rig.policy(Rule("client", EGRESS, REDIRECT, peer="server"))
    listener = rig.server("other", PORT, family)
    c = rig.socket("client", family.family)
    c.connect(family.to(rig.network["server"], PORT))
    rig.proxy("client", EGRESS, listener_version(family))
    slot = rig.slot(c)
    disconnect(c)
    assert rig.splicer.mode(slot, rig.splicer.snapshot(slot).mode_generation & 0xFFFFFFFF) == 2
    c.connect(family.to(rig.network["other"], PORT))
    s = rig.accept(listener)
    assert unmapped(c.getpeername()) == unmapped(s.getsockname())
    assert rig.marks.state(c.fileno()) is None
    c.sendall(b"direct")
    assert receive(s, 6) == b"direct"


def test_a_disconnected_socket_that_listens_gives_its_children_nothing(rig: Rig) -> None:
    """connect, disconnect, listen, accept: an accepted socket inherits no record of the listener's past call."""
    rig.policy(Rule("client", EGRESS, REDIRECT))
    c = rig.socket("client")
    c.connect(V4.to(rig.network["server"], PORT))
    rig.proxy("client", EGRESS)
    disconnect(c)
    c.listen(1)
    caller = rig.socket("client")
    caller.connect(c.getsockname())
    child, accepted = c.accept()
    rig.keep(child)
    assert unmapped(accepted) == unmapped(caller.getsockname()) == unmapped(child.getpeername())
    assert rig.marks.state(child.fileno()) is None
    caller.sendall(b"inside")
    assert receive(child, 6) == b"inside"


@pytest.mark.parametrize("family", [V4, MAPPED], ids=lambda family: family.name)
def test_one_source_port_may_call_two_destinations(rig: Rig, family: Family) -> None:
    """Bound to a port, an application may use it towards many peers at once; each keeps its own destination."""
    rig.policy(Rule("client", EGRESS, REDIRECT))
    source = ("::ffff:" if family is MAPPED else "") + str(rig.network["client"].v4)
    called = set()
    for name in ("server", "other"):
        c = rig.socket("client", family.family)
        c.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        c.bind((source, 40500))
        c.connect(family.to(rig.network[name], PORT))
        origin = rig.marks.origin(rig.proxy("client", EGRESS).fileno())
        assert origin is not None
        called.add(origin.destination)
        assert unmapped(c.getsockname()) == (rig.network["client"].v4, 40500)
    assert called == {rig.network["server"].v4, rig.network["other"].v4}


def test_over_ipv6_one_source_port_calls_one_destination_at_a_time(rig: Rig) -> None:
    """There is only one ::1: a second redirected call from a bound port is refused while the first lives."""
    rig.policy(Rule("client", EGRESS, REDIRECT))
    results = []
    for name in ("server", "other"):
        c = rig.socket("client", socket.AF_INET6)
        c.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        c.bind((str(rig.network["client"].v6), 40502))
        results.append(c.connect_ex(V6.to(rig.network[name], PORT)))
    assert results == [0, errno.EADDRNOTAVAIL]


def test_two_ports_of_one_destination_from_one_source_port(rig: Rig) -> None:
    """The port takes part in spreading, as does the address."""
    rig.policy(Rule("client", EGRESS, REDIRECT))
    for port in range(PORT, PORT + 5):
        c = rig.socket("client")
        c.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        c.bind((str(rig.network["client"].v4), 40501))
        c.connect(V4.to(rig.network["server"], port))
        origin = rig.marks.origin(rig.proxy("client", EGRESS).fileno())
        assert origin is not None
        assert origin.port == port


@BY_FAMILY
@pytest.mark.parametrize("address", ["own", "any"])
@pytest.mark.parametrize("port", [0, 40600])
def test_a_client_may_bind_before_it_calls(rig: Rig, family: Family, address: str, port: int) -> None:
    """To its address or to none, to a port or to none: it keeps its own address and the port that it has."""
    rig.policy(Rule("client", EGRESS, REDIRECT))
    client = rig.network["client"]
    own = family.address_of(client) if address == "own" else ("0.0.0.0" if family is V4 else "::")
    c = rig.socket("client", family.family)
    c.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    c.bind((own, port))
    bound = c.getsockname()[1]
    c.connect(family.to(rig.network["server"], PORT))
    p = rig.proxy("client", EGRESS, listener_version(family))
    expected = client.v6 if family is V6 else client.v4
    assert unmapped(c.getsockname()) == (expected, bound)
    assert unmapped(c.getpeername()) == unmapped(family.to(rig.network["server"], PORT))
    assert unmapped(p.getpeername()) == (expected, bound)
    c.sendall(b"x")
    assert receive(p, 1) == b"x"


@BY_FAMILY
@pytest.mark.parametrize("user", [0, 65534], ids=["root", "nobody"])
def test_a_client_bound_to_its_device_is_redirected(rig: Rig, family: Family, user: int) -> None:
    """SO_BINDTODEVICE, which needs no privilege: the call reaches kproxy, and the option stays as it was set."""
    rig.policy(Rule("client", EGRESS, REDIRECT))
    c = rig.socket("client", family.family)
    c.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0\0")
    as_user(user, lambda: c.connect(family.to(rig.network["server"], PORT)))
    p = rig.proxy("client", EGRESS, listener_version(family))
    client = rig.network["client"]
    assert unmapped(c.getsockname())[0] == (client.v6 if family is V6 else client.v4)
    assert unmapped(c.getpeername()) == unmapped(family.to(rig.network["server"], PORT))
    assert c.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16) == b"eth0\0"
    origin = rig.marks.origin(p.fileno())
    assert origin is not None
    assert origin.port == PORT
    p.sendall(b"x")
    assert receive(c, 1) == b"x"


def as_user(user: int, call: object) -> None:
    """Make one call in a child process that has given up root, if so wished."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if user:
                os.setgroups([])
                os.setresgid(user, user, user)
                os.setresuid(user, user, user)
            call()  # type: ignore[operator]
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
