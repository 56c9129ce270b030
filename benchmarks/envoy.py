"""Envoy as the bar: the same rule in its RBAC filter, the same facts in its access log.

It listens in the server's own pod, as a sidecar would, and the client dials its port: no redirection of
any kind is charged to it. What kproxy does not do (request ids, X-Forwarded-For, tracing, retries,
timeouts, a Server header of its own) is switched off; docs/benchmarks.md goes through it all.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from benchmarks.arrangement import Rule

PORT_OFFSET = 15000  # Envoy's port for a server's port

_ENVOY = "type.googleapis.com/envoy"
_CONNECTION_MANAGER = f"{_ENVOY}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
# One field for each of kproxy's access log, under the same name; literals where Envoy has no such fact.
_LOG_FIELDS = {
    "time": "%START_TIME%",
    "endpoint": "bench/server",
    "direction": "ingress",
    "peer": "bench/client",
    "peer_address": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "flow": "%CONNECTION_ID%",
    "protocol": "http",
    "tier": "proxy",
    "verdict": "%RESPONSE_CODE_DETAILS%",
    "rule": "%ROUTE_NAME%",
    "reason": "%RESPONSE_FLAGS%",
    "status": "%RESPONSE_CODE%",
    "bytes_in": "%BYTES_RECEIVED%",
    "bytes_out": "%BYTES_SENT%",
    "proxy_ms": "%DURATION%",
    "upstream_ms": "%RESPONSE_DURATION%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(:PATH)%",
    "host": "%REQ(:AUTHORITY)%",
}


def bootstrap(access_log: Path, client: IPv4Address, rules: Sequence[Rule]) -> dict[str, Any]:
    """Envoy's whole configuration: a listener and a cluster for each rule, statistics on as by default."""
    return {
        "static_resources": {
            "listeners": [_listener(rule, access_log, client) for rule in rules],
            "clusters": [_cluster(rule) for rule in rules],
        }
    }


def _listener(rule: Rule, access_log: Path, client: IPv4Address) -> dict[str, Any]:
    manager = {
        "@type": _CONNECTION_MANAGER,
        "stat_prefix": f"port_{rule.port}",
        "codec_type": "HTTP1",
        "generate_request_id": False,
        "skip_xff_append": True,
        "server_header_transformation": "PASS_THROUGH",
        "stream_idle_timeout": "0s",
        "access_log": [_access_log(access_log)],
        "http_filters": [_rbac(rule, client), _router()],
        "route_config": {"virtual_hosts": [_virtual_host(rule)]},
    }
    network_filter = {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
    return {
        "name": f"port_{rule.port}",
        "address": _address("0.0.0.0", rule.port + PORT_OFFSET),
        "filter_chains": [{"filters": [network_filter]}],
    }


def _virtual_host(rule: Rule) -> dict[str, Any]:
    route = {"cluster": f"port_{rule.port}", "timeout": "0s"}
    return {
        "name": "all",
        "domains": ["*"],
        "routes": [{"name": "all", "match": {"prefix": "/"}, "route": route}],
    }


def _rbac(rule: Rule, client: IPv4Address) -> dict[str, Any]:
    """The rule: this method and path, from this address; Envoy's regex is RE2 with full match, too."""
    method = {"header": {"name": ":method", "string_match": {"exact": rule.method}}}
    path = {"url_path": {"path": {"safe_regex": {"regex": rule.path}}}}
    policy = {
        "permissions": [{"and_rules": {"rules": [method, path]}}],
        "principals": [{"direct_remote_ip": {"address_prefix": str(client), "prefix_len": 32}}],
    }
    return {
        "name": "envoy.filters.http.rbac",
        "typed_config": {
            "@type": f"{_ENVOY}.extensions.filters.http.rbac.v3.RBAC",
            "rules": {"action": "ALLOW", "policies": {"jobs": policy}},
        },
    }


def _router() -> dict[str, Any]:
    return {
        "name": "envoy.filters.http.router",
        "typed_config": {
            "@type": f"{_ENVOY}.extensions.filters.http.router.v3.Router",
            "suppress_envoy_headers": True,
        },
    }


def _access_log(path: Path) -> dict[str, Any]:
    return {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": f"{_ENVOY}.extensions.access_loggers.file.v3.FileAccessLog",
            "path": str(path),
            "log_format": {"json_format": _LOG_FIELDS},
        },
    }


def _cluster(rule: Rule) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": _address("127.0.0.1", rule.port)}}
    # Its default of 1,024 connections would refuse the rows with more.
    breakers = {
        "thresholds": [{"max_connections": 65536, "max_pending_requests": 65536, "max_requests": 65536}]
    }
    return {
        "name": f"port_{rule.port}",
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": breakers,
        "load_assignment": {
            "cluster_name": f"port_{rule.port}",
            "endpoints": [{"lb_endpoints": [endpoint]}],
        },
    }


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}
