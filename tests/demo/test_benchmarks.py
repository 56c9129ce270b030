"""The benchmark's own arithmetic and loads: what it reports is what happened."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from benchmarks import bodies, results, sink
from benchmarks.__main__ import NETWORK
from benchmarks.arrangement import RULES
from benchmarks.envoy import PORT_OFFSET, bootstrap
from benchmarks.results import Measurement
from benchmarks.workloads import fresh_seed
from kproxy.demo.network import Network
from kproxy.demo.process import run

ROOT = Path(__file__).parents[2]


def measured(path: str, *requests_per_s: float) -> list[Measurement]:
    """A path's measurements under one load, repeat by repeat."""
    return [
        Measurement("unique", path, 16, repeat, {"requests_per_s": value, "p50_us": 1e6 / value})
        for repeat, value in enumerate(requests_per_s)
    ]


def test_rows_are_medians_and_ratios_are_within_repeats() -> None:
    """A machine that halves its speed for one repeat moves no ratio."""
    found = results.rows([*measured("proxy", 200, 100, 220), *measured("envoy", 100, 50, 100)])
    proxy, envoy = found
    assert (proxy["requests_per_s"], envoy["requests_per_s"]) == (200, 100)
    assert proxy["ratio_to_envoy"] == {"requests_per_s": 2.0, "p50_us": 0.5}
    assert "ratio_to_envoy" not in envoy
    assert [repeat["requests_per_s"] for repeat in proxy["repeats"]] == [200, 100, 220]


def test_rows_of_one_load_stand_together() -> None:
    """Measured path by path, shown load by load."""
    one = Measurement("unique", "direct", 1, 0, {"requests_per_s": 1})
    two = Measurement("unique", "direct", 16, 0, {"requests_per_s": 1})
    found = results.rows([one, two, Measurement("unique", "envoy", 1, 0, {"requests_per_s": 1})])
    assert [(row["connections"], row["path"]) for row in found] == [
        (1, "direct"),
        (1, "envoy"),
        (16, "direct"),
    ]


def test_a_ratio_to_nothing_is_left_out() -> None:
    """The unproxied path has no proxy memory to be compared with."""
    direct = Measurement("idle", "direct", 1000, 0, {"proxy_bytes_per_connection": 0})
    proxy = Measurement("idle", "proxy", 1000, 0, {"proxy_bytes_per_connection": 9})
    assert results.rows([direct, proxy])[1]["ratio_to_direct"] == {}


def test_the_table_shows_every_row() -> None:
    """One heading for each load, one line for each path with its ratio."""
    text = results.table(results.rows([*measured("direct", 1000), *measured("envoy", 250)]))
    assert "unique, 16 connections" in text
    assert "0.25 of direct, p50 4.00" in text


def test_a_result_file_can_be_read_back(tmp_path: Path) -> None:
    """JSON, with the machine at the top and the rows below."""
    results.write(tmp_path / "deep" / "file.json", {"kernel": "6"}, results.rows(measured("direct", 5)))
    content = json.loads((tmp_path / "deep" / "file.json").read_text())
    assert content["kernel"] == "6"
    assert content["rows"][0]["requests_per_s"] == 5


class HeadServer(socketserver.ThreadingTCPServer):
    """Answers every request and keeps its head; nothing here sends more than one at a time."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), HeadHandler)
        self.seen: list[bytes] = []


class HeadHandler(socketserver.BaseRequestHandler):
    """One connection, which wrk ends with a reset."""

    server: HeadServer

    def handle(self) -> None:
        """Answer until the client goes."""
        with suppress(ConnectionResetError):
            while head := self.request.recv(65536):
                self.server.seen.append(head)
                self.request.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def heads_of(script: str) -> list[bytes]:
    """The heads that wrk sends in one short run of a load, over two threads and two connections."""
    with HeadServer() as server:
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        command = ["env", f"LUA_PATH={ROOT}/?.lua", "wrk", "-t2", "-c2", "-d1s"]
        done = run([*command, "-s", str(ROOT / f"benchmarks/wrk/{script}.lua"), url, "--", fresh_seed()])
        server.shutdown()
        serving.join()
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["status"] == 0
    return server.seen


def test_unique_heads_never_repeat() -> None:
    """Over two runs of two threads: every head differs, and all have the length and fields of the equal ones."""
    first, second = heads_of("unique"), heads_of("unique")
    assert len(set(first) | set(second)) == len(first) + len(second) > 100
    equal = heads_of("equal")
    assert len(set(equal)) == 1

    def names(head: bytes) -> set[bytes]:
        return {line.partition(b":")[0].lower() for line in head.split(b"\r\n")[1:] if line}

    assert {len(head) for head in first} == {len(equal[0])}
    assert names(first[0]) == names(equal[0]) >= {b"traceparent", b"host"}


def test_connect_asks_for_a_connection_each() -> None:
    """The load that counts new connections says so in its one head."""
    (head,) = set(heads_of("connect"))
    assert b"\r\nConnection: close\r\n" in head


@pytest.mark.parametrize("size", [0, 1, 65536, 3_000_000])
def test_uploads_are_answered_when_they_are_whole(size: int) -> None:
    """The sink reads every byte of a body before it answers, and then serves the next on the connection."""
    client, server = socket.socketpair()
    serving = threading.Thread(target=sink.serve, args=(server,))
    serving.start()
    with client:
        assert [bodies.post(client, "/jobs", size) for _ in range(2)] == [size, size]
    serving.join()


def test_a_refused_body_is_an_error_and_not_a_figure() -> None:
    """A 403 must never be measured as a fast download."""
    client, server = socket.socketpair()
    with client, server:
        server.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 15\r\n\r\nAccess denied\r\n")
        with pytest.raises(OSError, match="403"):
            bodies.get(client, "/jobs/1", 10)


def test_envoy_gets_every_rule() -> None:
    """One listener, filter and cluster for each rule that kproxy gets."""
    made = bootstrap(Path("/log"), IPv4Address("10.0.0.3"), RULES)["static_resources"]
    ports = [each["address"]["socket_address"]["port_value"] for each in made["listeners"]]
    assert ports == [rule.port + PORT_OFFSET for rule in RULES]
    text = json.dumps(made)
    for rule in RULES:
        assert json.dumps(rule.path) in text
        assert f'"exact": "{rule.method}"' in text
    assert '"address_prefix": "10.0.0.3"' in text


def test_the_network_has_a_name_that_can_be_one() -> None:
    """The default names a bridge: an interface's name is short."""
    assert Network(NETWORK).name == NETWORK
