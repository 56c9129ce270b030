"""Bodies of any length, both ways: whole, bounded in memory, whatever path the bytes take."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from rig import Node, eventually, http_rule, listen, opened, running_node

from kproxy.demo.network import Network

pytestmark = pytest.mark.bpf

BODY = 200 * 1024 * 1024
GET_BODY = b"GET /body HTTP/1.1\r\nHost: a\r\n\r\n"
PIECE = bytes(range(256)) * 256
PORT = 8090

# What one flow may hold when nobody reads: two socket queues a direction (tcp_rmem and tcp_wmem at their
# defaults), a grant of credit, and kproxy's own high-water marks.
MOST_HELD = 24 * 1024 * 1024


@pytest.fixture
def node(network: Network, tmp_path: Path) -> Iterator[Node]:
    """Egress policy at the client and ingress policy at the server: one flow, judged twice, spliced throughout."""
    policies = [
        http_rule("client", "egress", "server", PORT, [{"path": "/body.*"}], "out"),
        http_rule("server", "ingress", "client", PORT, [{"method": "GET|PUT"}], "in"),
    ]
    with running_node(tmp_path, network, policies, ["client", "server"]) as running:
        yield running


def test_download_of_200_mb_arrives_as_it_was_sent(node: Node, network: Network) -> None:
    """The hash of a response body is the hash of what the server wrote."""
    with listen(network["server"], PORT) as listener:
        client, server = opened(network, listener, PORT, GET_BODY)
        sent = hashlib.sha256()
        writer = threading.Thread(target=_write, args=(server, sent, b"HTTP/1.1 200 OK\r\n"))
        writer.start()
        received = hashlib.sha256()
        _read_body(client, received)
        writer.join()
        assert received.digest() == sent.digest()
    assert node.logged(path="/body")["bytes_out"] > BODY


def test_upload_of_200_mb_arrives_as_it_was_sent(node: Node, network: Network) -> None:
    """The hash of a request body is the hash of what the client wrote."""
    with listen(network["server"], PORT) as listener:
        client, server = opened(network, listener, PORT)
        sent = hashlib.sha256()
        head = b"PUT /body HTTP/1.1\r\nHost: a\r\n"
        writer = threading.Thread(target=_write, args=(client, sent, head))
        writer.start()
        received = hashlib.sha256()
        _read_body(server, received)
        writer.join()
        assert received.digest() == sent.digest()
        server.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 204")


def test_server_that_never_reads_holds_the_client_back(node: Node, network: Network) -> None:
    """An upload to a server that does not read stops after a bounded number of bytes."""
    with listen(network["server"], PORT) as listener:
        client, server = opened(network, listener, PORT)
        client.sendall(b"PUT /body HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % BODY)
        held = _send_until_held(client, PIECE)
        assert 0 < held < MOST_HELD
        server.close()


def test_client_that_never_reads_holds_the_server_back(node: Node, network: Network) -> None:
    """A download to a client that does not read stops after a bounded number of bytes."""
    with listen(network["server"], PORT) as listener:
        _client, server = opened(network, listener, PORT, GET_BODY)
        server.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BODY)
        held = _send_until_held(server, PIECE)
        assert 0 < held < MOST_HELD


def test_small_writes_are_bounded_too(node: Node, network: Network) -> None:
    """One-byte sends to a reader that does not read cost the kernel far more than a byte: they are bounded."""
    with listen(network["server"], PORT) as listener:
        _client, server = opened(network, listener, PORT, GET_BODY)
        server.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BODY)
        before = _kernel_socket_memory()
        _send_until_held(server, b"x", most=400_000)
        assert _kernel_socket_memory() - before < 4 * MOST_HELD


def test_client_that_pipelines_and_never_reads_is_held_back(node: Node, network: Network) -> None:
    """Requests without end, answers never read: both the client and kproxy's memory stop growing."""
    with listen(network["server"], PORT) as listener:
        client, server = opened(network, listener, PORT)
        answering = threading.Thread(target=_answer_all, args=(server,), daemon=True)
        answering.start()
        request = b"GET /body HTTP/1.1\r\nHost: a\r\n\r\n"
        held = _send_until_held(client, request * 100)
        assert held < MOST_HELD
        assert _resident(node.process.pid) < 200 * 1024 * 1024
        client.close()
        answering.join(10)


def test_what_fell_to_tcp_is_spliced_again(node: Node, network: Network) -> None:
    """A connection that once outran its reader goes back to splicing when it has caught up."""
    with listen(network["server"], PORT) as listener:
        client, server = opened(network, listener, PORT, GET_BODY)
        size = 8 * 1024 * 1024
        server.settimeout(10)
        writer = threading.Thread(
            target=server.sendall,
            args=(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size),),
        )
        writer.start()
        _drain(client, size)
        writer.join()
        assert node.count("kproxy_splice_fallbacks_total") > 0

        def spliced_again() -> bool:
            before = node.count("kproxy_bytes_total", path="tcp")
            for _ in range(20):
                client.sendall(GET_BODY)
                server.recv(1000)
                server.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
                client.recv(1000)
            return node.count("kproxy_bytes_total", path="tcp") == before

        eventually(spliced_again, "all four directions are spliced again")


def _write(sock: socket.socket, hashed: hashlib._Hash, head: bytes) -> None:
    sock.sendall(head + b"Content-Length: %d\r\n\r\n" % BODY)
    left = BODY
    step = 0
    while left:
        step = (step + 4099) % len(PIECE)
        piece = PIECE[step : step + left] or PIECE[:left]
        hashed.update(piece)
        sock.sendall(piece)
        left -= len(piece)


def _read_body(sock: socket.socket, hashed: hashlib._Hash) -> None:
    data = b""
    while b"\r\n\r\n" not in data:
        data += sock.recv(65536)
    body = data.split(b"\r\n\r\n", 1)[1]  # empty where the head came alone
    hashed.update(body)
    left = BODY - len(body)
    while left and (body := sock.recv(min(left, 1 << 20))):
        hashed.update(body)
        left -= len(body)
    assert left == 0


def _drain(sock: socket.socket, body: int) -> None:
    data = b""
    while b"\r\n\r\n" not in data:
        data += sock.recv(65536)
    left = body - len(data.split(b"\r\n\r\n", 1)[1])
    while left:
        left -= len(sock.recv(min(left, 1 << 20)))


def _send_until_held(sock: socket.socket, piece: bytes, most: int = BODY) -> int:
    """Send until nothing more is taken for a second; return how many bytes were."""
    sock.settimeout(1)
    sent = 0
    try:
        while sent < most:
            sent += sock.send(piece)
    except TimeoutError:
        pass
    return sent


def _answer_all(server: socket.socket) -> None:
    server.settimeout(10)
    try:
        while server.recv(65536):
            server.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + bytes(1000))
    except OSError:
        server.close()


def _kernel_socket_memory() -> int:
    """Pages that TCP holds on this machine, in bytes (/proc/net/sockstat)."""
    line = next(one for one in Path("/proc/net/sockstat").read_text().splitlines() if one.startswith("TCP:"))
    return int(line.split()[-1]) * 4096


def _resident(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) * 1024
