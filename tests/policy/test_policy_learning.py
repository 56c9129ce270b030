"""From logs to the least rules: what must be generalised, what must not, and that it would have been enough."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rules_world import NODE, WORKLOADS, compiled, get, http_rule

import policy
from parsers.http1.paths import path_ambiguity
from policy import Record, Workload, learned_http, learning
from policy.generalise import escape, generalise
from policy.patterns import pattern
from policy.records import is_ambiguous

MAIL = "/u/[A-Za-z0-9._+-]+(?:@|%40)[A-Za-z0-9-]+(?:\\.[A-Za-z0-9-]+)+"
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
        # A version is no parameter, and an extension stays.
        (["/1.0/x", "/1.1/x", "/1.2/x"], ["/1\\.0/x", "/1\\.1/x", "/1\\.2/x"]),
        ([f"/img/{i}.png" for i in (1, 2, 3)] + ["/img/4.svg"], ["/img/4\\.svg", "/img/[0-9]+\\.png"]),
        # Words beside parameters, in one place.
        (
            ["/jobs/331", "/jobs/332", "/jobs/333", "/jobs/latest", "/jobs/alice"],
            ["/jobs/[0-9]+", "/jobs/alice", "/jobs/latest"],
        ),
        (["/o/1/j/2", "/o/3/j/4", "/o/5/j/6"], ["/o/[0-9]+/j/[0-9]+"]),
        (["/jobs/1/", "/jobs/2/", "/jobs/3/", "/jobs/4"], ["/jobs/4", "/jobs/[0-9]+/"]),
        # Identifiers of other kinds.
        ([f"/o/01ARZ3NDEKTSV4RRFFQ69G5FA{c}" for c in "VWX"], ["/o/[0-9A-HJKMNP-TV-Z]{26}"]),
        ([f"/h/{'AB12' * 3}{i}" for i in (1, 2, 3)], ["/h/[0-9A-F]{13}"]),
        ([f"/t/dGhpc2lz{i}QTo4{i}x9Zw" for i in (1, 2, 3)], ["/t/[A-Za-z0-9_-]{18}"]),
        ([f"/u/{name}@example.com" for name in ("ada", "bea", "cid")], [MAIL]),
        ([f"/u/{name}%40example.com" for name in ("ada", "bea", "cid")], [MAIL]),
        (["/OAuth2Callback3Handler", "/OAuth2Callback4Handler", "/OAuth2Callback5Handler"], None),
        # Queries: names stay, values that are numbers may go, what is there or not is told apart.
        (["/s?lat=1.5", "/s?lat=-2.5", "/s?lat=-3"], ["/s\\?lat=-?[0-9]+(?:\\.[0-9]+)?"]),
        (["/s?a=1&b=2", "/s?b=2&a=1"], ["/s\\?a=1&b=2", "/s\\?b=2&a=1"]),
        (["/s?1", "/s?2", "/s?3"], None),
        (["/s?q=ada", "/s?q=bea", "/s?q=cid"], None),
        (["/s?x==&&y", "/s?", "/s??"], None),
        # Two values in each place prove nothing, in however many places.
        ([f"/{i}/{j}/{k}" for i in "12" for j in "12" for k in "12"], None),
        (["/" + "/".join("1" * 3000)], None),
        (["/a.b", "/a+b", "/(c)"], ["/\\(c\\)", "/a\\+b", "/a\\.b"]),
    ],
)
def test_generalise(paths: list[str], learned: list[str] | None) -> None:
    """Exactly these patterns; None: each path as it was seen."""
    expected = sorted(set(map(escape, paths))) if learned is None else sorted(learned)
    assert sorted(patterns(*paths)) == expected


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
    line(protocol="132", port=80),
]


def learned() -> policy.Learned:
    """What is learned of the log."""
    return policy.learn(policy.read_records(LOG), WORKLOADS)


def test_learned_policy_as_written() -> None:
    """One policy for the endpoint, one rule for each peer and port, as CiliumNetworkPolicy."""
    (only,) = learned().policies
    about = only["metadata"]
    assert (about["name"], about["namespace"]) == ("learned-jobs-api", "hr")
    assert "toPorts[0].http[2]: 3 requests: GET /jobs/331, GET" in about["annotations"][learning.ANNOTATION]
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
        "1 line left out: a path that servers may read differently",
        "1 line left out: could not be read as a request",
        "1 line left out: neither TCP nor UDP",
        "1 line left out: no server port",
        "1 line left out: truncated in the log",
        "1 request of hr/gone left out: it is not a known endpoint",
        "1 request of hr/gone left out: it is not a known peer",
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
        "hr/learned-jobs-api#ingress[0].toPorts[0]: 10 names below GET /users/ are allowed one by one; "
        "if they are values of a parameter, write /users/[^/]+ instead",
    )


def test_mixed_ports_are_allowed_whole_and_told() -> None:
    """A port on which HTTP and something else were seen cannot be judged by requests."""
    found = policy.learn(policy.read_records([line(), line(protocol="tcp")]), WORKLOADS)
    assert "rules" not in found.policies[0]["spec"]["ingress"][0]["toPorts"][0]
    assert "allowed whole" in found.notes[0]


pieces = st.sampled_from(
    (
        *("/", "//", ".", "..", ";", "a", "\\", "%", "%2", "?", "%zz"),
        *(f"%{one:02x}" for one in range(256)),
        "%2F",
    )
)


@settings(max_examples=1000)
@given(st.lists(pieces, max_size=5))
def test_what_the_parser_refuses_teaches_nothing(written: list[str]) -> None:
    """A path that servers may read differently is refused wherever paths are judged, so it makes no rule."""
    path = "/" + "".join(written)
    assert is_ambiguous(path) == (path_ambiguity(path.encode()) is not None)
    assert policy.read_records([line(path)]).records == () or not is_ambiguous(path)


def test_replicas_are_one_service() -> None:
    """Endpoints that differ in what a rollout gives them teach one policy; so are peers one peer."""
    replicas = [
        Workload(f"api-{i}", "hr", {"app": "api", "pod-template-hash": f"h{i}"}, (ip_address(f"10.1.0.{i}"),))
        for i in (1, 2, 3)
    ]
    callers = [Workload(f"web-{i}", "hr", {"app": "web"}, (ip_address(f"10.2.0.{i}"),)) for i in (1, 2, 3)]
    log = [line(f"/jobs/{i}", endpoint=f"hr/api-{i}", peer=f"hr/web-{i}") for i in (1, 2, 3)]
    (only,) = policy.learn(policy.read_records(log), (*replicas, *callers)).policies
    assert only["metadata"]["name"] == "learned-api-1"
    assert only["spec"]["endpointSelector"] == {"matchLabels": {"app": "api"}}
    (rule,) = only["spec"]["ingress"]
    assert rule["toPorts"][0]["rules"]["http"] == [{"method": "GET", "path": "/jobs/[0-9]+"}]


def test_who_else_a_policy_selects_is_told() -> None:
    """Default deny comes over all that the labels select, also over those of which nothing was seen."""
    twin = Workload("other", "hr", {"app": "jobs-api"}, (ip_address("10.0.0.9"),))
    found = policy.learn(policy.read_records([line()]), (*WORKLOADS, twin))
    assert any("also select other, of which nothing was seen" in note for note in found.notes)


def test_what_has_no_labels_is_not_selected_by_none() -> None:
    """A selector without labels would be all of the namespace."""
    bare = Workload("bare", "hr", {"pod-template-hash": "1"}, (ip_address("10.0.0.9"),))
    found = policy.learn(
        policy.read_records([line(endpoint="hr/bare"), line(peer="hr/bare")]), (*WORKLOADS, bare)
    )
    assert found.policies == ()
    assert all("no labels to select it by" in note for note in found.notes)


SCAN = [
    *(line(path, peer="world", status=404) for path in ("/wp-admin", "/.env", "/phpmyadmin")),
    *(line("/pay", status=status) for status in (404, 200)),
    line("/login", status=401),
    line("/gone", verdict="deny", status=404),
]


def test_what_servers_had_nothing_for_is_told() -> None:
    """Rules that rest on 404 alone may be a scanner's: the notes say so, and they can be left out."""
    seen = policy.read_records(SCAN)
    kept = policy.learn(seen, WORKLOADS, ("audit", "deny"))
    assert [one.refused for one in kept.evidence] == [0, 0, 1, 1, 1, 1]
    (note,) = [note for note in kept.notes if "scanner" in note]
    assert "3 of its rules" in note
    assert any("lets anyone outside in" in note for note in kept.notes)
    least = policy.learn(seen, WORKLOADS, ("audit", "deny"), leave_out_refused=True)
    examples = [example for one in least.evidence for example in one.examples]
    assert sorted(examples) == ["GET /gone", "GET /login", "GET /pay"]
    assert least.notes == ("3 requests left out: servers answered that nothing is there",)


