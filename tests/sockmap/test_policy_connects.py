"""Generated policies in the kernel: real calls between pods, the world and the host go as user space decides.

From text to answer: a policy is loaded and compiled, put into the BPF maps as the service does it, and then
called through: TCP and UDP, IPv4 and IPv6, both directions, known workloads, networks and the node.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address
from random import Random
from typing import Any

import generated
import pytest
import yaml
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from kernel_rig import EGRESS, INGRESS, TCP, UDP, Rig, abort
from pods import own_network

import policy
from kproxy.demo.network import Network, PodSpec
from kproxy.kernel_policy import tables_of
from kproxy.parties import EndpointName
from policy import Action, Node, NodePolicy
from policy.identities import HOST
from sockmap.hooks import Hooks
from sockmap.layout import IPAddress

pytestmark = pytest.mark.bpf

OUTSIDE = "outside"  # a pod that stands for the world: nobody knows it, and it has the world's addresses
WORLD = [
    ip_address(text) for text in generated.ADDRESSES if text.startswith(("9.", "8.", "2001:", "10.0.7."))
]
PORTS = (1, 78, 79, 80, 81, 82, 83, 1000, 1001, 8079, 8080, 8081, 65535)
POLICIES, CALLS = 500, 24
FIRST_SOURCE = (
    20_000  # each datagram has a source port of its own: what one was allowed, its answers are for a while
)
PATIENCE_S = 5.0


@dataclass(frozen=True)
class Call:
    """Who calls whom: the pods (or the host), their addresses, and the kind of call."""

    caller: str
    source: IPAddress
    callee: str
    target: IPAddress
    protocol: int
    port: int
    connected: bool

    def __str__(self) -> str:
        """As a person would say it."""
        how = {TCP: "TCP", UDP: "UDP, connected" if self.connected else "UDP"}[self.protocol]
        return f"{self.caller} ({self.source}) calls {self.callee} ({self.target}) at {self.port}, {how}"


class World:
    """Pods with the addresses that generated policies speak of, servers, and the programs attached."""

    def __init__(self, network: Network, hooks: Hooks, undo: contextlib.ExitStack) -> None:
        self.network, self.rig = network, Rig(network, hooks)
        undo.callback(self.rig.close)
        self.workloads = [replace(one, addresses=network[one.name].addresses) for one in generated.WORKLOADS]
        self.local = {one.name: one for one in self.workloads if one.local}
        for name in self.local:
            self.rig.enforce(network[name])
        self._route()
        self._servers: dict[tuple[str, int, int], socket.socket] = {}
        self._undo = undo
        for pod, port in itertools.product(self.addresses(), PORTS):
            self._serve(pod, port)

    def addresses(self) -> dict[str, list[IPAddress]]:
        """The addresses of each pod, and of the host."""
        known: dict[str, list[IPAddress]] = {pod.name: list(pod.addresses) for pod in self.network}
        known[OUTSIDE] += WORLD
        return known | {"host": [self.network.host_v4, self.network.host_v6]}

    def put(self, made: NodePolicy) -> None:
        """Put a policy in force in the kernel."""
        names = {
            self.rig.endpoints[name].number: EndpointName(one.namespace, name)
            for name, one in self.local.items()
        }
        self.rig.hooks.policy.apply(tables_of(made, names))

    def _route(self) -> None:
        outside = self.network[OUTSIDE]
        for address in WORLD:
            _ip(outside.netns.name, f"address add {address} dev lo {'nodad' if address.version == 6 else ''}")
        for pod in self.network:
            for address in WORLD if pod is not outside else ():
                via = outside.v4 if address.version == 4 else outside.v6
                _ip(pod.netns.name, f"route add {address} via {via}")

    def _serve(self, pod: str, port: int) -> None:
        """On every address of a pod; on the host's own in this network alone."""
        addresses = self.addresses()["host"] if pod == "host" else [ip_address("0.0.0.0"), ip_address("::")]
        for address, protocol in itertools.product(addresses, (TCP, UDP)):
            server = self._socket(pod, address, protocol)
            if address.version == 6:
                server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind((str(address), port))
            if protocol == TCP:
                server.listen(16)
            server.setblocking(False)
            self._undo.callback(server.close)
            self._servers[pod, port, protocol + address.version] = server

    def _socket(self, where: str, address: IPAddress, protocol: int) -> socket.socket:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        kind = socket.SOCK_STREAM if protocol == TCP else socket.SOCK_DGRAM
        return self.rig.namespace(where).socket(family, kind)

    # ---- calls ------------------------------------------------------------------------------------------------

    def observe(self, call: Call, source_port: int) -> str:
        """Make a call; tell who took it."""
        with self._socket(call.caller, call.source, call.protocol) as caller:
            caller.settimeout(PATIENCE_S)
            caller.bind((str(call.source), source_port if call.protocol == UDP else 0))
            try:
                self._send(caller, call)
            except PermissionError:
                return "egress denies"
            except ConnectionRefusedError:
                return "ingress denies"
            try:
                return self._taken(call)
            finally:
                if call.protocol == TCP:
                    caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    def _send(self, caller: socket.socket, call: Call) -> None:
        target = (str(call.target), call.port)
        if call.protocol == TCP or call.connected:
            caller.connect(target)
        if call.protocol == UDP:
            _ = caller.send(b"x") if call.connected else caller.sendto(b"x", target)

    def _taken(self, call: Call) -> str:
        """Between namespaces of one node a packet has arrived when the call that sent it returns."""
        version = call.target.version
        server = self._servers[call.callee, call.port, call.protocol + version]
        if call.protocol == UDP:
            with contextlib.suppress(BlockingIOError):
                server.recv(10)
                return "passes"
            return "ingress denies"
        proxies = {
            f"{direction.name.lower()} redirects": self.rig.endpoints[pod].listeners[direction, version]
            for pod, direction in ((call.caller, EGRESS), (call.callee, INGRESS))
            if pod in self.local
        }
        for told, listener in {"passes": server, **proxies}.items():
            listener.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                abort(listener.accept()[0])
                return told
        return "nobody took it"

    def expect(self, made: NodePolicy, call: Call) -> str:
        """Say what user space decides: the caller's egress first, then the callee's ingress."""
        if call.caller in self.local:
            both = made.endpoint(self.local[call.caller].namespace, call.caller)
            action = both.egress.decide(made.identify(call.target).number, call.protocol, call.port).action
            if action is not Action.PASS:
                return f"egress {_told(action, call.protocol)}"
        if call.callee in self.local:
            both = made.endpoint(self.local[call.callee].namespace, call.callee)
            peer = HOST if call.caller == "host" else made.identify(call.source).number
            action = both.ingress.decide(peer, call.protocol, call.port).action
            if action is not Action.PASS:
                return f"ingress {_told(action, call.protocol)}"
        return "passes"

    def some_call(self, made: NodePolicy, chance: Random) -> Call:
        """A call that a local endpoint makes or takes, mostly one that its policy speaks of, or nearly."""
        mine = chance.choice(sorted(self.local))
        both = made.endpoint(self.local[mine].namespace, mine)
        half = chance.choice((both.ingress, both.egress))
        others = [(name, one) for name, all_ in self.addresses().items() for one in all_ if name != mine]
        protocol, ports = chance.choice((TCP, UDP)), PORTS
        if half.entries and chance.random() < 0.8:
            entry = chance.choice(half.entries)
            meant = [(name, one) for name, one in others if made.identify(one).number == entry.identity]
            first, last = entry.first_port, entry.last_port
            edges = [port for port in (first - 1, first, last, last + 1) if port in PORTS]
            others, protocol, ports = meant or others, entry.protocol, edges or PORTS
        other, address = chance.choice(others)
        own = next(one for one in self.network[mine].addresses if one.version == address.version)
        ends = [(other, address), (mine, own)]
        (caller, source), (callee, target) = ends if half is both.ingress else reversed(ends)
        return Call(caller, source, callee, target, protocol, chance.choice(ports), chance.random() < 0.5)


