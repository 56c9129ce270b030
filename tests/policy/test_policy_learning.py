"""From logs to the least rules: what must be generalised, what must not, and that it would have been enough."""

from __future__ import annotations

import json
import re
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rules_world import NODE, WORKLOADS, compiled, get, http_rule

import policy
from policy.generalise import generalise
from policy.patterns import pattern
from policy.records import is_ambiguous

IDS = [str(UUID(int=i * 7919 << 64)) for i in range(4)]


def patterns(*paths: str) -> list[str]:
    """The learned patterns."""
    return [one.pattern for one in generalise(paths)]


@pytest.mark.parametrize(
    ("paths", "learned"),
    [
        # Parameters, seen often enough.
        (["/jobs/331", "/jobs/332", "/jobs/340"], ["/jobs/[0-9]+"]),
        (
            [f"/jobs/{one}" for one in IDS],
            ["/jobs/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"],
        ),
        ([f"/on/2026-01-0{i}" for i in (1, 2, 3)], ["/on/[0-9]{4}-[0-9]{2}-[0-9]{2}"]),
        ([f"/o/{'5f0c' * 5}{i}abc" for i in (1, 2, 3)], ["/o/[0-9a-f]{24}"]),
        (["/jobs/1/x", "/jobs/2/x", "/jobs/3/x", "/jobs/4/y"], ["/jobs/4/y", "/jobs/[0-9]+/x"]),
        (["/o/1/j/1", "/o/1/j/2", "/o/1/j/3", "/o/2/j/9"], ["/o/1/j/[0-9]+", "/o/2/j/9"]),
        (["/o/1/j/1", "/o/2/j/1", "/o/3/j/1"], ["/o/[0-9]+/j/1"]),
        (["/l?page=1", "/l?page=2", "/l?page=3", "/l"], ["/l", "/l\\?page=[0-9]+"]),
        # Twice is no proof, and words are words however many there are.
        (["/jobs/331", "/jobs/332"], ["/jobs/331", "/jobs/332"]),
        (["/jobs/331"] * 50, ["/jobs/331"]),
        (["/a", "/b", "/c", "/d", "/admin"], ["/a", "/admin", "/b", "/c", "/d"]),
        (["/jobs/1", "/jobs/2", "/jobs/3", "/jobs/admin"], ["/jobs/[0-9]+", "/jobs/admin"]),
        (["/deadbeef", "/facade", "/added"], ["/added", "/deadbeef", "/facade"]),
        (["/v1/x", "/v2/x", "/v3/x"], ["/v1/x", "/v2/x", "/v3/x"]),
        (["/a.b", "/a+b", "/(c)"], ["/\\(c\\)", "/a\\+b", "/a\\.b"]),
    ],
)
def test_generalise(paths: list[str], learned: list[str]) -> None:
    """Exactly these patterns."""
    assert sorted(patterns(*paths)) == sorted(learned)


elements = st.sampled_from(
    ("jobs", "admin", "1", "22", "333", "4", "a.b", "x?y=1", IDS[0], IDS[1], IDS[2], "2026-01-01")
)


@given(
    st.lists(st.lists(elements, max_size=4).map(lambda parts: "/" + "/".join(parts)), min_size=1, max_size=12)
)
def test_what_was_seen_is_matched_and_words_stay(paths: list[str]) -> None:
    """Every path is matched by the pattern that names it, and every word of every path is in that pattern."""
    for one in generalise(paths):
        matches = pattern(one.pattern).matcher()
        for path in one.paths:
            assert matches(path.encode())
            assert re.fullmatch(one.pattern, path)
            assert path.count("admin") == one.pattern.count("admin")
            assert path.count("/") == one.pattern.count("/")
    assert sorted(path for one in generalise(paths) for path in one.paths) == sorted(set(paths))


def line(path: str = "/jobs/1", **more: Any) -> dict[str, Any]:
    """An access log line: the tweet service asks the jobs API, under audit."""
    return {
        "endpoint": "hr/jobs-api",
        "direction": "ingress",
        "peer": "hr/turtletweets",
        "peer_address": "10.0.0.3:40000",
        "port": 80,
        "protocol": "http",
        "verdict": "audit",
        "method": "GET",
        "path": path,
        "host": "jobs",
    } | more


LOG = [
    *(line(f"/jobs/{i}") for i in (331, 332, 333)),
    line("/jobs", method="POST"),
    line("/healthz"),
    line("/healthz", method="HEAD"),
    line("/admin", verdict="allow"),
    line("/up", peer="host"),
    line("/q", peer="ops/batch", port=8080),
    line(
        "/v1/x",
        direction="egress",
        peer="world",
        peer_address="9.9.9.9:443",
        port=None,
        host="api.example.com",
    ),
    line(direction="egress", peer="cidr:9.0.0.0/8", protocol="tcp", port=5432),
    line(direction="egress", peer="world", protocol="udp", port=53),
    line("/jobs/../admin"),
    line(verdict="error"),
    line(truncated=True),
    line(peer="hr/gone"),
    line(endpoint="hr/gone"),
    line(port=None),
]


