"""Real servers behind the core: nginx and Node see exactly the requests that were judged, whatever is sent."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from smuggling_corpus import FIRST, LAST, SMUGGLED, corpus
from story import ALLOW, DENY, Recorder, Verdict

from kproxy.http1 import Http1Flow, HttpOptions
from parsers.http1 import RequestHead

SERVERS = Path(__file__).parent / "servers"
STREAMS = corpus()

# A server that has not answered for this long will not: it waits for the rest of a message.
SILENCE_S = 0.3
# A busy machine may take this long to start a server, or the server to write what it has seen.
PATIENCE_S = 10.0


class Server:
    """A server on loopback, and the requests that it has seen since it was last asked."""

    def __init__(self, name: str, port: int, log: Path) -> None:
        self.name = name
        self.port = port
        self._log = log
        self._read = 0

    def seen(self, at_least: int) -> list[str]:
        """`METHOD TARGET` of each request since the last call; waits for as many as are expected."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            lines = self._log.read_text(errors="replace").splitlines()[self._read :]
            if len(lines) >= at_least or time.monotonic() > deadline:
                self._read += len(lines)
                return lines
            time.sleep(0.005)


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def command(name: str, folder: Path, port: int) -> list[str]:
    """How to start a server."""
    if name == "node":
        return ["node", str(SERVERS / "seen.js"), str(port)]
    text = (SERVERS / "seen.conf").read_text().replace("FOLDER", str(folder)).replace("PORT", str(port))
    (folder / "nginx.conf").write_text(text)
    return [
        shutil.which("nginx") or "/usr/sbin/nginx",
        "-e",
        str(folder / "error.log"),
        "-c",
        str(folder / "nginx.conf"),
    ]


@pytest.fixture(scope="module", params=["nginx", "node"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server."""
    folder = tmp_path_factory.mktemp(request.param)
    port = free_port()
    log = folder / "seen.log"
    with log.open("w") as out, subprocess.Popen(command(request.param, folder, port), stdout=out) as process:
        try:
            deadline = time.monotonic() + PATIENCE_S
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except ConnectionRefusedError:
                    assert process.poll() is None
                    assert time.monotonic() < deadline, "the server did not start"
                    time.sleep(0.02)
            yield Server(request.param, port, log)
        finally:
            process.terminate()


class Judge:
    """Allows everything but what should never be asked for, and notes what was allowed."""

    def __init__(self) -> None:
        self.allowed: list[RequestHead] = []

    def __call__(self, head: RequestHead) -> Verdict:
        """The verdict."""
        if head.path.startswith(b"/smuggled"):
            return DENY
        self.allowed.append(head)
        return ALLOW


class Wire(Recorder):
    """A recorder that is connected to a real server."""

    def __init__(self, upstream: socket.socket) -> None:
        super().__init__()
        self._socket = upstream
        self.answered = 0
        self.over = False

    def send_upstream(self, data: bytes) -> None:
        """Towards the real server."""
        super().send_upstream(data)
        self._socket.sendall(data)

    def request(self, head: RequestHead | None, judgement: Verdict, *rest: int) -> None:  # type: ignore[override]
        """Count what was answered."""
        self.answered += judgement.allowed

    def end_downstream(self) -> None:
        """The flow ends."""
        self.over = True

    def close(self) -> None:
        """The flow is closed."""
        self.over = True

    def abort(self, reason: str) -> None:
        """The flow is reset."""
        self.over = True


def send_through(stream: bytes, port: int, size: int) -> Judge:
    """Send a stream through the core to a server, in pieces of `size`, until nothing more happens."""
    judge = Judge()
    with socket.create_connection(("127.0.0.1", port)) as upstream:
        upstream.settimeout(SILENCE_S)
        wire = Wire(upstream)
        flow = Http1Flow(wire, judge, wire, HttpOptions(), time.perf_counter_ns)
        for at in range(0, len(stream), size):
            flow.downstream_data(stream[at : at + size])
        while not wire.over and wire.answered < len(judge.allowed):
            try:
                data = upstream.recv(65536)
            except TimeoutError:
                break
            if not data:
                flow.upstream_eof()
                break
            flow.upstream_data(data)
        upstream.shutdown(socket.SHUT_WR)
        try:
            while upstream.recv(65536):
                pass
        except (TimeoutError, ConnectionResetError):
            pass
    return judge


def targets(head: RequestHead) -> set[str]:
    """How servers may write the request down: nginx has the path of an absolute target, Node the whole."""
    return {f"{head.method.decode()} {target.decode()}" for target in (head.target, head.path)}


# What a server refuses although the core takes it: harmless, as nothing is read differently.
SERVER_REFUSES = {("node", "Content-Length: with a tab")}


@pytest.mark.parametrize("size", [1 << 20, 1], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("name", STREAMS)
def test_servers_see_what_was_judged(server: Server, name: str, size: int) -> None:
    """The server's own list of requests is the list of those that were allowed."""
    judge = send_through(STREAMS[name], server.port, size)
    allowed = judge.allowed[: 1 if (server.name, name) in SERVER_REFUSES else None]
    seen = server.seen(len(allowed))
    assert len(seen) == len(allowed), (seen, allowed)
    assert all(line in targets(head) for line, head in zip(seen, allowed, strict=True)), (seen, allowed)
    assert not any("smuggled" in line for line in seen)


def test_the_servers_would_be_smuggled_to(server: Server) -> None:
    """Without the core the carried request does reach the server: the test above could fail."""
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.settimeout(SILENCE_S)
        client.sendall(FIRST + SMUGGLED + LAST)
        client.shutdown(socket.SHUT_WR)
        while client.recv(65536):
            pass
    assert server.seen(3) == ["GET /first", "GET /smuggled", "GET /last"]
