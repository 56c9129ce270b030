"""kproxy on a demonstration network: its files as a person would write them, and a run of it.

What runs is the real command, `kproxy run --config FILE --detach-on-exit`, in a process of its own.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from kproxy.demo.network import Pod
from kproxy.demo.process import Process, running

BYTES = "kproxy_bytes_total"  # by path: spliced or tcp
REQUESTS = "kproxy_requests_total"  # by protocol, verdict, and more
_TIMEOUT_S = 5.0  # of one request to the admin address


@dataclass(frozen=True)
class NodeFiles:
    """The files of one node: configuration, endpoints, access log; and where its admin listener is."""

    config: Path
    access_log: Path
    admin_port: int


class Sample(NamedTuple):
    """One line of /metrics."""

    name: str
    labels: dict[str, str]
    value: float

    def __str__(self) -> str:
        """Its name and labels as Prometheus writes them."""
        labels = ",".join(f'{key}="{value}"' for key, value in sorted(self.labels.items()))
        return f"{self.name}{{{labels}}}" if labels else self.name


def endpoint(pod: Pod, *, enforced: bool = True) -> dict[str, Any]:
    """A pod's entry of the endpoints file; without `enforced` it is a peer known by its addresses."""
    entry: dict[str, Any] = {
        "name": pod.name,
        "namespace": pod.spec.namespace,
        "labels": dict(pod.spec.labels),
        "addresses": [str(address) for address in pod.addresses],
        "ports": dict(pod.spec.ports),
    }
    return {**entry, "netns": str(pod.netns)} if enforced else entry


def write_node(
    folder: Path,
    rules: Iterable[Path],
    endpoints: Iterable[Mapping[str, Any]],
    admin_port: int,
    /,
    **settings: Any,
) -> NodeFiles:
    """Write `config.json` and `endpoints.json` into the folder; `settings` are further keys of the former."""
    config, access_log = folder / "config.json", folder / "access.jsonl"
    content = {
        "node": "demo",
        "rules": [str(path.absolute()) for path in rules],
        "endpoints": "endpoints.json",
        "failMode": "closed",
        "admin": f"127.0.0.1:{admin_port}",
        "accessLog": access_log.name,
        **settings,
    }
    config.write_text(json.dumps(content, indent=2))
    (folder / "endpoints.json").write_text(json.dumps({"endpoints": list(endpoints)}, indent=2))
    return NodeFiles(config, access_log, admin_port)


@contextmanager
def kproxy_run(files: NodeFiles, *, env: Mapping[str, str] | None = None) -> Iterator[Process]:
    """`kproxy run` while the block lasts, from when it says that its hooks and a policy are in force.

    Raises ProcessError with its own words if it does not come to that.
    """
    argv = [str(Path(sys.executable).with_name("kproxy")), "run", "--config", str(files.config)]
    with running(
        [*argv, "--detach-on-exit"], ready=lambda _: _is_ready(files.admin_port), env=env
    ) as process:
        yield process


def free_port() -> int:
    """A port of the host's loopback that nobody listens on now, for the admin listener."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def metrics(admin_port: int) -> list[Sample]:
    """Every sample of /metrics."""
    families = text_string_to_metric_families(get(admin_port, "/metrics")[1])
    return [Sample(s.name, dict(s.labels), s.value) for family in families for s in family.samples]


def total(samples: Iterable[Sample], name: str, **labels: str) -> int:
    """The sum of all samples of this name that carry these labels, whatever else they carry."""
    return sum(int(s.value) for s in samples if s.name == name and labels.items() <= s.labels.items())


def _is_ready(admin_port: int) -> bool:
    try:
        return get(admin_port, "/readyz")[0] == 200
    except (OSError, HTTPException):
        return False


def get(port: int, path: str) -> tuple[int, str]:
    """Ask the admin listener for a path; status and body."""
    connection = HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()
