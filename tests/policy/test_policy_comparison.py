"""Which requests change their verdict between two policies."""

from __future__ import annotations

from typing import Any

from rules_world import compiled, http_rule, rule

import policy

OLD = http_rule({"method": "GET", "path": "/jobs/[0-9]+"}, {"path": "/healthz"})
NEW = http_rule({"method": "GET", "path": "/jobs/.*"})


def record(path: str, **more: Any) -> policy.Record:
    """A logged request of the tweet service to the jobs API."""
    about = {
        "endpoint": "hr/jobs-api",
        "direction": "ingress",
        "peer": "hr/turtletweets",
        "protocol": 6,
        "port": 80,
    }
    fields = about | {
        "verdict": "allow",
        "http": True,
        "method": b"GET",
        "path": path.encode(),
        "host": b"jobs",
    }
    return policy.Record(**(fields | more))


def test_changes_with_denials_first() -> None:
    """Each request once, with how often it was seen, both verdicts and both rules."""
    seen = [record("/jobs/1"), record("/jobs/x"), record("/jobs/x"), record("/healthz"), record("/none")]
    found = policy.diff(compiled(OLD), compiled(NEW), seen)
    assert [(c.record.path, c.before.verdict, c.after.verdict, c.count) for c in found.changes] == [
        (b"/healthz", "allow", "deny", 1),
        (b"/jobs/x", "deny", "allow", 2),
    ]
    assert found.changes[1].after.rule == "*/f0[0]#ingress[0].toPorts[0].http[0]"
    assert found.unchanged == 2


def test_connections_and_peers_by_name() -> None:
    """Peers are found as the log names them; those that are gone are told."""
    world = rule(ingress=[{"fromEntities": ["world"]}, {"fromCIDR": ["9.0.0.0/8"]}])
    seen = [
        record("/", peer="world", http=False),
        record("/", peer="cidr:9.0.0.0/8"),
        record("/", peer="host"),
        record("/", peer="hr/gone"),
        record("/", endpoint="hr/gone"),
    ]
    found = policy.diff(compiled(world), compiled(rule(ingress=[{}])), seen)
    changed = {change.record.peer: change.after.verdict for change in found.changes}
    assert changed == {"world": "deny", "cidr:9.0.0.0/8": "deny"}
    assert len(found.unknown) == 2


def test_headers_that_the_log_lacks_are_told() -> None:
    """A verdict that depends on headers is marked as unsure."""
    found = policy.diff(compiled(http_rule({})), compiled(http_rule({"headers": ["X"]})), [record("/")])
    assert [change.headers_unknown for change in found.changes] == [True]
