"""A permission that is taken back ends what lived by it, and is counted: of either side, carried or direct."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from rig import accept, connect, eventually, http_rule, listen, running_node

from kproxy.demo.network import Network

pytestmark = pytest.mark.bpf

JOBS = [{"path": "/jobs/.*"}]
EGRESS_JUDGED = http_rule("client", "egress", "server", 80, JOBS, "out")
EGRESS_OPEN = http_rule("client", "egress", "server", 80, None, "out")
EGRESS_SHUT = http_rule("client", "egress", "stranger", 80, None, "out")
INGRESS_JUDGED = http_rule("server", "ingress", "client", 80, JOBS, "in")
INGRESS_OPEN = http_rule("server", "ingress", "client", 80, None, "in")
INGRESS_SHUT = http_rule("server", "ingress", "stranger", 80, None, "in")


class Change(NamedTuple):
    """The policies before and after, and whether kproxy carried the connection."""

    before: list[dict[str, Any]]
    after: list[dict[str, Any]]
    carried: bool


CHANGES = {
    "egress of a pair": Change([EGRESS_JUDGED, INGRESS_JUDGED], [EGRESS_SHUT, INGRESS_JUDGED], True),
    "ingress of a pair": Change([EGRESS_JUDGED, INGRESS_JUDGED], [EGRESS_JUDGED, INGRESS_SHUT], True),
    "ingress of a flow that egress judges": Change(
        [EGRESS_JUDGED, INGRESS_OPEN], [EGRESS_JUDGED, INGRESS_SHUT], True
    ),
    "egress of a flow that ingress judges": Change(
        [EGRESS_OPEN, INGRESS_JUDGED], [EGRESS_SHUT, INGRESS_JUDGED], False
    ),
    "egress of a flow that ingress judges, to be judged": Change(
        [EGRESS_OPEN, INGRESS_JUDGED], [EGRESS_JUDGED, INGRESS_JUDGED], False
    ),
    "direct call between both": Change([EGRESS_OPEN, INGRESS_OPEN], [EGRESS_OPEN, INGRESS_SHUT], False),
}


@pytest.mark.parametrize("name", CHANGES)
def test_withdrawn(network: Network, tmp_path: Path, name: str) -> None:
    """The client is reset, the server too, and the metric that operators watch has counted it."""
    change = CHANGES[name]
    family = (socket.AF_INET, socket.AF_INET6)[list(CHANGES).index(name) % 2]  # each row by one of them
    with (
        listen(network["server"], 80, family) as listener,
        running_node(tmp_path, network, change.before, ["client", "server"]) as node,
    ):
        client = connect(network["client"], network["server"], 80, family)
        server = accept(listener)
        client.sendall(b"GET /jobs/1 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert server.recv(1000)
        node.put_rules(change.after)
        for side in (client, server):
            with pytest.raises(ConnectionError):
                side.recv(100)
        if change.carried:
            closed = "kproxy_connections_closed_total"
            eventually(lambda: node.count(closed, reason="policy_withdrawn") >= 1, "it is counted")
        else:
            reset = "kproxy_direct_connections_reset_total"
            eventually(lambda: node.count(reset) >= 1, "it is counted")
