"""Other languages' HTTP stacks through kproxy: the same bytes, the same addresses, the same connection."""

from __future__ import annotations

import json
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from programs import Peer, digest, pattern, plain

from kproxy.demo import node
from kproxy.demo.client import Call, curl
from kproxy.demo.network import Network
from kproxy.demo.node import NodeFiles

pytestmark = pytest.mark.bpf

LANGUAGES = ("node", "go")
PORT = 80
IPPROTO_MPTCP = 262  # include/uapi/linux/in.h; Python names it from 3.14 on
SIZE = 3_000_017  # beyond any credit that one direction may hold
HTTP = [
    {"method": "GET", "path": "/(bytes|chunked)/[0-9]+"},
    {"method": "GET", "path": "/whoami"},
    {"method": "POST", "path": "/digest"},
    {"method": "GET", "path": "/jobs/[0-9]+"},
]


def policy(direction: str) -> dict[str, Any]:
    """One policy: the server's ingress from the client, or the client's egress to the server."""
    selects, key, peer = {
        "ingress": ("server", "fromEndpoints", "client"),
        "egress": ("client", "toEndpoints", "server"),
    }[direction]
    ports = [{"ports": [{"port": str(PORT), "protocol": "TCP"}], "rules": {"http": HTTP}}]
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": direction, "namespace": "test"},
        "spec": {
            "endpointSelector": {"matchLabels": {"app": selects}},
            direction: [{key: [{"matchLabels": {"app": peer}}], "toPorts": ports}],
        },
    }


@pytest.fixture(scope="module", params=[("ingress",), ("egress",), ("ingress", "egress")], ids="+".join)
def kproxy(
    request: pytest.FixtureRequest, net: Network, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NodeFiles]:
    """A node with the policy at one side, the other, or both."""
    folder = tmp_path_factory.mktemp("node")
    rules = folder / "rules.json"
    policies = [policy(direction) for direction in request.param]
    rules.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": policies}))
    files = node.write_node(folder, [rules], map(node.endpoint, net), node.free_port())
    with node.kproxy_run(files):
        yield files


@pytest.mark.parametrize("server", LANGUAGES)
@pytest.mark.parametrize("client", LANGUAGES)
def test_everything_passes_whole(
    kproxy: NodeFiles, net: Network, peers: Mapping[str, Peer], server: str, client: str
) -> None:
    """Framed, chunked and uploaded bodies arrive to the byte, on one connection, and some of it was spliced."""
    base = f"http://{net['server'].v4}:{PORT}"
    spliced = node.total(node.metrics(kproxy.admin_port), node.BYTES, path="spliced")
    with peers[server].serve(net["server"], PORT):
        down = peers[client].call(net["client"], [f"{base}/bytes/{SIZE}", f"{base}/chunked/{SIZE}"], count=3)
        up = peers[client].call(net["client"], [f"{base}/digest"], upload=SIZE)
        (checked,) = curl([Call("POST", "/digest", "hello")], net["server"].v4, netns=net["client"].netns)
    assert down.statuses == [200] * 6
    assert (down.connections, down.sha256) == (1, digest(*[pattern(SIZE)] * 6))
    assert up.statuses == [200]
    assert json.loads(checked.body) == {"bytes": 5, "sha256": digest(b"hello")}
    assert node.total(node.metrics(kproxy.admin_port), node.BYTES, path="spliced") > spliced


@pytest.mark.parametrize("server", LANGUAGES)
@pytest.mark.parametrize("client", LANGUAGES)
def test_an_upload_is_received_as_it_was_sent(
    kproxy: NodeFiles, net: Network, peers: Mapping[str, Peer], server: str, client: str
) -> None:
    """The server's digest, as the client got it, is that of the pattern."""
    with peers[server].serve(net["server"], PORT):
        url = f"http://{net['server'].v4}:{PORT}/digest"
        report = peers[client].call(net["client"], [url], upload=SIZE)
    answer = f'{{"bytes":{SIZE},"sha256":"{digest(pattern(SIZE))}"}}\n'
    assert report.sha256 == digest(answer.encode())


