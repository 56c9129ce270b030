"""HTTP policy on real sockets: what is allowed passes whole, what is not is answered, both ends see each other."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rig import Node, accept, connect, http_rule, listen, running_node

from kproxy.demo.client import Call, curl
from kproxy.demo.network import Network, Pod

pytestmark = pytest.mark.bpf

JOBS = [{"method": "GET", "path": "/jobs/[0-9]+"}]
ALLOWED, DENIED = Call("GET", "/jobs/331"), Call("POST", "/jobs", '{"title": "x"}')


@pytest.fixture(scope="module")
def api(network: Network) -> Iterator[Pod]:
    """The Jobs API in the server's pod."""
    server = network["server"]
    with server.start([sys.executable, "-m", "kproxy.demo.jobs_api", "--port", "80"], listening=80):
        yield server


SIDES = {
    "ingress": ([http_rule("server", "ingress", "client", 80, JOBS)], ["server"]),
    "egress": ([http_rule("client", "egress", "server", 80, JOBS)], ["client"]),
    "both": (
        [
            http_rule("server", "ingress", "client", 80, JOBS, "in"),
            http_rule("client", "egress", "server", 80, JOBS, "out"),
        ],
        ["client", "server"],
    ),
}


@pytest.fixture(params=sorted(SIDES))
def node(request: pytest.FixtureRequest, network: Network, api: Pod, tmp_path: Path) -> Iterator[Node]:
    """kproxy with the policy on one side, the other, or both."""
    policies, enforced = SIDES[request.param]
    with running_node(tmp_path, network, policies, enforced) as running:
        yield running


@pytest.mark.parametrize("family", [4, 6])
def test_allowed_passes_and_denied_is_answered(node: Node, network: Network, api: Pod, family: int) -> None:
    """GET /jobs/331 reaches the server, POST /jobs is answered 403 by name, on one connection."""
    client = network["client"]
    address = api.v4 if family == 4 else api.v6
    replies = curl([ALLOWED, DENIED, ALLOWED], address, netns=client.netns)
    assert [reply.status for reply in replies] == [200, 403, 200]
    assert replies[1].body == "Access denied\n"  # curl's file is read as text
    assert [reply.connects for reply in replies] == [1, 0, 0]
    assert node.logged(verdict="deny", method="POST")["path"] == "/jobs"
    assert "#" in node.logged(verdict="allow", path="/jobs/331")["rule"]


@pytest.mark.parametrize("family", [4, 6])
def test_both_ends_see_each_other(node: Node, network: Network, api: Pod, family: int) -> None:
    """getsockname, getpeername and accept say what they would say without kproxy."""
    client = network["client"]
    address, own = (api.v4, client.v4) if family == 4 else (api.v6, client.v6)
    reply = curl([ALLOWED], address, netns=client.netns)[0]
    bracket = str if family == 4 else "[{}]".format
    assert reply.remote == f"{bracket(address)}:80"
    assert reply.local.startswith(f"{bracket(own)}:")
    assert reply.local in reply.body, "the server saw another client address than the client has"


def test_one_flow_one_line(node: Node, network: Network, api: Pod) -> None:
    """A request that two policies judge has one line, which names both."""
    curl([Call("GET", "/jobs/77")], api.v4, netns=network["client"].netns)
    node.logged(path="/jobs/77")
    lines = [line for line in node.log() if line.get("path") == "/jobs/77"]
    assert len(lines) == 1


def test_everything_was_spliced(node: Node, network: Network, api: Pod) -> None:
    """Between pods of this node no byte of small requests goes through TCP."""
    curl([ALLOWED] * 20, api.v4, netns=network["client"].netns)
    node.logged(path="/jobs/331")
    assert node.count("kproxy_bytes_total", path="spliced") > 0
    assert node.count("kproxy_bytes_total", path="tcp") == 0


def test_a_stranger_is_refused_at_l4(network: Network, api: Pod, tmp_path: Path) -> None:
    """Ingress policy resets whom no rule names; egress policy refuses with EPERM; both are logged and counted."""
    policies = [
        http_rule("server", "ingress", "client", 80, JOBS, "in"),
        http_rule("client", "egress", "server", 80, JOBS, "out"),
    ]
    with running_node(tmp_path, network, policies, ["client", "server"]) as node:
        with pytest.raises(ConnectionRefusedError):
            connect(network["stranger"], api, 80)
        with pytest.raises(PermissionError):
            connect(network["client"], network["stranger"], 80)
        assert node.logged(verdict="deny", direction="ingress")["peer"] == "default/stranger"
        assert node.logged(verdict="deny", direction="egress")["tier"] == "kernel"


def test_upstream_that_refuses_is_a_reset(network: Network, tmp_path: Path) -> None:
    """connect() succeeds, then the client is reset: no answer is invented for a server that is not there."""
    policies = [http_rule("client", "egress", "server", 81, JOBS)]
    with running_node(tmp_path, network, policies, ["client"]):
        client = connect(network["client"], network["server"], 81)
        with pytest.raises(ConnectionResetError):
            client.recv(100)


def test_truncated_response_is_a_reset(network: Network, tmp_path: Path) -> None:
    """A server that ends in the middle of a body does not look like one that was done."""
    policies = [http_rule("client", "egress", "server", 82, JOBS)]
    with running_node(tmp_path, network, policies, ["client"]), listen(network["server"], 82) as listener:
        client = connect(network["client"], network["server"], 82)
        upstream = accept(listener)
        client.sendall(b"GET /jobs/1 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert upstream.recv(1000).startswith(b"GET /jobs/1")
        upstream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        upstream.close()
        with pytest.raises(ConnectionResetError):
            read_to_end(client)


def read_to_end(sock: socket.socket) -> None:
    """Read until the other side ends in good order."""
    while sock.recv(1000):
        pass


def test_upgraded_connection_is_opaque_and_half_closes(network: Network, tmp_path: Path) -> None:
    """A WebSocket is judged on its request; after 101 bytes pass both ways, and so does a half-close."""
    policies = [http_rule("client", "egress", "server", 83, [{"path": "/chat"}])]
    with running_node(tmp_path, network, policies, ["client"]), listen(network["server"], 83) as listener:
        client = connect(network["client"], network["server"], 83)
        upstream = accept(listener)
        upstream.settimeout(10)
        client.sendall(b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert b"Upgrade: websocket" in upstream.recv(1000)
        upstream.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        assert client.recv(1000).startswith(b"HTTP/1.1 101")
        client.sendall(b"\x81\x05hello")
        assert upstream.recv(1000) == b"\x81\x05hello"
        client.shutdown(socket.SHUT_WR)
        assert upstream.recv(1000) == b""
        upstream.sendall(b"\x81\x03bye")
        assert client.recv(1000) == b"\x81\x03bye"
        upstream.close()
        assert client.recv(1000) == b""


def test_tls_on_an_http_port_is_refused_by_name(network: Network, api: Pod, tmp_path: Path) -> None:
    """A TLS hello is not HTTP: it never reaches the server, and the log says what it was."""
    policies = [http_rule("server", "ingress", "client", 80, JOBS)]
    with running_node(tmp_path, network, policies, ["server"]) as node:
        client = connect(network["client"], api, 80)
        client.sendall(bytes.fromhex("16030100c8010000c40303") + bytes(200))
        assert b"200" not in client.recv(1000)
        assert "tls" in node.logged(verdict="error")["reason"]