def test_rules_for_one_port_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked for most is kept; the rest is told with an example."""
    monkeypatch.setattr(learned_http, "MAX_RULES", 3)
    log = [line(f"/users/{name}") for name in ("ada", "bea", "cid", "dot", "dot", "eve", "eve")]
    found = policy.learn(policy.read_records(log), WORKLOADS)
    http = found.policies[0]["spec"]["ingress"][0]["toPorts"][0]["rules"]["http"]
    assert [rule["path"] for rule in http] == ["/users/ada", "/users/dot", "/users/eve"]
    assert any("2 requests of 2 kinds left out, such as GET /users/bea" in note for note in found.notes)


def test_what_cannot_be_a_rule_is_left_out_and_told() -> None:
    """Patterns that are too long or too costly, methods that lint would doubt, hosts that nobody named."""
    tail = "x" * 2000
    log = [
        *(line(f"/{tail}/{i}?next={tail}") for i in (1, 2, 3)),
        line("/a", method="get"),
        line("/b", direction="egress", peer="world", host="", peer_address="9.9.9.9:443", port=None),
    ]
    found = policy.learn(policy.read_records(log), WORKLOADS)
    assert found.policies == ()
    for part in ("not in upper case", "3 requests of 1 kind left out", "no host is named"):
        assert any(part in note for note in found.notes)


parts = st.sampled_from(
    (
        *(
            "jobs",
            "admin",
            "v1",
            "v2",
            "1.0",
            "latest",
            "a.b",
            "x%20y",
            "(x)",
            "a+b",
            "$",
            "~u",
            "1",
            "22",
            "333",
        ),
        *("4", "5.png", "6.png", "7.png", "ada@b.org", "bea@b.org", "cid@b.org", "2026-01-01", *IDS[:3], ""),
    )
)
queries = st.sampled_from(
    ("", "", "", "?page=1", "?page=2", "?page=3", "?q=x", "?", "?a=1&b=-2.5", "?t=a==&&z")
)
requests = st.builds(
    lambda elements, query: "/" + "/".join(part for part in elements if part) + query,
    st.lists(parts, max_size=4),
    queries,
) | st.builds("/jobs/{}/".format, parts.filter(bool))
EGRESS = {"direction": "egress", "peer": "world", "peer_address": "9.9.9.9:443", "port": None}
sides = st.sampled_from(
    (
        {},
        {},
        {"peer": "ops/batch"},
        {"peer": "host"},
        {"peer": "world"},
        {"peer": "cidr:9.0.0.0/8"},
        {"endpoint": "hr/turtletweets", "peer": "hr/jobs-api", "direction": "egress"},
        EGRESS,
        EGRESS | {"host": "api.example.com:8443"},
        {"port": 5432, "protocol": "tcp"},
        {"port": 53, "protocol": "udp", "direction": "egress", "peer": "world"},
    )
)
logs = st.lists(
    st.builds(
        lambda path, method, side, status: line(path, method=method, status=status) | side,
        requests,
        st.sampled_from(("GET", "GET", "POST", "M-SEARCH", "X.Y")),
        sides,
        st.sampled_from((0, 200, 404)),
    ),
    min_size=1,
    max_size=30,
)


def allows(revision: policy.NodePolicy, record: Record, **changed: Any) -> bool:
    """Whether a revision lets a record pass, with some of it changed."""
    one = replace(record, **changed)
    number = {"world": revision.world.number, "host": revision.host.number}.get(one.peer)
    if one.peer.startswith("cidr:"):
        number = revision.identify(ip_network(one.peer[5:])[9]).number
    if number is None:
        number = revision.identity_of(*one.peer.split("/")).number
    side = getattr(revision.endpoint(*one.endpoint.split("/")), one.direction)
    verdict = side.decide(number, one.protocol, one.port)
    if verdict.action.value == "redirect":
        return bool(side.http(number, one.port).judge(one).allowed)
    return bool(verdict.action.value == "pass")


def loaded_and_compiled(found: policy.Learned) -> policy.NodePolicy:
    """Learned policies in force; they must load without an error or a warning."""
    loaded = policy.load([(f"{i}.json", json.dumps(one)) for i, one in enumerate(found.policies)])
    assert (loaded.errors, loaded.warnings) == ((), ())
    revision = policy.compile(loaded.rules, WORKLOADS, policy.Node(NODE.addresses, "policy"), 1)
    assert revision.warnings == ()
    return revision


@settings(max_examples=300, deadline=None)
@given(logs, st.randoms(use_true_random=False))
def test_all_that_was_seen_is_allowed_and_what_is_near_is_not(log: list[dict[str, Any]], chance: Any) -> None:
    """Every record passes the rules learned from it; other words, methods, ports and peers do not."""
    records = policy.read_records(log).records
    found = policy.learn(policy.Records(records, {}), WORKLOADS)
    revision = loaded_and_compiled(found)
    assert sum(one.requests for one in found.evidence) == len(records)
    for record in records:
        assert allows(revision, record)
        assert not allows(revision, record, port=4444)
        if not record.http:
            continue
        assert not allows(revision, record, method=b"DELETE")
        assert not allows(
            revision, record, path=record.path + b"/below" if b"?" not in record.path else b"/zz"
        )
        at = chance.randrange(record.path.count(b"/")) + 1
        elements = record.path.partition(b"?")[0].split(b"/")
        elements[at] = b"unseen"
        assert not allows(revision, record, path=b"/".join(elements))
    shuffled = chance.sample(log, len(log))
    assert policy.learn(policy.read_records(shuffled), WORKLOADS) == found