def learned() -> policy.Learned:
    """What is learned of the log."""
    return policy.learn(policy.read_records(LOG), WORKLOADS)


def test_learned_policy_as_written() -> None:
    """One policy for the endpoint, one rule for each peer and port, as CiliumNetworkPolicy."""
    (only,) = learned().policies
    assert only["metadata"] == {"name": "learned-jobs-api", "namespace": "hr"}
    tweets = only["spec"]["ingress"][1]
    assert tweets["fromEndpoints"] == [{"matchLabels": {"app": "turtletweets"}}]
    assert tweets["toPorts"] == [
        {
            "ports": [{"port": "80", "protocol": "TCP"}],
            "rules": {
                "http": [
                    {"method": "GET|HEAD", "path": "/healthz"},
                    {"method": "POST", "path": "/jobs"},
                    {"method": "GET", "path": "/jobs/[0-9]+"},
                ]
            },
        }
    ]
    outside = next(rule for rule in only["spec"]["egress"] if rule["toPorts"][0]["ports"][0]["port"] == "443")
    assert outside["toEntities"] == ["world"]
    assert outside["toPorts"][0]["rules"]["http"][0]["host"] == "api\\.example\\.com"
    namespaced = only["spec"]["ingress"][2]["fromEndpoints"][0]["matchLabels"]
    assert namespaced == {"app": "batch", "k8s:io.kubernetes.pod.namespace": "ops"}


def test_learned_rules_have_their_evidence() -> None:
    """Each rule says how many requests it stands for, and shows some."""
    found = {one.rule: one for one in learned().evidence}
    jobs = found["hr/learned-jobs-api#ingress[1].toPorts[0].http[2]"]
    assert (jobs.requests, jobs.examples) == (3, ("GET /jobs/331", "GET /jobs/332", "GET /jobs/333"))


def test_what_is_left_out_is_told() -> None:
    """Lines that no rule can be made of are counted by reason."""
    assert learned().notes == (
        "1 lines left out: a path that servers may read differently",
        "1 lines left out: could not be read as a request",
        "1 lines left out: no server port",
        "1 lines left out: truncated in the log",
        "1 requests of hr/gone left out: it is not a known endpoint",
        "1 requests of hr/gone left out: it is not a known peer",
    )


def test_learned_rules_are_enough_and_no_more() -> None:
    """Loaded and compiled, they allow every request they were learned from, and not what was not seen."""
    loaded = policy.load([("learned.json", json.dumps(one)) for one in learned().policies])
    assert (loaded.errors, loaded.warnings) == ((), ())
    revision = policy.compile(loaded.rules, WORKLOADS, NODE, 1)
    known = [line for line in LOG if line["peer"] != "hr/gone" and line["endpoint"] != "hr/gone"]
    seen = [record for record in policy.read_records(known).records if record.verdict == "audit"]
    assert len(seen) == 11
    before = compiled(http_rule({"path": "/nothing"}))
    found = policy.diff(before, revision, seen)
    assert all(change.after.verdict == "allow" for change in found.changes)
    ingress = revision.endpoint("hr", "jobs-api").ingress
    judges = ingress.http(revision.identity_of("hr", "turtletweets").number, 80)
    for request in (
        get("/admin"),
        get("/jobs/x"),
        get("/jobs/331", method="DELETE"),
        get("/jobs/331/x"),
        get("/"),
    ):
        assert not judges.judge(request).allowed


def test_many_names_are_left_to_a_person() -> None:
    """Words are never a wildcard, but a dozen of them in one place are worth a question."""
    names = ["ada", "bea", "cid", "dot", "eve", "fay", "gus", "hal", "ida", "joe"]
    found = policy.learn(policy.read_records(line(f"/users/{name}") for name in names), WORKLOADS)
    assert found.notes == (
        "learned-jobs-api: 10 names below GET /users/ are allowed one by one; "
        "if they are values of a parameter, write /users/[^/]+ instead",
    )


def test_mixed_ports_are_allowed_whole_and_told() -> None:
    """A port on which HTTP and something else were seen cannot be judged by requests."""
    found = policy.learn(policy.read_records([line(), line(protocol="tcp")]), WORKLOADS)
    assert "rules" not in found.policies[0]["spec"]["ingress"][0]["toPorts"][0]
    assert "allowed whole" in found.notes[0]


@pytest.mark.parametrize("path", ["/a//b", "/a/../b", "/a/.", "/a%2Fb", "/%2e%2e/b", "/a\\b", "/a%00"])
def test_ambiguous_paths_teach_nothing(path: str) -> None:
    """A path that is refused wherever paths are judged makes no rule."""
    assert is_ambiguous(path)
