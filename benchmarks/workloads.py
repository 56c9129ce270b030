"""What is measured on a path that is up, each as a function from a path to figures.

Every function checks that what it measured was right: a request that failed, or an answer that was not
200, ends the run with an error, never with a figure.
"""

from __future__ import annotations

import json
import secrets
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.arrangement import (
    ALLOWED,
    BODY_BYTES,
    DOWNLOAD,
    HTTP_PORT,
    SINK_PORT,
    UPLOAD,
    Arrangement,
)
from benchmarks.machine import busy_us, kernel_bytes, resident_bytes
from benchmarks.paths import Target
from kproxy.demo.errors import ProcessError
from kproxy.demo.process import run

Figures = dict[str, float]
Measure = Callable[[Arrangement, Target, int, float], Figures]

IDLE_CONNECTIONS = 1000
_SCRIPTS = Path(__file__).parent / "wrk"
_BODY_TIMEOUT_S = 300


@dataclass(frozen=True)
class Workload:
    """A load: how to measure it for (arrangement, target, connections, seconds), and with what.

    `warm_up`: measure once before, shortly, and forget it. (Memory that is warm is memory not counted.)
    """

    name: str
    title: str
    measure: Measure
    connections: tuple[int, ...]
    warm_up: bool


def _wrk(script: str) -> Measure:
    """A measurement with wrk under this script."""

    def measure(arrangement: Arrangement, target: Target, connections: int, seconds: float) -> Figures:
        before = busy_us()
        report = wrk(arrangement, target, script, connections, seconds)
        spent = busy_us() - before
        return {
            "requests_per_s": report["requests"] / report["seconds"],
            "p50_us": report["p50_us"],
            "p99_us": report["p99_us"],
            "cpu_us_per_request": spent / report["requests"],
        }

    return measure


def wrk(
    arrangement: Arrangement, target: Target, script: str, connections: int, seconds: float
) -> dict[str, float]:
    """Run wrk in the client's pod with one thread; its own counts. Raises ProcessError on any failed request."""
    url = f"http://{arrangement.server.v4}:{target.ports[HTTP_PORT]}"
    command = ["env", f"LUA_PATH={_SCRIPTS.parents[1]}/?.lua", "wrk", "-t1", f"-c{connections}"]
    command += [f"-d{max(1, round(seconds))}s", "--timeout", "10s", "-s", str(_SCRIPTS / f"{script}.lua")]
    done = run([*command, url, "--", fresh_seed()], netns=arrangement.client.netns, timeout=seconds + 60)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise ProcessError(f"wrk failed: {done.stdout}{done.stderr}")
    report: dict[str, float] = json.loads(lines[-1])
    failed = {
        kind: report[kind] for kind in ("connect", "read", "write", "status", "timeout") if report[kind]
    }
    if failed or not report["requests"]:
        raise ProcessError(f"wrk ({script}, {connections} connections) had errors: {failed or 'no request'}")
    return report


def fresh_seed() -> str:
    """Ten digits that no other run has, with a probability of 1 - 10⁻¹⁰ for each earlier run."""
    return f"{secrets.randbelow(10**10):010d}"


def _body(way: str, port: int, path: str) -> Measure:
    """A measurement of one large body: `get` or `post`."""

    def measure(arrangement: Arrangement, target: Target, _connections: int, _seconds: float) -> Figures:
        command = [sys.executable, "-m", "benchmarks.bodies", way, str(arrangement.server.v4)]
        command += [str(target.ports[port]), path, str(BODY_BYTES)]
        before = busy_us()
        done = run(command, netns=arrangement.client.netns, timeout=_BODY_TIMEOUT_S)
        spent = busy_us() - before
        report = json.loads(done.stdout or "{}")
        if done.returncode or report["bytes"] != BODY_BYTES:
            raise ProcessError(f"{' '.join(command)} failed: {done.stdout} {done.stderr}")
        gigabytes = BODY_BYTES / 1e9
        return {
            "gigabytes_per_s": gigabytes / report["seconds"],
            "cpu_ms_per_gigabyte": spent / 1e3 / gigabytes,
        }

    return measure


def _idle(arrangement: Arrangement, target: Target, connections: int, _seconds: float) -> Figures:
    """Memory that each connection costs while it is kept alive and silent after one request."""
    address = (str(arrangement.server.v4), target.ports[HTTP_PORT])
    resident, kernel = resident_bytes(target.pids), kernel_bytes()
    with ExitStack() as stack, arrangement.client.inside():
        for _ in range(connections):
            _ask_once(stack.enter_context(socket.create_connection(address, timeout=10)))
        return {
            "proxy_bytes_per_connection": (resident_bytes(target.pids) - resident) / connections,
            "kernel_bytes_per_connection": (kernel_bytes() - kernel) / connections,
        }


def _ask_once(connection: socket.socket) -> None:
    connection.sendall(f"GET {ALLOWED} HTTP/1.1\r\nHost: server\r\n\r\n".encode())
    answer = connection.recv(65536)
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise ProcessError(f"an idle connection's request was answered {answer[:80]!r}")


_WRK_CONNECTIONS = (1, 16, 64)

WORKLOADS: Mapping[str, Workload] = {
    workload.name: workload
    for workload in (
        Workload("unique", "GET, unique heads", _wrk("unique"), _WRK_CONNECTIONS, True),
        Workload("equal", "GET, equal heads", _wrk("equal"), _WRK_CONNECTIONS, True),
        Workload("connect", "a connection each", _wrk("connect"), (16,), True),
        Workload("download", "1 GiB download", _body("get", HTTP_PORT, DOWNLOAD), (1,), True),
        Workload("upload", "1 GiB upload", _body("post", SINK_PORT, UPLOAD), (1,), True),
        Workload("idle", "idle connections", _idle, (IDLE_CONNECTIONS,), False),
    )
}
