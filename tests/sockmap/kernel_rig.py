"""A node without its proxy: pods, the attached programs, and tests that accept and connect by hand.

`Rig` stands where the service does: it makes listeners in the pods' namespaces, puts tables in force and keeps
credit going. `Rig.egress` and `Rig.ingress` make the four sockets of a flow: client C, proxy P, upstream U,
server S.
"""

from __future__ import annotations

import contextlib
import ctypes as ct
import os
import select
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from kproxy.demo.network import Network, Pod
from sockmap.diag import Name, SockDiag
from sockmap.hooks import Hooks
from sockmap.layout import (
    NO_SLOT,
    Action,
    Counter,
    Direction,
    Event,
    EventKind,
    IPAddress,
    Role,
    Slot,
    UpstreamFlag,
    mapped,
)
from sockmap.netns import NetworkNamespace
from sockmap.sockets import Origin
from sockmap.syscall import _bpf
from sockmap.tables import Entry, IPNetwork, Tables

TCP, UDP = 6, 17
PASS, DENY, REDIRECT, AUDIT = Action.PASS, Action.DENY, Action.REDIRECT, Action.AUDIT
INGRESS, EGRESS = Direction.INGRESS, Direction.EGRESS
SPLICE, ANNOUNCE = UpstreamFlag.SPLICE, UpstreamFlag.ANNOUNCE

# Identities of these tests: who opened a socket on the host, who has the node's address, the rest, then the pods.
HOST, NODE, WORLD, FIRST_POD = 1, 3, 2, 100
PATIENCE_S = 10.0  # for what takes microseconds on a quiet machine
_BIND_ADDRESS_NO_PORT = 24  # include/uapi/linux/in.h
_SO_MEMINFO = 55
_LINGER_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Family:
    """How an application may speak to a pod: its socket's family, and how it writes an address of the pod."""

    name: str
    family: int
    server_family: int
    anywhere: str
    address_of: Callable[[Pod], str]

    def to(self, pod: Pod, port: int) -> tuple[str, int]:
        """The destination, as connect() takes it."""
        return self.address_of(pod), port


V4 = Family("IPv4", socket.AF_INET, socket.AF_INET, "0.0.0.0", lambda pod: str(pod.v4))
V6 = Family("IPv6", socket.AF_INET6, socket.AF_INET6, "::", lambda pod: str(pod.v6))
MAPPED = Family("IPv4-mapped", socket.AF_INET6, socket.AF_INET6, "::", lambda pod: f"::ffff:{pod.v4}")
FAMILIES = (V4, V6, MAPPED)


@dataclass(frozen=True)
class Rule:
    """One entry of the tables: of an endpoint's direction, for a peer (None: everyone), protocol and ports."""

    pod: str
    direction: Direction
    action: Action
    peer: str | int | None = None
    ports: tuple[int, int] = (0, 65535)
    protocol: int = TCP


@dataclass
class Enforced:
    """An endpoint as the service opens it."""

    number: int
    pod: Pod
    namespace: NetworkNamespace
    diag: SockDiag
    listeners: Mapping[tuple[Direction, int], socket.socket]
    lookup: int


@dataclass
class Flow:
    """The four sockets of a flow."""

    c: socket.socket
    p: socket.socket
    u: socket.socket
    s: socket.socket
    origin: Origin | None
    slots: Mapping[str, int] = field(default_factory=dict)

    def ways(self) -> tuple[tuple[str, socket.socket, socket.socket], ...]:
        """Sender and reader of each of the four directions."""
        return (
            ("client", self.c, self.p),
            ("upstream", self.u, self.s),
            ("server", self.s, self.u),
            ("proxy", self.p, self.c),
        )

    def way(self, sender: str) -> tuple[socket.socket, socket.socket]:
        """Sender and reader of one direction."""
        return next((one, other) for name, one, other in self.ways() if name == sender)