def _told(action: Action, protocol: int) -> str:
    """Datagrams are never redirected: what is not allowed whole is refused."""
    return "redirects" if action is Action.REDIRECT and protocol == TCP else "denies"


def _ip(netns: str, line: str) -> None:
    subprocess.run(["ip", "-n", netns, *line.split()], check=True)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Six workloads, three of them under policy, and the world."""
    specs = [PodSpec(name) for name in (*(one.name for one in generated.WORKLOADS), OUTSIDE)]
    with (
        own_network("kw", specs) as network,
        Hooks(slots=64) as hooks,
        contextlib.ExitStack() as undo,
    ):
        yield World(network, hooks, undo)


source_ports = itertools.count(FIRST_SOURCE)


@settings(max_examples=POLICIES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(generated.documents, st.sampled_from(("always", "policy")), st.integers(0, 2**32))
def test_calls_go_as_user_space_decides(world: World, written: list[Any], localhost: str, seed: int) -> None:
    """Hundreds of policies, two dozen calls each: kernel and user space have one answer."""
    documents = generated.named(written)
    note(yaml.safe_dump_all(documents, sort_keys=False))
    loaded = policy.load((f"f{i}.json", json.dumps(one)) for i, one in enumerate(documents))
    assert not loaded.errors
    node = Node((world.network.host_v4, world.network.host_v6), localhost)
    made = policy.compile(loaded.rules, world.workloads, node, 1)
    world.put(made)
    chance = Random(seed)
    for _ in range(CALLS):
        call = world.some_call(made, chance)
        observed = world.observe(call, next(source_ports))
        assert (observed, str(call)) == (world.expect(made, call), str(call))
