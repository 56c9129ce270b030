"""The peers do what they are there for, with nothing between them: else they would prove nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from programs import Peer, digest, pattern, plain

from kproxy.demo.client import Call, curl
from kproxy.demo.network import Network

pytestmark = pytest.mark.bpf

LANGUAGES = ("node", "go")
PORT = 80
SIZE = 300_007


@pytest.mark.parametrize("server", LANGUAGES)
@pytest.mark.parametrize("client", LANGUAGES)
def test_bodies_arrive_whole_on_one_connection(
    net: Network, peers: Mapping[str, Peer], server: str, client: str
) -> None:
    """Framed and chunked downloads, twice over, keep one connection and every byte."""
    with peers[server].serve(net["server"], PORT):
        base = f"http://{net['server'].v4}:{PORT}"
        report = peers[client].call(
            net["client"], [f"{base}/bytes/{SIZE}", f"{base}/chunked/{SIZE}"], count=2
        )
    assert report.statuses == [200] * 4
    assert report.connections == 1
    assert report.bytes == 4 * SIZE
    assert report.sha256 == digest(*[pattern(SIZE)] * 4)


@pytest.mark.parametrize("server", LANGUAGES)
@pytest.mark.parametrize("client", LANGUAGES)
def test_uploads_arrive_whole(net: Network, peers: Mapping[str, Peer], server: str, client: str) -> None:
    """What the server says it received is what the client was told to send."""
    with peers[server].serve(net["server"], PORT):
        url = f"http://{net['server'].v4}:{PORT}/digest"
        assert peers[client].call(net["client"], [url], upload=SIZE).statuses == [200]
        (reply,) = curl([Call("POST", "/digest", "hello")], net["server"].v4, netns=net["client"].netns)
    assert f'"sha256":"{digest(b"hello")}"' in reply.body.replace(" ", "")


@pytest.mark.parametrize("server", LANGUAGES)
@pytest.mark.parametrize("version", [4, 6])
def test_each_side_knows_the_other(
    net: Network, peers: Mapping[str, Peer], server: str, version: int
) -> None:
    """The server sees the client's address and port, and the client the server's, in both families."""
    to, own = net["server"].addresses[version == 6], net["client"].addresses[version == 6]
    host = f"[{to}]" if version == 6 else str(to)
    with peers[server].serve(net["server"], PORT):
        report = peers["go"].call(net["client"], [f"http://{host}:{PORT}/whoami"])
        (reply,) = curl([Call("GET", "/whoami")], to, netns=net["client"].netns)
    assert report.remote == [f"{host}:{PORT}"]
    assert reply.local.rpartition(":")[0].strip("[]") == str(own)
    assert plain(json.loads(reply.body)["remote"]) == reply.local


@pytest.mark.parametrize("client", LANGUAGES)
def test_a_client_reports_a_refusal_as_its_status(
    net: Network, peers: Mapping[str, Peer], client: str
) -> None:
    """Statuses are reported, not judged: a 404 is an answer like another."""
    with peers["go"].serve(net["server"], PORT):
        base = f"http://{net['server'].v4}:{PORT}"
        report = peers[client].call(net["client"], [f"{base}/nothing", f"{base}/whoami"])
    assert report.statuses == [404, 200]