class Rig:
    """The programs on a network, and what a test does with them. Everything is undone by `close`."""

    def __init__(self, network: Network, hooks: Hooks) -> None:
        self.network, self.hooks = network, hooks
        self.marks, self.splicer = hooks.sockets, hooks.splicer
        self.endpoints: dict[str, Enforced] = {}
        self.events: list[Event] = []
        self._undo = contextlib.ExitStack()
        self._of_test = contextlib.ExitStack()
        self._identities: dict[IPNetwork, int] = {}
        self._diags: dict[int, SockDiag] = {}
        self._host = NetworkNamespace("/proc/self/ns/net")
        self._undo.callback(self._host.close)
        self._see_into(self._host)
        self.splicer.diags = self._diags.get
        self._ring = hooks.on_event(self._event)
        self.policy()

    # ---- endpoints and policy ---------------------------------------------------------------------------------

    def enforce(self, pod: Pod, *, splice: bool = True, egress6: bool = True) -> Enforced:
        """Put a pod under policy, as the service does."""
        number = len(self.endpoints)
        namespace = NetworkNamespace(str(pod.netns))
        self._undo.callback(namespace.close)
        diag = self._see_into(namespace, neighbour=False)
        listeners = {
            (EGRESS, 4): listen(namespace, socket.AF_INET, "127.0.0.1"),
            (INGRESS, 4): listen(namespace, socket.AF_INET, "127.0.0.1"),
            (INGRESS, 6): listen(namespace, socket.AF_INET6, "::1", only6=True),
            (EGRESS, 6): listen(namespace, socket.AF_INET6, "::1", only6=True),
        }
        for (direction, _version), listener in listeners.items():
            self._undo.callback(listener.close)
            self.marks.mark_listener(listener, number, direction)
        ports = listeners[EGRESS, 4].getsockname()[1], listeners[EGRESS, 6].getsockname()[1] * egress6
        self.marks.set_endpoint(number, pod.v4, pod.v6, ports, splice)
        for address in pod.addresses:
            self.marks.own_address(address, number)
            self._undo.callback(self.marks.disown_address, address)
        lookup = self.hooks.attach_lookup(namespace, number)
        self._undo.callback(os.close, lookup)
        self.marks.enforce(namespace.cookie, number)
        self._undo.callback(self.marks.release, namespace.cookie)
        enforced = self.endpoints[pod.name] = Enforced(number, pod, namespace, diag, listeners, lookup)
        self.policy()
        return enforced

    def policy(
        self,
        *rules: Rule,
        defaults: Mapping[str, tuple[Action, Action]] | None = None,
        prefixes: Iterable[tuple[str, int]] = (),
    ) -> int:
        """Put tables in force: defaults are (ingress, egress), PASS where a pod is not named."""
        wanted = defaults or {}
        return self.hooks.policy.apply(
            Tables(
                prefixes=(*self._known(), *((ip_network(text), identity) for text, identity in prefixes)),
                defaults={one.number: wanted.get(name, (PASS, PASS)) for name, one in self.endpoints.items()},
                entries=tuple(entry for rule in rules for entry in self._entries(rule)),
                host_identity=HOST,
            )
        )

    def identity(self, peer: str) -> int:
        """The identity of a pod by its name."""
        return FIRST_POD + [pod.name for pod in self.network.pods].index(peer)

    def _known(self) -> Iterator[tuple[IPNetwork, int]]:
        yield ip_network("0.0.0.0/0"), WORLD
        yield ip_network("::/0"), WORLD
        for address in (self.network.host_v4, self.network.host_v6):
            yield ip_network(address), NODE
        for pod in self.network.pods:
            for address in pod.addresses:
                yield ip_network(address), self.identity(pod.name)

    def _entries(self, rule: Rule) -> Iterator[Entry]:
        everyone = [HOST, NODE, WORLD, *(self.identity(pod.name) for pod in self.network.pods)]
        if rule.peer is None:
            peers = everyone
        else:
            peers = [rule.peer if isinstance(rule.peer, int) else self.identity(rule.peer)]
        number = self.endpoints[rule.pod].number
        for peer in peers:
            yield Entry(number, rule.direction, peer, rule.protocol, *rule.ports, rule.action)

    def _see_into(self, namespace: NetworkNamespace, neighbour: bool = True) -> SockDiag:
        diag = SockDiag(namespace)
        self._undo.callback(diag.close)
        self._diags[namespace.cookie] = diag
        if neighbour:
            self.marks.add_neighbour(namespace.cookie)
            self._undo.callback(self.marks.remove_neighbour, namespace.cookie)
        return diag

    def see_into(self, pod: Pod) -> None:
        """Let sockets of a pod that is under no policy be spliced."""
        namespace = NetworkNamespace(str(pod.netns))
        self._undo.callback(namespace.close)
        self._see_into(namespace)

    def close(self) -> None:
        """Undo everything."""
        self._of_test.close()
        self._undo.close()

    def reset(self) -> None:
        """Back to the start of a test: no socket of the last one, everything passes, no event."""
        self._of_test.close()
        self._of_test = contextlib.ExitStack()
        for endpoint in self.endpoints.values():
            for listener in endpoint.listeners.values():
                for waiting in accept_all(listener):
                    abort(waiting)
        self.policy()
        self.pump()
        self.events.clear()

    # ---- what the kernel counted and recorded -----------------------------------------------------------------

    @contextlib.contextmanager
    def counting(self) -> Iterator[Mapping[Counter, int]]:
        """Yield what is, after the block, how far each counter went meanwhile."""
        before = self.hooks.counters.read()
        delta: dict[Counter, int] = {}
        yield delta
        delta.update({which: value - before[which] for which, value in self.hooks.counters.read().items()})

    def bytes(self, first: Counter) -> dict[Role, int]:
        """Spliced or TCP bytes by role."""
        return self.hooks.counters.bytes_by_role(first)

    def snapshot(self, sock: socket.socket) -> Slot:
        """The slot of a socket that has one."""
        slot = self.slot(sock)
        assert slot != NO_SLOT
        return self.splicer.snapshot(slot)

    @contextlib.contextmanager
    def answering(self, pod: str) -> Iterator[Mapping[tuple[Direction, Action], int]]:
        """Yield what is, after the block, how often the hooks answered for a pod in which way meanwhile."""
        number = self.endpoints[pod].number
        before = self.hooks.counters.verdicts(number)
        delta: dict[tuple[Direction, Action], int] = {}
        yield delta
        after = self.hooks.counters.verdicts(number)
        delta.update({key: value - before[key] for key, value in after.items() if value != before[key]})

    def slot(self, sock: socket.socket) -> int:
        """The number of a socket's slot, or NO_SLOT."""
        return self.marks.slot(sock.fileno())

    def denied(self) -> list[tuple[int, Direction, int, int, int, IPAddress]]:
        """(endpoint, direction, identity, protocol, port, peer) of each denial told since the test began."""
        return self._told(EventKind.DENIED)

    def audited(self) -> list[tuple[int, Direction, int, int, int, IPAddress]]:
        """The same of what passed, and would be denied by a policy that is only tried."""
        return self._told(EventKind.AUDITED)

    def _told(self, kind: EventKind) -> list[tuple[int, Direction, int, int, int, IPAddress]]:
        self.hooks.consume()
        return [
            (
                event.slot_or_endpoint,
                Direction(event.generation_or_direction),
                event.reason_or_identity,
                event.protocol,
                event.port,
                event.address.value(),
            )
            for event in self.events
            if event.kind == kind
        ]

    def _event(self, event: Event) -> None:
        self.events.append(Event.from_buffer_copy(event))
        self.splicer.event(event, time.monotonic())

    def pump(self) -> None:
        """What the service does when the ring buffer is readable, and on its timer."""
        self.hooks.consume()
        self.splicer.refill()
        self.splicer.retry(time.monotonic())

    @contextlib.contextmanager
    def pumping(self) -> Iterator[None]:
        """Keep credit going in a thread while the block runs."""
        stop = threading.Event()

        def run() -> None:
            while not stop.is_set():
                select.select([self._ring], [], [], 0.003)
                self.pump()

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    # ---- sockets ----------------------------------------------------------------------------------------------

    def namespace(self, where: str) -> NetworkNamespace:
        """The namespace of a pod, or "host"."""
        if where == "host":
            return self._host
        if where in self.endpoints:
            return self.endpoints[where].namespace
        namespace = NetworkNamespace(str(self.network[where].netns))
        self._of_test.callback(namespace.close)
        return namespace

    def keep(self, sock: socket.socket) -> socket.socket:
        """Close a socket at the end of the test, with a reset so that nothing of it lingers."""
        sock.settimeout(PATIENCE_S)
        self._of_test.callback(abort, sock)
        return sock

    def socket(
        self, where: str, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM, protocol: int = 0
    ) -> socket.socket:
        """A socket in a pod's namespace or the host's."""
        return self.keep(self.namespace(where).socket(family, kind, protocol))

    def server(
        self, where: str, port: int = 0, family: Family = V4, address: str | None = None, backlog: int = 64
    ) -> socket.socket:
        """A listening socket; on every address unless one is given."""
        listener = self.socket(where, family.server_family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family.server_family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((address or family.anywhere, port))
        listener.listen(backlog)
        return listener

    def accept(self, listener: socket.socket) -> socket.socket:
        """Take the next connection."""
        listener.settimeout(PATIENCE_S)
        return self.keep(listener.accept()[0])

    def proxy(self, pod: str, direction: Direction, version: int = 4) -> socket.socket:
        """Accept P: the next connection that reached kproxy's listener in a pod."""
        return self.accept(self.endpoints[pod].listeners[direction, version])

    def upstream(
        self,
        pod: str,
        destination: tuple[str, int],
        *,
        client: tuple[IPAddress, int] | None = None,
        source: str | None = None,
        flags: UpstreamFlag = SPLICE,
    ) -> socket.socket:
        """U: marked, and connected from inside a pod; from `source` where one is given."""
        version = ip_address(destination[0]).version
        upstream = self.socket(pod, socket.AF_INET if version == 4 else socket.AF_INET6)
        if source is not None:
            upstream.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
            upstream.bind((source, 0))
        self.marks.mark_upstream(upstream.fileno(), self.endpoints[pod].number, client, flags)
        upstream.connect(destination)
        return upstream

    def egress(
        self, client: str, server: str, *, family: Family = V4, port: int = 8080, flags: UpstreamFlag = SPLICE
    ) -> Flow:
        """A flow under egress policy, whose rules must say REDIRECT: the client's socket is the first to act."""
        listener = self.server(server, port, family)
        c = self.socket(client, family.family)
        c.connect(family.to(self.network[server], port))
        version = 6 if family is V6 else 4
        p = self.proxy(client, EGRESS, version)
        origin = self.marks.origin(p.fileno())
        shown = unmapped(p.getpeername())
        destination = V6 if version == 6 else V4
        u = self.upstream(
            client,
            destination.to(self.network[server], port),
            client=shown,
            source=str(shown[0]),
            flags=flags,
        )
        return self._flow(c, p, u, self.accept(listener), origin)

    def ingress(self, client: str, server: str, *, family: Family = V4, port: int = 8080) -> Flow:
        """A flow under ingress policy, whose rules must say REDIRECT."""
        listener = self.server(server, port, family)
        c = self.socket(client, family.family)
        c.connect(family.to(self.network[server], port))
        p = self.proxy(server, INGRESS, 6 if family is V6 else 4)
        origin = self.marks.origin(p.fileno())
        local, local_port = unmapped(p.getsockname())
        u = self.upstream(server, (str(local), local_port), client=unmapped(p.getpeername()))
        return self._flow(c, p, u, self.accept(listener), origin)

    def _flow(
        self, c: socket.socket, p: socket.socket, u: socket.socket, s: socket.socket, origin: Origin | None
    ) -> Flow:
        slots = {"client": self.slot(c), "proxy": self.slot(p), "server": self.slot(s)}
        slots["upstream"] = self.splicer.join(u)
        self.adopt(p, slots["proxy"])
        self.adopt(u, slots["upstream"])
        return Flow(c, p, u, s, origin, slots)

    def adopt(self, own: socket.socket, slot: int) -> None:
        """Tell the splicer, as the service does, that a slot's socket is kproxy's own; until the test ends."""
        if slot != NO_SLOT:
            self.splicer.adopt(slot, own)
            self._of_test.callback(self.splicer.release, slot)


def listen(namespace: NetworkNamespace, family: int, address: str, *, only6: bool = False) -> socket.socket:
    """A listener as the service makes them."""
    listener = namespace.socket(family, socket.SOCK_STREAM)
    if only6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listener.bind((address, 0))
    listener.listen(1024)
    return listener


def accept_all(listener: socket.socket) -> Iterator[socket.socket]:
    """Every connection that waits."""
    listener.settimeout(0)
    with contextlib.suppress(BlockingIOError):
        while True:
            yield listener.accept()[0]
    listener.settimeout(PATIENCE_S)


def abort(sock: socket.socket) -> None:
    """Close with a reset."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
    sock.close()


def unmapped(name: tuple[str, int]) -> tuple[IPAddress, int]:
    """An address as Python's sockets give it; IPv4-mapped is IPv4."""
    found = ip_address(name[0].partition("%")[0])
    return (found.ipv4_mapped if found.version == 6 else None) or found, name[1]


def name_of(sock: socket.socket) -> Name:
    """A connected socket's name for sock_diag."""
    local, local_port = unmapped(sock.getsockname())
    remote, remote_port = unmapped(sock.getpeername())
    return Name(mapped(local), local_port, mapped(remote), remote_port)


def memory(sock: socket.socket) -> int:
    """Bytes charged to a socket's receive queue (SO_MEMINFO: the first u32 is rmem_alloc)."""
    return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 36)[:4], "little")


