"""Policies of two workloads, `hr/client` and `hr/server`, for tests of what the service makes of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

import policy
from policy import Node, NodePolicy, Workload

CLIENT = Workload("client", "hr", {"app": "client"}, (ip_address("10.0.0.2"),), local=True)
SERVER = Workload("server", "hr", {"app": "server"}, (ip_address("10.0.0.3"),), local=True)
TWIN = Workload("twin", "hr", {"app": "client"}, (ip_address("10.0.0.4"),))
NODE = Node((ip_address("10.0.0.1"),))
PORT = 80


def allow(
    subject: str, direction: str, peer: str, *, http: Sequence[dict[str, str]] | None = None, mode: str = ""
) -> dict[str, Any]:
    """A policy of one end that lets the other through on PORT, whole or by its requests."""
    ports: dict[str, Any] = {"ports": [{"port": str(PORT), "protocol": "TCP"}]}
    if http is not None:
        ports["rules"] = {"http": list(http)}
    key = "fromEndpoints" if direction == "ingress" else "toEndpoints"
    rule = {key: [{"matchLabels": {"app": peer}}], "toPorts": [ports]}
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": f"of-{subject}-{direction}", "namespace": "hr"},
        "spec": {"endpointSelector": {"matchLabels": {"app": subject}}, direction: [rule]}
        | ({"kproxy": {"mode": mode}} if mode else {}),
    }


def compiled(
    *documents: dict[str, Any], workloads: Sequence[Workload] = (CLIENT, SERVER, TWIN)
) -> NodePolicy:
    """A revision of these policies."""
    loaded = policy.load([(f"{number}.json", json.dumps(one)) for number, one in enumerate(documents)])
    assert not loaded.errors
    return policy.compile(loaded.rules, workloads, NODE, 1)
