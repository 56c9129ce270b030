"""The ways from client to server that are compared: nothing between, kproxy, Envoy.

One is up at a time: what another holds in the kernel, or burns while idle, is never in a figure.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.arrangement import ALLOWED, DENIED, ENVOY, HTTP_PORT, RULES, SINK_PORT, Arrangement
from benchmarks.envoy import PORT_OFFSET, bootstrap
from kproxy.demo import node
from kproxy.demo.client import Call, curl
from kproxy.demo.errors import ProcessError


@dataclass(frozen=True)
class Target:
    """A path that is up: where to dial for each of the server's ports, and the proxy's process, if any.

    `counters` reads what the proxy itself counts, by name.
    """

    ports: Mapping[int, int]
    pids: tuple[int, ...] = ()
    counters: Callable[[], dict[str, int]] = field(default=dict)


Opened = Callable[[Arrangement], AbstractContextManager[Target]]


@contextmanager
def direct(_arrangement: Arrangement) -> Iterator[Target]:
    """Nothing between."""
    yield Target({HTTP_PORT: HTTP_PORT, SINK_PORT: SINK_PORT})


@contextmanager
def kproxy(arrangement: Arrangement) -> Iterator[Target]:
    """kproxy with an ingress policy at the server; both pods are endpoints of the node."""
    with tempfile.TemporaryDirectory(dir=arrangement.folder) as name:
        folder = Path(name)
        rules = folder / "rules.json"
        rules.write_text(json.dumps(_policy()))
        files = node.write_node(folder, [rules], map(node.endpoint, arrangement.net), node.free_port())
        with node.kproxy_run(files) as process:
            ports = {HTTP_PORT: HTTP_PORT, SINK_PORT: SINK_PORT}
            yield Target(ports, (process.pid,), lambda: _bytes_by_path(files.admin_port))


def envoy(workers: int | None) -> Opened:
    """Envoy with this many workers, or its default of one a core."""

    @contextmanager
    def opened(arrangement: Arrangement) -> Iterator[Target]:
        with tempfile.TemporaryDirectory(dir=arrangement.folder) as name:
            config = Path(name, "envoy.json")
            config.write_text(json.dumps(bootstrap(Path(name, "access.log"), arrangement.client.v4, RULES)))
            argv = [str(ENVOY), "-c", str(config), "--disable-hot-restart", "-l", "warning"]
            argv += ["--concurrency", str(workers)] if workers else []
            with arrangement.server.start(argv, listening=SINK_PORT + PORT_OFFSET) as process:
                ports = {port: port + PORT_OFFSET for port in (HTTP_PORT, SINK_PORT)}
                yield Target(ports, (process.pid,))

    return opened


# By the name that rows carry. The bar is `envoy`: it has one worker thread, as kproxy has.
PATHS: Mapping[str, Opened] = {
    "direct": direct,
    "proxy": kproxy,
    "envoy": envoy(1),
    "envoy-all-cores": envoy(None),
}


@contextmanager
def opened(name: str, arrangement: Arrangement) -> Iterator[Target]:
    """The path of this name, up and seen to let through and refuse what it should.

    Raises ProcessError if it does not come up or judges wrongly.
    """
    with PATHS[name](arrangement) as target:
        _require_verdicts(name, arrangement, target)
        yield target


def _require_verdicts(name: str, arrangement: Arrangement, target: Target) -> None:
    calls = [Call("GET", ALLOWED), Call("GET", DENIED), Call("POST", ALLOWED, "{}")]
    replies = curl(calls, arrangement.server.v4, target.ports[HTTP_PORT], netns=arrangement.client.netns)
    wanted = [200, 200, 200] if name == "direct" else [200, 403, 403]
    if [reply.status for reply in replies] != wanted:
        told = ", ".join(
            f"{call}: {reply.status} {reply.error}" for call, reply in zip(calls, replies, strict=True)
        )
        raise ProcessError(f"{name} should answer {wanted}, but: {told}")


def _policy() -> dict[str, Any]:
    ports = [
        {
            "ports": [{"port": str(rule.port), "protocol": "TCP"}],
            "rules": {"http": [{"method": rule.method, "path": rule.path}]},
        }
        for rule in RULES
    ]
    ingress = [{"fromEndpoints": [{"matchLabels": {"app": "client"}}], "toPorts": ports}]
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "server", "namespace": "bench"},
        "spec": {"endpointSelector": {"matchLabels": {"app": "server"}}, "ingress": ingress},
    }


def _bytes_by_path(admin_port: int) -> dict[str, int]:
    samples = node.metrics(admin_port)
    return {way: node.total(samples, node.BYTES, path=way) for way in ("spliced", "tcp")}