@pytest.mark.parametrize("server", LANGUAGES)
@pytest.mark.parametrize("version", [4, 6])
def test_each_side_still_knows_the_other(
    kproxy: NodeFiles, net: Network, peers: Mapping[str, Peer], server: str, version: int
) -> None:
    """The server's accept names the client and the client's peer is the server, IPv4-mapped listeners included."""
    to, own = net["server"].addresses[version == 6], net["client"].addresses[version == 6]
    host = f"[{to}]" if version == 6 else str(to)
    with peers[server].serve(net["server"], PORT):
        report = peers["go"].call(net["client"], [f"http://{host}:{PORT}/whoami"])
        (reply,) = curl([Call("GET", "/whoami")], to, netns=net["client"].netns)
    assert report.remote == [f"{host}:{PORT}"]
    for told in (plain(json.loads(reply.body)["remote"]), reply.local, report.local[0]):
        assert told.rpartition(":")[0].strip("[]") == str(own)


@pytest.mark.parametrize("client", LANGUAGES)
def test_a_denied_request_leaves_the_connection_usable(
    kproxy: NodeFiles, net: Network, peers: Mapping[str, Peer], client: str
) -> None:
    """403 for what no rule allows, 200 before and after it, and the client has no reason to reconnect."""
    base = f"http://{net['server'].v4}:{PORT}"
    with peers["go"].serve(net["server"], PORT):
        report = peers[client].call(
            net["client"], [f"{base}/whoami", f"{base}/secret", f"{base}/whoami"], count=2
        )
    assert report.statuses == [200, 403, 200] * 2
    assert report.connections == 1


@pytest.fixture
def mptcp_server(net: Network) -> Iterator[None]:
    """The Jobs API on an MPTCP listener, as every Go program since 1.24 has one."""
    program = Path(__file__).parent / "python" / "mptcp.py"
    with net["server"].start([sys.executable, str(program), str(PORT)], listening=PORT):
        yield


@pytest.mark.usefixtures("mptcp_server")
def test_an_mptcp_listener_is_served(kproxy: NodeFiles, net: Network) -> None:
    """kproxy dials it by plain TCP, as most clients would, and it sees who calls."""
    calls = [Call("GET", "/jobs/1"), Call("GET", "/applicants/1"), Call("GET", "/jobs/2")]
    replies = curl(calls, net["server"].v4, PORT, netns=net["client"].netns)
    assert [reply.status for reply in replies] == [200, 403, 200]
    assert [reply.connects for reply in replies] == [1, 0, 0]
    assert json.loads(replies[0].body)["client"]["accept"].rpartition(":")[0] == str(net["client"].v4)


@pytest.mark.usefixtures("mptcp_server")
def test_an_mptcp_client_is_judged_like_any_other(kproxy: NodeFiles, net: Network) -> None:
    """Its socket cannot be spliced: what comes to it goes by TCP, which is counted, and is no less whole.

    (What getpeername tells the client is not looked at: under an egress policy it is the redirected address.)
    """
    by_tcp = node.total(node.metrics(kproxy.admin_port), node.BYTES, path="tcp")
    with net["client"].inside():
        client = socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP)
    with client:
        client.settimeout(10)
        client.connect((str(net["server"].v4), PORT))
        first = ask(client, "/jobs/1")
        assert first.startswith(b"HTTP/1.1 200 ")
        assert f'"accept": "{net["client"].v4}:'.encode() in first
        assert ask(client, "/applicants/1").endswith(b"Access denied\r\n")
        assert ask(client, "/jobs/2").startswith(b"HTTP/1.1 200 ")
    assert node.total(node.metrics(kproxy.admin_port), node.BYTES, path="tcp") > by_tcp


def ask(client: socket.socket, path: str) -> bytes:
    """One request on the connection, and its whole answer, which has a Content-Length."""
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: server\r\n\r\n".encode())
    answer = b""
    while not (length := re.search(rb"Content-Length: ([0-9]+)\r\n(?:.+\r\n)*\r\n", answer)) or len(
        answer
    ) < length.end() + int(length[1]):
        more = client.recv(65536)
        assert more, answer
        answer += more
    return answer
