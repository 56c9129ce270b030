"""kproxy begins, changes and ends while connections are open, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from rig import (
    ANSWER,
    REQUEST,
    Node,
    asker,
    close_opened,
    connect,
    eventually,
    http_rule,
    listen,
    opened,
    running_node,
)

from kproxy.demo.client import Call, curl
from kproxy.demo.network import Network, Pod, PodSpec

pytestmark = pytest.mark.bpf


def policies(path: str = "/jobs/[0-9]+", method: str = "GET") -> list[dict[str, object]]:
    """Ingress policy at the server."""
    return [http_rule("server", "ingress", "client", 80, [{"method": method, "path": path}])]


@pytest.fixture
def listener(network: Network) -> Iterator[socket.socket]:
    """A server that the test answers for by hand."""
    with listen(network["server"], 80) as made:
        yield made


def programs_of(pid: int) -> set[int]:
    """The numbers of the BPF programs that a process holds (/proc/PID/fdinfo names them)."""
    held = set()
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            held |= {int(found) for found in re.findall(r"^prog_id:\t(\d+)$", entry.read_text(), re.M)}
    return held


def loaded() -> set[int]:
    """The numbers of all BPF programs in the kernel."""
    listed = subprocess.run(["bpftool", "prog", "show", "-j"], capture_output=True, check=True).stdout
    return {one["id"] for one in json.loads(listed)}


def test_policy_change_reaches_the_next_request_of_a_live_connection(
    network: Network, listener: socket.socket, tmp_path: Path
) -> None:
    """The same connection is allowed, then denied, then allowed again, as the file says."""
    with running_node(tmp_path, network, policies(), ["server"]) as node:
        client, server = opened(network, listener, 80)
        ask = asker(client, server)
        assert ask() == 200
        revision = node.count("kproxy_policy_revision")
        node.put_rules(policies("/other"))
        eventually(lambda: node.count("kproxy_policy_revision") > revision, "the new policy is in force")
        assert ask() == 403
        revision = node.count("kproxy_policy_revision")
        node.put_rules(policies())
        eventually(lambda: node.count("kproxy_policy_revision") > revision, "the old policy is back")
        assert ask() == 200


def test_bad_file_keeps_the_last_good_policy(
    network: Network, listener: socket.socket, tmp_path: Path
) -> None:
    """A file with a mistake changes nothing but the gauge, the log and the status."""
    with running_node(tmp_path, network, policies(), ["server"]) as node:
        client, server = opened(network, listener, 80)
        ask = asker(client, server)
        assert ask() == 200
        node.rules.write_text('[{"kind": "CiliumNetworkPolicy", "spec": {"ingres": []}}]')
        eventually(lambda: "ingres" in node.process.output(), "the mistake is told by name")
        assert ask() == 200


def test_withdrawn_l4_permission_ends_the_connection(
    network: Network, listener: socket.socket, tmp_path: Path
) -> None:
    """A connection whose peer is no longer named is reset."""
    with running_node(tmp_path, network, policies(), ["server"]) as node:
        client, server = opened(network, listener, 80)
        ask = asker(client, server)
        assert ask() == 200
        node.put_rules([http_rule("server", "ingress", "stranger", 80, [{"path": "/jobs/.*"}])])
        with pytest.raises(ConnectionResetError):
            client.recv(100)


def test_connections_from_before_are_reset(network: Network, listener: socket.socket, tmp_path: Path) -> None:
    """A connection that no hook has seen does not go on unjudged."""
    client, server = opened(network, listener, 80)
    with running_node(tmp_path, network, policies(), ["server"]), pytest.raises(ConnectionResetError):
        client.recv(100)
    server.close()


def test_direct_connection_that_is_no_longer_allowed_is_reset(
    network: Network, listener: socket.socket, tmp_path: Path
) -> None:
    """L4 policy lets a connection pass around the proxy; when it no longer does, the connection ends."""
    with running_node(tmp_path, network, [http_rule("server", "ingress", "client", 80)], ["server"]) as node:
        client, _server = opened(network, listener, 80, b"not http")
        node.put_rules(policies())
        with pytest.raises(ConnectionResetError):
            client.recv(100)


def test_sigterm_lets_the_request_under_way_end(
    network: Network, listener: socket.socket, tmp_path: Path
) -> None:
    """The answer arrives whole after SIGTERM, then the connection ends in good order, and nothing is left."""
    with running_node(tmp_path, network, policies(), ["server"]) as node:
        held = programs_of(node.process.pid)
        client, server = opened(network, listener, 80, REQUEST)
        os.kill(node.process.pid, signal.SIGTERM)
        eventually(lambda: not _ready(node), "it says that it is no longer ready")
        server.sendall(ANSWER)
        assert client.recv(1000) == ANSWER
        assert client.recv(1000) == b""
        assert node.process.wait(15) == 0
    assert held
    close_opened()  # a dead connection holds the programs that were copied to it until its owner closes it
    eventually(lambda: not held & loaded(), "everything is detached")


def test_sigkill_is_a_reset_and_leaves_nothing(
    network: Network, listener: socket.socket, tmp_path: Path
) -> None:
    """Killed, kproxy does not make half a message look like a whole one."""
    with running_node(tmp_path, network, policies(), ["server"]) as node:
        held = programs_of(node.process.pid)
        client, server = opened(network, listener, 80, REQUEST)
        server.sendall(b"HTTP/1.1 200 OK\r\n\r\nclose-delimited")
        assert client.recv(1000).endswith(b"close-delimited")
        os.kill(node.process.pid, signal.SIGKILL)
        with pytest.raises(ConnectionResetError):
            client.recv(1000)
    assert held
    close_opened()  # a dead connection holds the programs that were copied to it until its owner closes it
    eventually(lambda: not held & loaded(), "everything is detached")


def test_namespace_that_goes_is_let_go_and_one_that_comes_is_enforced(
    network: Network, tmp_path: Path
) -> None:
    """kproxy keeps no namespace alive, and a pod that starts again under its name is under policy again."""
    pod = network.add(PodSpec("late", labels={"app": "late"}))
    name = pod.netns.name
    rules = [http_rule("late", "ingress", "client", 80, [{"path": "/jobs/.*"}])]
    with running_node(tmp_path, network, rules, ["late"]) as node:
        _ip(f"netns del {name}")
        eventually(lambda: "endpoint left" in node.process.output(), "the endpoint is let go")
        _ip(f"netns add {name}")
        _ip(f"-n {name} link set lo up")
        again = r"endpoint enforced.*endpoint left.*endpoint enforced"
        eventually(lambda: re.search(again, node.process.output(), re.S), "the endpoint is enforced again")


def test_a_thousand_connections_at_once(network: Network, tmp_path: Path) -> None:
    """Each of a thousand open connections gets its own answer."""
    server = network["server"]
    with (
        server.start([sys.executable, "-m", "kproxy.demo.jobs_api", "--port", "80"], listening=80),
        running_node(tmp_path, network, policies(), ["server"]) as node,
    ):
        clients = [connect(network["client"], server, 80) for _ in range(1000)]
        for number, client in enumerate(clients):
            client.sendall(b"GET /jobs/%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
        assert all(b" 200 " in client.recv(65536) for client in clients)
        assert node.count("kproxy_requests_total", verdict="allow") == 1000


def test_datagrams_follow_the_same_rules(network: Network, tmp_path: Path) -> None:
    """A pod under default-deny egress reaches its resolver by UDP where a rule says so, and nobody else."""
    rule = {
        "endpointSelector": {"matchLabels": {"app": "client"}},
        "egress": [
            {
                "toEndpoints": [{"matchLabels": {"app": "server"}}],
                "toPorts": [{"ports": [{"port": "53", "protocol": "UDP"}]}],
            }
        ],
        "labels": [{"key": "name", "value": "dns"}],
    }
    answers = _udp_echo(network["server"], 53)
    with (
        running_node(tmp_path, network, [rule], ["client"]),
        answers,
        network["client"].inside(),
        socket.socket(type=socket.SOCK_DGRAM) as client,
    ):
        client.settimeout(5)
        client.sendto(b"who is jobs-api?", (str(network["server"].v4), 53))
        assert client.recv(100) == b"who is jobs-api?"
        with pytest.raises(PermissionError):
            client.sendto(b"x", (str(network["server"].v4), 54))
        with pytest.raises(PermissionError):
            client.sendto(b"x", (str(network["stranger"].v4), 53))


def test_socket_mark_is_no_way_around(network: Network, listener: socket.socket, tmp_path: Path) -> None:
    """Whatever SO_MARK a pod's process sets, its connections are judged."""
    rules = [http_rule("client", "egress", "server", 80, [{"path": "/jobs/.*"}])]
    with (
        running_node(tmp_path, network, rules, ["client"]),
        network["client"].inside(),
        socket.socket() as client,
    ):
        client.settimeout(10)
        _call_with_every_mark(client, (str(network["server"].v4), 80))


