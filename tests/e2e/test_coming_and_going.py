"""Endpoints come, go and change under a running kproxy, and what is enforced stays enforced meanwhile."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from rig import Node, accept, asker, connect, eventually, http_rule, listen, running_node

from kproxy.demo.network import Network
from kproxy.demo.node import endpoint

pytestmark = pytest.mark.bpf

PAIR = [
    http_rule("client", "egress", "server", 80, [{"path": "/jobs/.*"}], "out"),
    http_rule("server", "ingress", "client", 80, [{"path": "/jobs/.*"}], "in"),
]


@pytest.fixture
def listener(network: Network) -> Iterator[socket.socket]:
    """A server that the test answers for by hand."""
    with listen(network["server"], 80) as made:
        yield made


def entries(network: Network, *enforced: str, **changes: object) -> list[dict[str, object]]:
    """The endpoints file with these under policy, and changes to the client's entry."""
    pods = map(network.__getitem__, ("client", "server", "stranger"))
    made = [endpoint(pod, enforced=pod.name in enforced) for pod in pods]
    return [one | (changes if one["name"] == "client" else {}) for one in made]


@pytest.mark.parametrize("gone", ["client", "server"])
def test_endpoint_that_leaves_the_file(
    network: Network, listener: socket.socket, tmp_path: Path, gone: str
) -> None:
    """The flow that it is an end of is reset; the other endpoint, and kproxy, go on; and it may come back."""
    other = {"client": "server", "server": "client"}[gone]
    with running_node(tmp_path, network, PAIR, ["client", "server"]) as node:
        client = connect(network["client"], network["server"], 80)
        ask = asker(client, accept(listener))
        assert ask() == 200
        with node.reading():
            node.put_endpoints(entries(network, other))
        with pytest.raises(ConnectionResetError):
            client.recv(100)
        assert states(node) == {gone: "peer", other: "enforced", "stranger": "peer"}
        again = connect(network["client"], network["server"], 80)
        assert asker(again, accept(listener))() == 200
        with node.reading():
            node.put_endpoints(entries(network, "client", "server"))
        with pytest.raises(ConnectionError):  # one that goes around kproxy is aborted from its own end
            again.recv(100)
        assert states(node) == {gone: "enforced", other: "enforced", "stranger": "peer"}
        assert asker(connect(network["client"], network["server"], 80), accept(listener))() == 200


def states(node: Node) -> dict[str, str]:
    """What `kproxy status` says of each endpoint."""
    return {one["name"].removeprefix("default/"): one["state"] for one in node.status()["endpoints"]}


def test_endpoint_that_is_renamed(network: Network, listener: socket.socket, tmp_path: Path) -> None:
    """Its flows were judged under another name and end; the next are logged under the new one."""
    with running_node(tmp_path, network, PAIR, ["client", "server"]) as node:
        client = connect(network["client"], network["server"], 80)
        assert asker(client, accept(listener))() == 200
        with node.reading():
            node.put_endpoints(entries(network, "client", "server", name="renamed"))
        with pytest.raises(ConnectionResetError):
            client.recv(100)
        assert asker(connect(network["client"], network["server"], 80), accept(listener))() == 200
        assert node.logged(endpoint="default/renamed")["verdict"] == "allow"


def test_rules_and_endpoints_of_one_save_are_one_revision(network: Network, tmp_path: Path) -> None:
    """Two files that are written one right after the other come into force together."""
    with running_node(tmp_path, network, PAIR, ["client"]) as node:
        before = node.revision()
        with node.reading():
            node.put_rules([*PAIR, http_rule("stranger", "ingress", "client", 80)])
            node.put_endpoints(entries(network, "client", "stranger"))
        eventually(lambda: states(node)["stranger"] == "enforced", "the endpoint is enforced")
        assert node.revision() == before + 1
