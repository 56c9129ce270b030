"""A policy in audit mode at L3/L4: what it would deny passes, has a line in the log, and is counted."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rig import Node, accept, close_opened, connect, eventually, http_rule, listen, running_node

from kproxy.demo.network import Network, Pod

pytestmark = pytest.mark.bpf

PORT = 8080
DIRECTIONS = pytest.mark.parametrize("direction", ["egress", "ingress"])
FAMILIES = pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
OTHER_SIDE = {"egress": ("client", "server"), "ingress": ("server", "client")}


def tried(direction: str, mode: str = "audit") -> dict[str, Any]:
    """A policy that allows another port than the one that is called."""
    endpoint, peer = OTHER_SIDE[direction]
    made = http_rule(endpoint, direction, peer, PORT + 1, name="tried")
    made["spec"]["kproxy"] = {"mode": mode}
    return made


def address(pod: Pod, family: int) -> str:
    """A pod's address of a family."""
    return str(pod.v4 if family == socket.AF_INET else pod.v6)


def datagrams(pod: Pod, family: int) -> socket.socket:
    """A datagram socket in a pod."""
    with pod.inside():
        made = socket.socket(family, socket.SOCK_DGRAM)
    made.settimeout(10)
    return made


def check(node: Node, direction: str, protocol: str, peer_address: str) -> None:
    """One line, which names the endpoint, the peer, the server's port and the rule; and one in the counter."""
    endpoint, peer = OTHER_SIDE[direction]
    line = node.logged(verdict="audit", protocol=protocol)
    wanted: Mapping[str, Any] = {
        "endpoint": f"default/{endpoint}",
        "direction": direction,
        "peer": f"default/{peer}",
        "port": PORT,
        "tier": "kernel",
        "rule": f"default/tried#{direction}",
    }
    assert wanted.items() <= line.items()
    assert line["peer_address"].removesuffix(f":{PORT}").strip("[]") == peer_address
    assert line["reason"].startswith("audit: ")
    labels = {"endpoint": f"default/{endpoint}", "direction": direction, "verdict": "audit"}
    assert node.count("kproxy_l4_verdicts_total", **labels) == 1
    assert [one["verdict"] for one in node.log()] == ["audit"]


@DIRECTIONS
@FAMILIES
def test_connections_pass(network: Network, tmp_path: Path, direction: str, family: int) -> None:
    """They go around the proxy, whatever they carry; once the policy is enforced they are reset, and counted."""
    endpoint, peer = OTHER_SIDE[direction]
    with (
        listen(network["server"], PORT, family) as listener,
        running_node(tmp_path, network, [tried(direction)], [endpoint]) as node,
    ):
        client = connect(network["client"], network["server"], PORT, family)
        server = accept(listener)
        client.sendall(b"not http")
        assert server.recv(100) == b"not http"
        check(node, direction, "tcp", address(network[peer], family))
        node.put_rules([tried(direction, "enforce")])
        with pytest.raises((ConnectionResetError, ConnectionAbortedError)):
            client.recv(100)
        name = "kproxy_direct_connections_reset_total"
        labels = {"endpoint": f"default/{endpoint}", "direction": direction, "reason": "not_allowed"}
        eventually(lambda: node.count(name, **labels) == 1, "it is counted")


@DIRECTIONS
@FAMILIES
def test_datagrams_pass_and_are_answered(
    network: Network, tmp_path: Path, direction: str, family: int
) -> None:
    """The answer is no audit of its own."""
    endpoint, peer = OTHER_SIDE[direction]
    with (
        running_node(tmp_path, network, [tried(direction)], [endpoint]) as node,
        datagrams(network["server"], family) as server,
        datagrams(network["client"], family) as client,
    ):
        server.bind(("", PORT))
        client.sendto(b"question", (address(network["server"], family), PORT))
        asked, whence = server.recvfrom(100)
        assert asked == b"question"
        server.sendto(b"answer", whence)
        assert client.recv(100) == b"answer"
        check(node, direction, "udp", address(network[peer], family))


def test_requests_of_a_flow_that_only_the_other_end_judges(network: Network, tmp_path: Path) -> None:
    """The client's policy judges requests; that the server's tried one would not have them is in each line."""
    judged = http_rule("client", "egress", "server", PORT, [{"path": "/jobs/.*"}])
    with (
        listen(network["server"], PORT) as listener,
        running_node(tmp_path, network, [judged, tried("ingress")], ["client", "server"]) as node,
    ):
        client = connect(network["client"], network["server"], PORT)
        server = accept(listener)
        client.sendall(b"GET /jobs/1 HTTP/1.1\r\nHost: a\r\n\r\n")
        server.recv(1000)
        server.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
        line = node.logged(verdict="audit", protocol="http")
        assert (line["endpoint"], line["direction"], line["port"]) == ("default/server", "ingress", PORT)
        assert line["also"]["endpoint"] == "default/client"
        close_opened()  # kproxy would wait for open flows


def test_the_reason_names_the_peer_that_called(network: Network, tmp_path: Path) -> None:
    """Two workloads that no rule tells apart: a denial is about the one that was there."""
    rule = http_rule("server", "ingress", "nobody", PORT)
    with running_node(tmp_path, network, [rule], ["server"]) as node:
        for name in ("client", "stranger"):
            with pytest.raises(ConnectionRefusedError):
                connect(network[name], network["server"], PORT)
            line = node.logged(verdict="deny", peer=f"default/{name}")
            assert f"allows default/{name} on {PORT}/TCP" in line["reason"]
            assert line["port"] == PORT
