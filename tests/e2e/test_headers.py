"""headerMatches on real sockets: what the server gets, and secrets that rotate under an open connection."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from rig import Node, accept, connect, eventually, http_rule, listen, running_node

from kproxy.demo.network import Network

pytestmark = pytest.mark.bpf

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
OLD, NEW = "Bearer s3cret-old", "Bearer s3cret-new"


def secret(name: str, mismatch: str | None = None) -> dict[str, Any]:
    """A header match with the secret."""
    return {"name": name, "secret": {"name": "token"}} | ({"mismatch": mismatch} if mismatch else {})


EGRESS = [
    {
        "path": "/edit",
        "headerMatches": [
            secret("X-Token", "ADD"),
            {"name": "X-User", "value": "alice", "mismatch": "REPLACE"},
            {"name": "X-Role", "value": "none", "mismatch": "DELETE"},
        ],
    },
    {"path": "/fail"},
    {"path": "/plain"},
]
INGRESS = [
    {"path": "/edit", "headers": ["X-User: alice"]},
    {"path": "/fail", "headerMatches": [secret("X-Token")]},
    {"path": "/plain"},
]


def rotate(folder: Path, value: str, generation: str) -> None:
    """Mount the secret as Kubernetes does, or swap it."""
    (folder / generation).mkdir(parents=True)
    (folder / generation / "key").write_text(value + "\n")
    (folder / generation / "key").chmod(0o600)
    (folder / "..new").symlink_to(generation)
    (folder / "..new").rename(folder / "..data")
    if not (folder / "key").is_symlink():
        (folder / "key").symlink_to("..data/key")


@pytest.fixture
def node(network: Network, tmp_path: Path) -> Iterator[Node]:
    """kproxy with both policies, and a secret that is mounted as Kubernetes does."""
    rotate(tmp_path / "secrets/default/token", OLD, "..1")
    policies = [
        http_rule("client", "egress", "server", 80, EGRESS, "out"),
        http_rule("server", "ingress", "client", 80, INGRESS, "in"),
    ]
    log = {"level": "debug", "format": "text"}
    with running_node(tmp_path, network, policies, ["client", "server"], secrets="secrets", log=log) as node:
        yield node


class Pair:
    """A client and its server on one kept connection."""

    def __init__(self, network: Network) -> None:
        listener = listen(network["server"], 80)
        self.client = connect(network["client"], network["server"], 80)
        self.server = accept(listener)

    def reaches(self, path: str, **fields: str) -> bytes:
        """Send a request, and return what the server got of it; it answers, and the client has that."""
        self.client.sendall(request(path, fields))
        got = b""
        while not got.endswith(b"\r\n\r\n"):
            got += self.server.recv(4096)
        self.server.sendall(ANSWER)
        assert status(self.client) == 200
        return got

    def denied(self, path: str, **fields: str) -> bool:
        """Send a request, and tell whether it was answered 403."""
        self.client.sendall(request(path, fields))
        return status(self.client) == 403


def request(path: str, fields: Mapping[str, str]) -> bytes:
    """A GET with these fields, written X_User for X-User."""
    lines = [f"{name.replace('_', '-')}:  {value} " for name, value in fields.items()]
    return "\r\n".join([f"GET {path} HTTP/1.1", *lines, "Host: server", "", ""]).encode()


def status(client: socket.socket) -> int:
    """The status of the next answer, which comes in one piece or two."""
    data = b""
    while not data.endswith((b"ok", b"denied\r\n")):
        data += client.recv(4096)
    return int(data.split(b" ")[1])


def test_edits_reach_the_server(node: Node, network: Network) -> None:
    """Added, replaced and removed, the other lines byte for byte; the server's policy judges what was edited."""
    pair = Pair(network)
    sent = {"X_User": "eve", "A": "1", "X_Role": "admin"}
    assert pair.reaches("/edit", **sent) == (
        b"GET /edit HTTP/1.1\r\nx-user: alice\r\nA:  1 \r\nHost: server\r\nx-token: "
        + OLD.encode()
        + b"\r\n\r\n"
    )
    line = node.logged(path="/edit")
    assert line["edits"] == ["add x-token", "replace x-user", "delete x-role"]
    assert line["bytes_in"] == len(request("/edit", sent))
    assert pair.reaches("/plain", **sent) == request("/plain", sent)
    assert "edits" not in node.logged(path="/plain")


def test_a_secret_rotates_under_an_open_connection(node: Node, network: Network, tmp_path: Path) -> None:
    """The next request of a kept connection has the new value, must show it, and no value is written anywhere."""
    pair = Pair(network)
    assert OLD.encode() in pair.reaches("/edit")
    assert pair.reaches("/fail", X_Token=OLD)
    assert pair.denied("/fail", X_Token=NEW)
    revision = node.count("kproxy_policy_revision")
    rotate(tmp_path / "secrets/default/token", NEW, "..2")
    eventually(lambda: node.count("kproxy_policy_revision") > revision, "the new secret is in force")
    got = pair.reaches("/edit")
    assert NEW.encode() in got
    assert OLD.encode() not in got
    assert pair.denied("/fail", X_Token=OLD)
    assert pair.reaches("/fail", X_Token=NEW)
    for name in ("edit", "fail"):
        node.logged(path=f"/{name}")
    eventually(lambda: "token/key" in node.process.output(), "the file that changed is named")
    written = [node.files.access_log.read_text(), node.process.output(), *admin(node)]
    assert "add x-token" in written[0]
    assert [text for text in written if "s3cret" in text] == []


def test_a_secret_that_goes_bad_or_away(node: Node, network: Network, tmp_path: Path) -> None:
    """A bad one changes nothing; one that is gone closes the rules that need it, and only those."""
    pair = Pair(network)
    folder = tmp_path / "secrets/default/token"
    rotate(folder, f"{NEW}\nX-Role: admin", "..2")
    eventually(lambda: "is not a header value" in node.process.output(), "the mistake is told")
    assert OLD.encode() in pair.reaches("/edit")
    (folder / "key").unlink()
    eventually(lambda: "there is no secret default/token" in admin(node)[1], "the warning is told")
    assert pair.denied("/edit")
    assert pair.denied("/fail", X_Token=OLD)
    assert pair.reaches("/plain")
    assert [text for text in (node.process.output(), *admin(node)) if "s3cret" in text] == []


def admin(node: Node) -> list[str]:
    """What /metrics and /status say."""
    texts = []
    for path in ("/metrics", "/status"):
        connection = HTTPConnection("127.0.0.1", node.files.admin_port, timeout=10)
        connection.request("GET", path)
        texts.append(connection.getresponse().read().decode())
        connection.close()
    json.loads(texts[1])
    return texts
