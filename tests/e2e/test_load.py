"""Under load, with a real server and a real load generator: nothing fails, and what is spliced stays spliced."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from load import nginx, requests_in, wrk
from rig import eventually, http_rule, running_node

from kproxy.demo.network import Network, Pod

pytestmark = pytest.mark.bpf

PORT = 8091
JOBS = [{"method": "GET", "path": "/jobs/[0-9]+"}]
REQUESTS = 1_000_000
LAST_ANSWERS = 100_000  # bytes: some hundred connections' last answers; a fall to TCP would be megabytes


@pytest.fixture(scope="module")
def server(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    """nginx in the server's pod."""
    server = network["server"]
    with nginx(server, tmp_path_factory.mktemp("nginx"), PORT):
        yield server


def test_a_connection_is_still_spliced_after_a_million_requests(
    network: Network, server: Pod, tmp_path: Path
) -> None:
    """Keep-alive connections never fall to TCP for want of credit: it is refilled for as long as they live."""
    policies = [http_rule("server", "ingress", "client", PORT, JOBS)]
    with running_node(tmp_path, network, policies, ["server"], accessLog=None) as node:
        made = 0
        while made < REQUESTS:
            made += requests_in(wrk(network["client"], server, PORT, connections=4, seconds=10))
            if node.count("kproxy_splice_fallbacks_total"):
                break
        assert node.count("kproxy_splice_fallbacks_total") == 0
        assert node.count("kproxy_requests_total", verdict="allow") >= REQUESTS
        # wrk hangs up in the middle of things: an answer to nobody goes by TCP, which resets.
        assert node.count("kproxy_bytes_total", path="tcp") < LAST_ANSWERS


def test_memory_and_descriptors_come_back_after_load(network: Network, server: Pod, tmp_path: Path) -> None:
    """After a storm of connections, kproxy holds as many descriptors and slots as before."""
    policies = [http_rule("server", "ingress", "client", PORT, JOBS)]
    with running_node(tmp_path, network, policies, ["server"]) as node:
        fds = Path(f"/proc/{node.process.pid}/fd")
        before = len(list(fds.iterdir()))
        for _ in range(5):
            requests_in(wrk(network["client"], server, PORT, connections=100, seconds=1))
        eventually(lambda: node.count("kproxy_connections_active") == 0, "all flows ended")
        eventually(lambda: len(list(fds.iterdir())) <= before + 5, "descriptors are closed")
