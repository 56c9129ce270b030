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


def test_what_became_of_a_request_is_no_part_of_the_question() -> None:
    """The same request, denied in one line and allowed in another, is one change."""
    seen = [record("/healthz", verdict=verdict) for verdict in ("allow", "deny", "audit")]
    (change,) = policy.diff(compiled(OLD), compiled(NEW), seen).changes
    assert change.count == 3


def test_described_requests_have_all_their_headers() -> None:
    """What is described counts as seen by nobody, and its verdict is sure."""
    headers = {"headers": ["X-A: 1"]}
    asked = [record("/", headers=((b"x-a", value),)) for value in (b"1", b"2")]
    found = policy.diff(compiled(http_rule({})), compiled(http_rule(headers)), [], asked)
    assert [(one.record.headers, one.count, one.headers_unknown) for one in found.changes] == [
        (((b"x-a", b"2"),), 0, False)
    ]
    assert found.unchanged == 1


def test_only_rules_that_headers_decide_make_a_verdict_unsure() -> None:
    """A rule with headers about another path says nothing of this one."""
    new = http_rule({"path": "/a", "headers": ["X"]}, {"path": "/b"})
    found = policy.diff(compiled(http_rule({})), compiled(new), [record("/a"), record("/c")])
    assert {one.record.path: one.headers_unknown for one in found.changes} == {b"/a": True, b"/c": False}


def test_paths_that_servers_read_differently() -> None:
    """Where a rule looks at paths, such a path is denied, by the rule that would have allowed it."""
    old, new = compiled(http_rule({"method": "GET"})), compiled(http_rule({"path": "/.*"}))
    assert policy.diff(old, new, [record("/a//b")]).changes == ()
    (change,) = policy.diff(old, new, [record("/a//b")], ambiguous=lambda path: b"//" in path).changes
    assert (change.after.verdict, change.after.reason) == ("deny", "ambiguous_path")


def test_what_is_not_known_is_bounded() -> None:
    """However many endpoints are gone, some are named and all are counted."""
    seen = [record("/", endpoint=f"hr/gone-{n}") for n in range(150) for _ in range(2)]
    found = policy.diff(compiled(OLD), compiled(NEW), seen)
    assert (len(found.unknown), found.unknown_count) == (100, 300)
