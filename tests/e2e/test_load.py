"""Under load, with a real server and a real load generator: nothing fails, and what is spliced stays spliced."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from rig import eventually, http_rule, running_node

from kproxy.demo.network import Network, Pod
from kproxy.demo.process import entering

pytestmark = pytest.mark.bpf

PORT = 8091
JOBS = [{"method": "GET", "path": "/jobs/[0-9]+"}]
NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log stderr;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 100000000;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen 0.0.0.0:{port}; location / {{ return 200 "ok\\n"; }} }} }}
"""
REQUESTS = 1_000_000
LAST_ANSWERS = 100_000  # bytes: some hundred connections' last answers; a fall to TCP would be megabytes


@pytest.fixture(scope="module")
def nginx(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    """nginx in the server's pod."""
    folder = tmp_path_factory.mktemp("nginx")
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=PORT))
    server = network["server"]
    with server.start(["nginx", "-c", str(config), "-p", str(folder)], listening=PORT):
        yield server


def wrk(client: Pod, server: Pod, connections: int, seconds: int) -> str:
    """Run wrk in the client's pod; return what it said."""
    url = f"http://{server.v4}:{PORT}/jobs/331"
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", url]
    done = subprocess.run([*entering(client.netns), *argv], capture_output=True, text=True, check=True)
    return done.stdout


def requests_in(told: str) -> int:
    """How many requests wrk made; fails if any of them failed."""
    assert "Non-2xx" not in told, told
    assert "Socket errors" not in told, told
    return int(re.search(r"(\d+) requests in", told)[1])  # type: ignore[index]


def test_policy_swap_under_load_fails_no_request(network: Network, nginx: Pod, tmp_path: Path) -> None:
    """The rules are replaced again and again, each time allowing the load by another rule; no request notices."""

    def rules(turn: int) -> list[dict[str, object]]:
        path = "/jobs/[0-9]+" if turn % 2 else "/jobs/.*"
        return [
            http_rule("server", "ingress", "client", PORT, [{"method": "GET", "path": path}], f"turn{turn}")
        ]

    with running_node(tmp_path, network, rules(0), ["server"]) as node:
        told: list[str] = []
        load = threading.Thread(target=lambda: told.append(wrk(network["client"], nginx, 16, 12)))
        load.start()
        turns = 0
        while load.is_alive():
            turns += 1
            node.put_rules(rules(turns))
            load.join(0.3)
        assert requests_in(told[0]) > 1000
        assert turns > 20
        revisions = node.count("kproxy_policy_revision")
        assert revisions > 10, "the rules were hardly ever taken over"
        assert node.count("kproxy_requests_total", verdict="deny") == 0


def test_a_connection_is_still_spliced_after_a_million_requests(
    network: Network, nginx: Pod, tmp_path: Path
) -> None:
    """Keep-alive connections never fall to TCP for want of credit: it is refilled for as long as they live."""
    policies = [http_rule("server", "ingress", "client", PORT, JOBS)]
    with running_node(tmp_path, network, policies, ["server"], accessLog=None) as node:
        made = 0
        while made < REQUESTS:
            made += requests_in(wrk(network["client"], nginx, 4, 10))
            if node.count("kproxy_splice_fallbacks_total"):
                break
        assert node.count("kproxy_splice_fallbacks_total") == 0
        assert node.count("kproxy_requests_total", verdict="allow") >= REQUESTS
        # wrk hangs up in the middle of things: an answer to nobody goes by TCP, which resets.
        assert node.count("kproxy_bytes_total", path="tcp") < LAST_ANSWERS


def test_memory_and_descriptors_come_back_after_load(network: Network, nginx: Pod, tmp_path: Path) -> None:
    """After a storm of connections, kproxy holds as many descriptors and slots as before."""
    policies = [http_rule("server", "ingress", "client", PORT, JOBS)]
    with running_node(tmp_path, network, policies, ["server"]) as node:
        fds = Path(f"/proc/{node.process.pid}/fd")
        before = len(list(fds.iterdir()))
        for _ in range(5):
            requests_in(wrk(network["client"], nginx, 100, 1))
        eventually(lambda: node.count("kproxy_connections_active") == 0, "all flows ended")
        eventually(lambda: len(list(fds.iterdir())) <= before + 5, "descriptors are closed")