def test_unreadable_start_is_one_clear_line(tmp_path: Path) -> None:
    """A configuration that is not there is told in one line with its mend, and no traceback."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("kproxy")), "run", "--config", str(tmp_path / "none.json")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert len(done.stderr.strip().splitlines()) == 1
    assert "none.json" in done.stderr


def _call_with_every_mark(client: socket.socket, server: tuple[str, int]) -> None:
    for mark in (1, 0xBEEF, 0x7FFFFFFF):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
    client.connect(server)
    client.sendall(b"POST /jobs HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
    assert client.recv(100).startswith(b"HTTP/1.1 403")


def _ready(node: Node) -> bool:
    replies = curl(
        [Call("GET", "/readyz")], __import__("ipaddress").ip_address("127.0.0.1"), node.files.admin_port
    )
    return replies[0].status == 200


def _udp_echo(pod: Pod, port: int):
    @contextlib.contextmanager
    def serve():
        with pod.inside():
            server = socket.socket(type=socket.SOCK_DGRAM)
        server.bind(("0.0.0.0", port))

        def loop() -> None:
            while True:
                try:
                    data, sender = server.recvfrom(1000)
                except OSError:
                    return
                if data == b"stop":
                    return
                server.sendto(data, sender)

        thread = threading.Thread(target=loop)
        thread.start()
        yield
        with pod.inside(), socket.socket(type=socket.SOCK_DGRAM) as stopper:
            stopper.sendto(b"stop", ("127.0.0.1", port))
        thread.join()
        server.close()

    return serve()


def _ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True)
