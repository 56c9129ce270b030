"""A small world for the tests: workloads, a node, requests, and short ways to rules and answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import policy
from policy import Node, NodePolicy, Workload

JOBS = Workload("jobs-api", "hr", {"app": "jobs-api"}, (ip_address("10.0.0.2"),), {"http": 80}, local=True)
TWEETS = Workload("turtletweets", "hr", {"app": "turtletweets"}, (ip_address("10.0.0.3"),), local=True)
OTHER = Workload("batch", "ops", {"app": "batch"}, (ip_address("10.0.0.4"), ip_address("fd00::4")))
WORKLOADS = (JOBS, TWEETS, OTHER)
NODE = Node((ip_address("10.0.0.1"), ip_address("fd00::1")))


@dataclass(frozen=True, slots=True)
class Request:
    """A request as the parser describes it."""

    method: bytes = b"GET"
    path: bytes = b"/"
    host: bytes = b"jobs"
    headers: Sequence[tuple[bytes, bytes]] = ()


def get(path: str, *headers: tuple[str, str], method: str = "GET", host: str = "jobs") -> Request:
    """A request, written shortly."""
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers]
    return Request(method.encode(), path.encode(), host.encode(), pairs)


def rule(**fields: Any) -> dict[str, Any]:
    """A rule of the classic list, about the jobs API unless it says otherwise."""
    return {"endpointSelector": {"matchLabels": {"app": "jobs-api"}}} | fields


def http_rule(*http: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A rule that lets anyone send these requests to port 80 of the jobs API."""
    ports = [{"ports": [{"port": "80", "protocol": "TCP"}], "rules": {"http": list(http)}}]
    return rule(ingress=[{"toPorts": ports} | more])


def cnp(spec: dict[str, Any], name: str = "jobs", namespace: str = "hr") -> dict[str, Any]:
    """A CiliumNetworkPolicy around a spec."""
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": meta, "spec": spec}


def np(spec: dict[str, Any], name: str = "jobs", namespace: str = "hr") -> dict[str, Any]:
    """A NetworkPolicy around a spec."""
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec}


def load(*documents: Any) -> policy.Loaded:
    """Each document as a JSON file of its own, f0.json, f1.json; a rule alone as a list of one."""
    listed = [[one] if isinstance(one, dict) and "kind" not in one else one for one in documents]
    return policy.load((f"f{i}.json", json.dumps(document)) for i, document in enumerate(listed))


def rules_of(*documents: Any) -> tuple[policy.Policy, ...]:
    """The rules of documents that must be right."""
    loaded = load(*documents)
    assert not loaded.errors, loaded.errors
    return loaded.rules


def compiled(
    *documents: Any, node: Node = NODE, workloads: Sequence[Workload] = WORKLOADS, **more: Any
) -> NodePolicy:
    """A revision from documents that must be right."""
    return policy.compile(rules_of(*documents), workloads, node, 1, **more)


def number(revision: NodePolicy, address: str) -> int:
    """The identity number of an address."""
    return revision.identify(ip_address(address)).number


def l4(revision: NodePolicy, peer: str, port: int = 80, protocol: int = policy.TCP, **where: str) -> str:
    """The action for a connection between the jobs API (or `endpoint`) and an address: pass, deny, redirect."""
    name = where.get("endpoint", "jobs-api")
    direction = getattr(revision.endpoint("hr", name), where.get("direction", "ingress"))
    return str(direction.decide(number(revision, peer), protocol, port).action.value)


def judge(revision: NodePolicy, request: Request, peer: str = "10.0.0.3", port: int = 80) -> policy.Judgement:
    """The judgement on a request from an address to the jobs API."""
    return revision.endpoint("hr", "jobs-api").ingress.http(number(revision, peer), port).judge(request)
