"""A small node's files for the tests of answers: two endpoints, a peer elsewhere, and one policy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ENDPOINTS = [
    {
        "name": "jobs-api",
        "namespace": "hr",
        "labels": {"app": "jobs-api"},
        "netns": "/run/netns/jobs-api",
        "addresses": ["10.0.0.2"],
        "ports": {"http": 80},
    },
    {
        "name": "turtletweets",
        "namespace": "hr",
        "labels": {"app": "turtletweets"},
        "netns": "/run/netns/turtletweets",
        "addresses": ["10.0.0.3"],
    },
    {"name": "batch", "namespace": "ops", "labels": {"app": "batch"}, "addresses": ["10.0.0.4"]},
]
HTTP = [
    {"method": "GET", "path": "/jobs/[0-9]+"},
    {"method": "POST", "path": "/jobs", "headers": ["X-Role: admin"]},
]
FROM_TWEETS = {"fromEndpoints": [{"matchLabels": {"app": "turtletweets"}}]}


def jobs_policy(*http: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The policy that lets the tweet service send these requests to the jobs API; `more` goes into its spec."""
    ports = [{"ports": [{"port": "80", "protocol": "TCP"}], "rules": {"http": list(http)}}]
    spec: dict[str, Any] = {
        "endpointSelector": {"matchLabels": {"app": "jobs-api"}},
        "ingress": [FROM_TWEETS | {"toPorts": ports}, {"fromCIDR": ["9.0.0.0/8"]}],
    }
    meta = {"name": "jobs", "namespace": "hr"}
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": meta,
        "spec": spec | more,
    }


def write(folder: Path, *policies: dict[str, Any], **settings: Any) -> Path:
    """Write the node's files; gives its configuration."""
    (folder / "rules").mkdir(exist_ok=True)
    for number, one in enumerate(policies or (jobs_policy(*HTTP),)):
        (folder / "rules" / f"{number}.json").write_text(json.dumps(one, indent=1))
    (folder / "endpoints.json").write_text(json.dumps({"endpoints": ENDPOINTS}))
    config = {
        "node": "n1",
        "rules": ["rules"],
        "endpoints": "endpoints.json",
        "nodeAddresses": ["10.0.0.1"],
        "accessLog": "access.jsonl",
    }
    (folder / "config.json").write_text(json.dumps(config | settings))
    return folder / "config.json"


def line(**more: Any) -> str:
    """One line of an access log: the tweet service asked the jobs API for something."""
    told = {
        "time": "2026-01-02T03:04:05.000006Z",
        "endpoint": "hr/jobs-api",
        "direction": "ingress",
        "peer": "hr/turtletweets",
        "peer_address": "10.0.0.3:40000",
        "port": 80,
        "flow": 1,
        "protocol": "http",
        "tier": "proxy",
        "verdict": "audit",
        "rule": "hr/jobs#ingress",
        "reason": "audit",
        "status": 200,
        "method": "GET",
        "path": "/",
        "host": "jobs-api",
    }
    return json.dumps(told | more) + "\n"
