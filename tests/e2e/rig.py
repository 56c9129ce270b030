"""A node for end-to-end tests: pods, the real `kproxy run`, and what it wrote and counted."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kproxy.demo.network import Network, Pod
from kproxy.demo.node import NodeFiles, Sample, endpoint, get, kproxy_run, metrics, total, write_node
from kproxy.demo.process import Process

_opened: list[socket.socket] = []  # by the running test; conftest closes them after it

PATIENCE_S = 15.0  # for what happens within milliseconds on a quiet machine


def eventually(condition: Callable[[], Any], what: str) -> Any:
    """Return the first true answer. Fails, by name, when there is none."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if answer := condition():
            return answer
        time.sleep(0.02)
    raise AssertionError(f"never happened: {what}")


def http_rule(
    selects: str,
    direction: str,
    peer: str | None,
    port: int,
    http: Sequence[Mapping[str, Any]] | None = None,
    name: str = "policy",
) -> dict[str, Any]:
    """A CiliumNetworkPolicy: pods labelled app=`selects`, one direction, one peer, one port."""
    ports: dict[str, Any] = {"ports": [{"port": str(port), "protocol": "TCP"}]}
    if http is not None:
        ports["rules"] = {"http": list(http)}
    key = "fromEndpoints" if direction == "ingress" else "toEndpoints"
    rule: dict[str, Any] = {"toPorts": [ports]}
    if peer is not None:
        rule[key] = [{"matchLabels": {"app": peer}}]
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"endpointSelector": {"matchLabels": {"app": selects}}, direction: [rule]},
    }


def document(policies: Iterable[Mapping[str, Any]]) -> str:
    """One rule file: a List of policies, or the classic plain list of rules."""
    items = list(policies)
    if all("kind" in item for item in items):
        return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    return json.dumps(items)


@dataclass
class Node:
    """A running kproxy and its files."""

    files: NodeFiles
    process: Process
    rules: Path

    @property
    def endpoints(self) -> Path:
        """The endpoints file."""
        return self.files.config.with_name("endpoints.json")

    def log(self) -> list[dict[str, Any]]:
        """Every line of the access log so far."""
        text = self.files.access_log.read_text() if self.files.access_log.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    def log_after(self, count: int) -> list[dict[str, Any]]:
        """Every line of the access log once it has so many."""

        def written() -> bool:
            return self.files.access_log.read_bytes().count(b"\n") >= count

        eventually(written, f"{count} lines in the access log")
        return self.log()

    def logged(self, **fields: Any) -> dict[str, Any]:
        """Wait for a line that has these fields, and return it."""
        line: dict[str, Any] = eventually(
            lambda: next((one for one in self.log() if fields.items() <= one.items()), None),
            f"a log line with {fields}",
        )
        return line

    def metrics(self) -> list[Sample]:
        """All samples now. Fails with kproxy's own words where it has ended or is about to."""
        try:
            return metrics(self.files.admin_port)
        except OSError as error:
            self.process.stop()
            raise AssertionError(f"kproxy does not answer: {self.process.output()}") from error

    def count(self, name: str, **labels: str) -> int:
        """The sum of a metric's samples that carry these labels."""
        return total(self.metrics(), name, **labels)

    def revision(self) -> int:
        """The revision of the policy in force."""
        return self.count("kproxy_policy_revision")

    def status(self) -> dict[str, Any]:
        """What `kproxy status --json` prints."""
        return json.loads(get(self.files.admin_port, "/status")[1])

    def put_rules(self, policies: Iterable[Mapping[str, Any]]) -> None:
        """Replace the rule file as an editor would, by rename."""
        put(self.rules, document(policies))

    def put_endpoints(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Replace the endpoints file likewise."""
        put(self.endpoints, json.dumps({"endpoints": list(entries)}))

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Wait, after the block, until the files that it changed were read; a revision may have other causes."""
        before = self.count("kproxy_policy_reloads_total", result="success")
        yield
        eventually(
            lambda: self.count("kproxy_policy_reloads_total", result="success") > before,
            "the files are read again",
        )


def put(file: Path, text: str) -> None:
    """Write a file as editors do: a new one beside it, under a hidden name, then a rename."""
    fresh = file.with_name(f".{file.name}.new")
    fresh.write_text(text)
    fresh.rename(file)


@contextmanager
def running_node(
    folder: Path,
    pods: Iterable[Pod],
    policies: Iterable[Mapping[str, Any]],
    enforced: Iterable[str],
    **settings: Any,
) -> Iterator[Node]:
    """Run kproxy with these policies; the pods named in `enforced` are under it, the others are peers."""
    rules = folder / "rules"
    rules.mkdir(parents=True)
    file = rules / "policy.json"
    file.write_text(document(policies))
    names = set(enforced)
    entries = [endpoint(pod, enforced=pod.name in names) for pod in pods]
    with node_with(folder, [rules], entries, **settings) as node:
        yield node


@contextmanager
def node_with(
    folder: Path, rules: Iterable[Path], entries: Iterable[Mapping[str, Any]] = (), **settings: Any
) -> Iterator[Node]:
    """Run kproxy with these rule files and folders, endpoints and settings."""
    files = write_node(folder, rules, entries, free_port(), **settings)
    with kproxy_run(files) as process:
        yield Node(files, process, folder / "rules" / "policy.json")
        close_opened()  # kproxy waits at its end for those who talk


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def connect(
    pod: Pod, target: Pod, port: int, family: int = socket.AF_INET, timeout: float = 10
) -> socket.socket:
    """A connection from one pod to another."""
    address = str(target.v4 if family == socket.AF_INET else target.v6)
    with pod.inside():
        sock = socket.socket(family)
    _opened.append(sock)
    sock.settimeout(timeout)
    sock.connect((address, port))
    return sock


def listen(pod: Pod, port: int, family: int = socket.AF_INET) -> socket.socket:
    """A listening socket in a pod."""
    with pod.inside():
        sock = socket.socket(family)
    _opened.append(sock)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("0.0.0.0" if family == socket.AF_INET else "::", port))
    sock.listen(128)
    sock.settimeout(10)
    return sock


def accept(listener: socket.socket, timeout: float = 10) -> socket.socket:
    """The next connection of a listener."""
    sock, _ = listener.accept()
    _opened.append(sock)
    sock.settimeout(timeout)
    return sock


def opened(
    network: Network, listener: socket.socket, port: int, sends: bytes = b""
) -> tuple[socket.socket, socket.socket]:
    """A connection from the client to the server, both ends; the server has read what the client sends first."""
    client = connect(network["client"], network["server"], port)
    server = accept(listener)
    if sends:
        client.sendall(sends)
        assert server.recv(len(sends) + 1) == sends
    return client, server


REQUEST = b"GET /jobs/1 HTTP/1.1\r\nHost: a\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def asker(client: socket.socket, server: socket.socket) -> Callable[[], int]:
    """A call that makes one request on a connection, whose server answers each; it returns the status."""

    def answer() -> None:
        with contextlib.suppress(OSError):
            while server.recv(1000):
                server.sendall(ANSWER)

    threading.Thread(target=answer, daemon=True).start()

    def ask() -> int:
        client.sendall(REQUEST)
        return int(client.recv(1000).split(b" ")[1])

    return ask


def close_opened() -> None:
    """Close what the test opened, in the order in which a client ends first."""
    while _opened:
        _opened.pop(0).close()