@contextlib.contextmanager
def unreachable(rig: Rig, pod: str, *, seen_from: str) -> Iterator[None]:
    """What one pod sends to another's IPv4 address is lost while the block runs: its neighbour entry is wrong."""
    address = str(rig.network[pod].v4)
    neighbour = ["nsenter", f"--net={rig.network[seen_from].netns}", "ip", "neighbour"]
    wrong = ["lladdr", "02:00:00:00:00:01", "dev", "eth0", "nud", "permanent"]
    subprocess.run([*neighbour, "replace", address, *wrong], check=True)
    try:
        yield
    finally:
        subprocess.run([*neighbour, "delete", address, "dev", "eth0"], check=True)


def keys(map_fd: int) -> Iterator[int]:
    """The 64-bit keys of a map (BPF_MAP_GET_NEXT_KEY, 4 of enum bpf_cmd)."""
    key, following = None, ct.c_uint64()
    while True:
        before = 0 if key is None else ct.addressof(key)
        try:
            _bpf(4, struct.pack("=IxxxxQQQ", map_fd, before, ct.addressof(following), 0))
        except FileNotFoundError:
            return
        yield following.value
        key = ct.c_uint64(following.value)


def eventually(condition: Callable[[], object], what: str) -> None:
    """Return once a condition holds; fail by name where it never does."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.002)


def receive(sock: socket.socket, size: int) -> bytes:
    """Exactly so many bytes, or fewer at the end of the stream."""
    found = bytearray()
    while len(found) < size:
        data = sock.recv(size - len(found))
        if not data:
            break
        found += data
    return bytes(found)
