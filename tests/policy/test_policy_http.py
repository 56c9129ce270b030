"""Requests against HTTP rules: each field, repeated headers, header edits, queries, denial, audit, and indexes."""

from __future__ import annotations

from typing import Any

import pytest
from rules_world import OTHER, cnp, compiled, get, http_rule, judge, l4, load, number, rule, rules_of

import policy
from policy import HeaderEdit, httprules
from policy.httprules import HttpRules, Miss
from policy.indexes import MAX_STEPS

MATCHES = [
    ({}, get("/"), True),
    ({"method": "GET"}, get("/"), True),
    ({"method": "GET"}, get("/", method="GETS"), False),
    ({"method": "get"}, get("/"), False),
    ({"method": "GET|HEAD"}, get("/", method="HEAD"), True),
    ({"method": ""}, get("/", method="DELETE"), True),
    ({"path": "/jobs"}, get("/jobs"), True),
    ({"path": "/jobs"}, get("/jobs/"), False),
    ({"path": "/jobs"}, get("/jobs?x=1"), False),
    ({"path": "/jobs(\\?.*)?"}, get("/jobs?x=1"), True),
    ({"path": "/jobs/[0-9]+"}, get("/jobs/331"), True),
    ({"path": "/jobs/[0-9]+"}, get("/jobs/"), False),
    ({"path": "/jobs/[0-9]+"}, get("/jobs/331/x"), False),
    ({"path": "^/jobs$"}, get("/jobs"), True),
    ({"path": "/private$"}, get("/private"), True),
    ({"path": "/a|/b"}, get("/b"), True),
    ({"path": "/a|/b"}, get("/a/b"), False),
    ({"path": ""}, get("/whatever"), True),
    ({"host": "jobs\\.example\\.com"}, get("/", host="jobs.example.com"), True),
    ({"host": "JOBS\\.example\\.com"}, get("/", host="jobs.example.com"), True),
    ({"host": "jobs.example.com"}, get("/", host="jobsxexample.com"), True),
    ({"host": "jobs\\.example\\.com"}, get("/", host="jobs.example.com:8080"), False),
    ({"host": ".*\\.example\\.com"}, get("/", host="a.b.example.com"), True),
    ({"host": ".*\\.example\\.com"}, get("/", host="example.com"), False),
    ({"headers": ["X-Token"]}, get("/", ("x-token", "")), True),
    ({"headers": ["X-Token"]}, get("/"), False),
    ({"headers": ["X-Token: 42"]}, get("/", ("X-Token", "42")), True),
    ({"headers": ["X-Token: 42"]}, get("/", ("X-Token", "420")), False),
    ({"headers": ["X-Token: 42"]}, get("/", ("X-Token", "42"), ("X-Token", "42")), False),
    ({"headers": ["X-Token: 42,43"]}, get("/", ("X-Token", "42"), ("X-Token", "43")), True),
    ({"headers": ["A", "B: 1"]}, get("/", ("a", "x"), ("b", "1")), True),
    ({"headers": ["A", "B: 1"]}, get("/", ("b", "1")), False),
    ({"method": "GET", "path": "/a", "headers": ["A"]}, get("/a"), False),
]


@pytest.mark.parametrize(("http", "request_", "matches"), MATCHES)
def test_one_rule(http: dict[str, Any], request_: Any, matches: bool) -> None:
    """Every field that is given must match, all of it."""
    assert judge(compiled(http_rule(http)), request_).allowed is matches


@pytest.mark.parametrize(("http", "request_", "matches"), MATCHES)
def test_one_rule_among_many(http: dict[str, Any], request_: Any, matches: bool) -> None:
    """The same beside rules enough for every index, which match nothing that is asked here."""
    others = [
        *({"path": f"/other{i}", "method": "GET"} for i in range(9)),
        *({"path": f"/other{i}/[a-z]+", "method": "PATCH"} for i in range(9)),
        *({"path": f".*other{i}", "method": "P.*T"} for i in range(9)),
        *({"host": f"other{i}"} for i in range(9)),
        *({"host": f".*other{i}"} for i in range(9)),
        *({"headers": [f"X-Other: {i}"]} for i in range(9)),
    ]
    revision = compiled(http_rule(*others[:30], http, *others[30:]))
    answer = judge(revision, request_)
    assert answer.allowed is matches
    if matches:
        assert answer.rule.endswith(".http[30]")


OWN = [
    ({"pathExact": "/jobs"}, "/jobs", True),
    ({"pathExact": "/jobs"}, "/jobs?page=2", True),
    ({"pathExact": "/jobs"}, "/jobs/", False),
    ({"pathExact": "/a.b"}, "/axb", False),
    ({"pathPrefix": "/jobs"}, "/jobs/1", True),
    ({"pathPrefix": "/jobs/"}, "/jobs", True),
    ({"pathPrefix": "/jobs"}, "/jobs?x", True),
    ({"pathPrefix": "/jobs"}, "/jobsearch", False),
    ({"pathPrefix": "/"}, "/anything", True),
    ({"query": [{"name": "page"}]}, "/?page", True),
    ({"query": [{"name": "page"}]}, "/", False),
    ({"query": [{"name": "page", "value": "[0-9]+"}]}, "/?a=b&page=12", True),
    ({"query": [{"name": "page", "value": "[0-9]+"}]}, "/?page=12&page=x", False),
    ({"query": [{"name": "page", "value": "[0-9]+"}]}, "/?p%61ge=1%32", True),
    ({"query": [{"name": "q", "value": "a b"}]}, "/?q=a+b", True),
    ({"query": [{"name": "q", "value": ".*"}]}, "/?q=%zz", False),
    ({"query": [{"name": "q"}]}, "/?q=1&%zz", False),
]


@pytest.mark.parametrize(("own", "path", "matches"), OWN)
def test_kproxys_own_conditions(own: dict[str, Any], path: str, matches: bool) -> None:
    """Exact and prefix paths look at the path without its query; query parameters are decoded."""
    ports = [{"ports": [{"port": "80", "protocol": "TCP"}], "rules": {"kproxy": {"http": [own]}}}]
    answer = judge(compiled(rule(ingress=[{"toPorts": ports}])), get(path))
    assert answer.allowed is matches
    assert answer.path_judged


def denying(*http: dict[str, Any]) -> dict[str, Any]:
    """A rule that denies requests to port 80, and allows all others."""
    ports = [{"port": "80", "protocol": "TCP"}]
    return rule(
        ingress=[{"toPorts": [{"ports": ports}]}],
        ingressDeny=[{"toPorts": [{"ports": ports, "rules": {"kproxy": {"http": list(http)}}}]}],
    )


@pytest.mark.parametrize(
    ("own", "request_", "denied"),
    [
        ({"pathPrefix": "/admin"}, get("/admin/users"), True),
        ({"pathPrefix": "/admin"}, get("/administrator"), False),
        ({"headers": ["X-Debug: 1"]}, get("/", ("x-debug", "0"), ("x-debug", "1")), True),
        ({"headers": ["X-Debug: 1"]}, get("/", ("x-debug", "0, 1")), True),
        ({"headers": ["X-Debug: 1"]}, get("/", ("x-debug", "10")), False),
        ({"query": [{"name": "cmd"}]}, get("/?a=1;cmd=2"), True),
        ({"query": [{"name": "cmd", "value": "rm"}]}, get("/?cmd=ls&cmd=rm"), True),
        ({"query": [{"name": "cmd", "value": "rm.*"}]}, get("/?cmd=rm%0Ax"), True),
        ({"query": [{"name": "cmd", "value": "rm"}]}, get("/?cmd=%zz"), True),
        ({"query": [{"name": "cmd"}]}, get("/?other=1"), False),
    ],
)
def test_denied_requests(own: dict[str, Any], request_: Any, denied: bool) -> None:
    """A deny rule wins over an allow without requests, and reads what is ambiguous against the sender."""
    revision = compiled(denying(own))
    assert l4(revision, "10.0.0.3") == "redirect"
    answer = judge(revision, request_)
    assert answer.allowed is not denied
    place = "ingressDeny[0].toPorts[0].kproxy.http[0]" if denied else "ingress[0].toPorts[0]"
    assert answer.rule == f"*/f0[0]#{place}"


def test_path_judged_only_where_a_path_rule_is() -> None:
    """Ambiguous paths matter only where paths are looked at."""
    assert not judge(compiled(http_rule({"method": "GET"})), get("/")).path_judged
    assert judge(compiled(http_rule({"method": "GET"}, {"path": "/a"})), get("/")).path_judged
    assert judge(compiled(denying({"pathPrefix": "/a"})), get("/b")).path_judged


AUTH = b"Bearer s3cret"


def matching(mismatch: str | None, **fields: Any) -> dict[str, Any]:
    """A rule with a headerMatch on Authorization."""
    return {
        "headerMatches": [{"name": "Authorization"} | ({"mismatch": mismatch} if mismatch else {}) | fields]
    }


@pytest.mark.parametrize(
    ("mismatch", "sent", "edits"),
    [
        (None, "other", None),
        (None, "Bearer s3cret", []),
        ("FAIL", "other", None),
        ("FAIL", "Bearer s3cret", []),
        ("LOG", "other", ["log"]),
        ("LOG", "Bearer s3cret", []),
        ("ADD", "other", ["add"]),
        ("ADD", None, ["add"]),
        ("DELETE", "other", ["delete"]),
        ("DELETE", None, []),
        ("REPLACE", "other", ["replace"]),
        ("REPLACE", None, ["replace"]),
        ("REPLACE", "Bearer s3cret", []),
    ],
)
def test_header_matches(mismatch: str | None, sent: str | None, edits: list[str] | None) -> None:
    """What a header that differs from its expected value leads to; None: the rule does not match."""
    document = http_rule(matching(mismatch, secret={"name": "token", "namespace": "hr"}))
    revision = compiled(document, secrets={"hr/token": AUTH})
    answer = judge(revision, get("/", *([("Authorization", sent)] if sent else [])))
    assert answer.allowed is (edits is not None)
    assert [edit.op for edit in answer.edits] == (edits or [])
    assert all(edit.value == (b"" if edit.op == "delete" else AUTH) for edit in answer.edits)
    assert {edit.name for edit in answer.edits if edit.op != "log"} <= answer.guarded


def test_secrets_are_not_shown() -> None:
    """A secret's value is in no representation of anything that could be logged."""
    revision = compiled(
        http_rule(matching("ADD", secret={"name": "token", "namespace": "hr"})), secrets={"hr/token": AUTH}
    )
    answer = judge(revision, get("/"))
    assert answer.edits == (HeaderEdit("add", b"authorization", AUTH),)
    assert "s3cret" not in repr(answer)
    assert "s3cret" not in repr(rules_of(http_rule(matching("ADD", value="s3cret"))))


SECRET = {"name": "token"}
LOST = ["ADD", "DELETE", "REPLACE"]


@pytest.mark.parametrize("mismatch", [None, "LOG"])
def test_without_its_secret_a_rule_that_compares_allows_nothing(mismatch: str | None) -> None:
    """And a warning says so; a value beside the secret stands in for it; other rules allow what they allow."""
    lost = compiled(http_rule(matching(mismatch, secret=SECRET)))
    assert not judge(lost, get("/", ("authorization", "x"))).allowed
    assert "no secret default/token: the rule allows nothing" in lost.warnings[0].message
    spare = compiled(http_rule(matching(mismatch, secret=SECRET, value="x")))
    assert judge(spare, get("/", ("authorization", "x"))).allowed
    beside = compiled(http_rule(matching(mismatch, secret=SECRET), {"method": "GET"}))
    assert judge(beside, get("/")).allowed


@pytest.mark.parametrize("mismatch", LOST)
def test_without_its_secret_an_edit_is_never_skipped(mismatch: str) -> None:
    """What the rule matches is denied by its name, even where another rule allows it: it would pass unedited."""
    rules = [matching(mismatch, secret=SECRET) | {"path": "/a"}, {"method": "GET"}]
    lost = compiled(http_rule(*rules))
    answer = judge(lost, get("/a", ("authorization", "forged")))
    assert (answer.allowed, answer.rule) == (False, "*/f0[0]#ingress[0].toPorts[0].http[0]")
    assert "its secret default/token is not there" in answer.reason
    assert judge(lost, get("/b")).allowed
    assert "authorization cannot be edited" in lost.warnings[0].message
    assert judge(compiled(http_rule(*rules), secrets={"default/token": AUTH}), get("/a")).allowed


@pytest.mark.parametrize(("namespace", "named"), [(None, "hr/token"), ("hr", "hr/token")])
def test_a_secret_is_of_the_policys_namespace(namespace: str | None, named: str) -> None:
    """A policy uses its own namespace's secrets, whether it says so or not."""
    secret = SECRET | ({"namespace": namespace} if namespace else {})
    spec = http_rule(matching("ADD", secret=secret))
    rules = rules_of(cnp({"endpointSelector": {}, "ingress": spec["ingress"]}))
    assert policy.secrets_named(rules) == {named}


def test_edits_are_made_on_what_those_before_have_left() -> None:
    """Two rules that add or replace one header by the same value put it in once."""
    twice = [matching("REPLACE", value="a"), matching("ADD", value="a"), matching("LOG", value="a,b")]
    answer = judge(compiled(http_rule(*twice)), get("/", ("authorization", "z")))
    assert [str(edit) for edit in answer.edits] == ["replace authorization", "log authorization"]


def test_an_edit_is_no_credential() -> None:
    """What must match is asked of what was sent, also where a rule before has put the right value in."""
    rules = [
        matching("ADD", value="a"),
        {
            "headerMatches": [
                {"name": "Authorization", "value": "a"},
                {"name": "X-Role", "mismatch": "DELETE"},
            ]
        },
    ]
    answer = judge(compiled(http_rule(*rules)), get("/", ("x-role", "user")))
    assert [str(edit) for edit in answer.edits] == ["add authorization"]


def test_a_port_that_is_open_edits_all_the_same() -> None:
    """An allow without requests opens the port, but does not take the edits away (as in Cilium)."""
    own = matching("REPLACE", value="a") | {"path": "/a"}
    wide = rule(ingress=[{"toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}]}]}])
    revision = compiled(http_rule(own), wide)
    assert l4(revision, "10.0.0.3") == "redirect"
    answer = judge(revision, get("/a"))
    assert (answer.verdict, answer.rule) == ("allow", "*/f1[0]#ingress[0].toPorts[0]")
    assert [str(edit) for edit in answer.edits] == ["replace authorization"]
    assert not judge(revision, get("/b")).edits
    assert l4(compiled(http_rule(matching(None, value="a")), wide), "10.0.0.3") == "pass"


def test_what_the_node_sends_is_not_edited() -> None:
    """The node may reach its workloads whatever is sent, also where an edit lacks its secret."""
    revision = compiled(http_rule(matching("REPLACE", secret=SECRET)))
    assert l4(revision, "10.0.0.3") == "redirect"
    host = revision.endpoint("hr", "jobs-api").ingress.decide(revision.host.number, policy.TCP, 80)
    assert host.action is policy.Action.PASS


def test_delete_without_a_value_is_a_warning() -> None:
    """It removes nothing, as any header is then as expected; a person likely means the opposite."""
    loaded = load(http_rule({"headerMatches": [{"name": "X-Role", "mismatch": "DELETE"}]}))
    assert "removes nothing" in loaded.warnings[0].message
    assert not judge(compiled(http_rule(matching("DELETE"))), get("/", ("authorization", "x"))).edits


def test_edited_headers_are_guarded() -> None:
    """Every answer tells which headers rules in force edit, so that what is taken for them can be refused."""
    rules = [matching("DELETE", value="a"), {"headerMatches": [{"name": "X-Log", "mismatch": "LOG"}]}]
    assert judge(compiled(http_rule(*rules)), get("/")).guarded == {b"authorization"}


@pytest.mark.parametrize(
    ("op", "after"),
    [
        ("log", [b"1", b"2"]),
        ("add", [b"1", b"2", b"new"]),
        ("replace", [b"new"]),
        ("delete", []),
    ],
)
def test_a_request_after_its_edits(op: str, after: list[bytes]) -> None:
    """What the next policy judges has all edits, and is otherwise the same request."""
    sent = get("/a", ("x-token", "1"), ("other", "o"), ("x-token", "2"), method="PUT")
    seen = policy.Edited(sent, [HeaderEdit(op, b"x-token", b"new")])
    assert [value for name, value in seen.headers if name == b"x-token"] == after
    assert (b"other", b"o") in seen.headers
    assert (seen.method, seen.path, seen.host) == (sent.method, sent.path, sent.host)


def test_memory_of_edits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client chooses which headers it sends: it cannot fill memory with sets of edits."""
    monkeypatch.setattr(httprules, "MAX_REMEMBERED", 8)
    names = [f"x-{i}" for i in range(6)]
    own = {"headerMatches": [{"name": name, "mismatch": "DELETE", "value": "a"} for name in names]}
    revision = compiled(http_rule(own))
    judges = revision.endpoint("hr", "jobs-api").ingress.http(number(revision, "10.0.0.3"), 80)
    for sent in range(2**6):
        headers = [(name, "b") for i, name in enumerate(names) if sent >> i & 1]
        assert len(judges.judge(get("/", *headers)).edits) == len(headers)
        assert isinstance(judges, policy.HttpRules)
        assert len(judges._with_edits) <= 8


def test_every_matching_rule_edits() -> None:
    """Where rules edit headers, all that match are heard, in their order; the same edits are the same object."""
    document = http_rule(
        matching("ADD", value="a"), {"method": "POST"}, {"method": "GET"}, matching("DELETE", value="b")
    )
    revision = compiled(document)
    answer = judge(revision, get("/", ("authorization", "z")))
    assert [edit.op for edit in answer.edits] == ["add", "delete"]
    assert answer is judge(revision, get("/", ("authorization", "z")))


AUDIT = {"kproxy": {"mode": "audit"}}


def test_audit_lets_pass_what_it_alone_denies() -> None:
    """One object for each rule; an enforced policy's denials stay."""
    tried = http_rule({"path": "/jobs"}) | AUDIT
    revision = compiled(tried)
    assert judge(revision, get("/jobs")).verdict == "allow"
    answer = judge(revision, get("/x"))
    assert (answer.verdict, answer.allowed, answer.path_judged) == ("audit", True, False)
    assert answer.reason.startswith("audit: default deny")
    assert answer is judge(revision, get("/x"))
    both = compiled(tried, http_rule({"path": "/jobs|/x"}))
    assert [judge(both, get(path)).verdict for path in ("/jobs", "/x", "/y")] == ["allow", "allow", "deny"]


def test_paths_that_only_tried_rules_look_at() -> None:
    """Enforced path rules ask for certain paths whatever is tried beside; tried ones where nothing else allows."""
    any_get, jobs = http_rule({"method": "GET"}), http_rule({"path": "/jobs.*"})
    tried = http_rule({"path": "/.*"}) | AUDIT
    denying_all = rule(ingressDeny=[{"toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}]}]}]) | AUDIT
    for rules, verdict, judged, only_tried in (
        ((jobs, denying_all), "audit", True, False),
        ((any_get, tried), "allow", True, True),
        ((http_rule({"method": "POST"}), tried), "allow", True, False),
        ((tried,), "allow", True, True),
        ((jobs, tried), "allow", True, False),
    ):
        answer = judge(compiled(*rules), get("/jobs/1"))
        assert (answer.verdict, answer.path_judged, answer.path_tried) == (verdict, judged, only_tried)


def test_audit_of_connections() -> None:
    """Default deny and deny rules of a tried policy let connections pass, and mark them to be counted."""
    revision = compiled(rule(ingress=[{}]) | AUDIT)
    ingress = revision.endpoint("hr", "jobs-api").ingress
    other = ingress.decide(revision.identity_of("ops", OTHER.name).number, policy.TCP, 80)
    assert (other.action.value, other.audit, ingress.enforced) == ("pass", True, False)
    assert ingress.default.audit
    denied = compiled(http_rule({"path": "/jobs"}), rule(ingressDeny=[{"fromEntities": ["all"]}]) | AUDIT)
    assert [judge(denied, get(path)).verdict for path in ("/jobs", "/x")] == ["audit", "deny"]


@pytest.mark.parametrize(
    "shape",
    [
        "/svc{}/[0-9]+",
        "/svc{}",
        "/{}/[a-z]+/x",
        "/[a-z]+/svc{}/x",
        "/a[0-9]+/svc{}",
        "/v(1|2)/svc{}/[0-9]+",
        "[a-z/]+-{}",
    ],
)
def test_thousands_of_rules_each_find_their_own(shape: str) -> None:
    """With five thousand rules on one port, the rule that is named is the one that was meant."""
    revision = compiled(http_rule(*({"method": "GET", "path": shape.format(i)} for i in range(5000))))
    for i in (0, 1, 10, 999, 4999):
        path = shape.format(i).replace("[0-9]+", "7").replace("[a-z]+", "a").replace("[a-z/]+", "/a/b")
        path = path.replace("(1|2)", "2")
        assert judge(revision, get(path)).rule.endswith(f".http[{i}]")
        assert not judge(revision, get(path + "!")).allowed
        assert not judge(revision, get(path, method="PUT")).allowed


def test_patterns_that_no_index_tells_apart_are_bounded() -> None:
    """The bound is on what one byte of a path may cost, not on the number of rules."""
    lists = [http_rule(*({"path": f".*x{n}y{i}.*"} for i in range(50))) for n in range(4)]
    loaded = [one.ingress.allow[0].ports[0].http or () for one in rules_of(*lists)]  # type: ignore[index]
    rules = [rule for one in loaded for rule in one]
    assert sum(rule.path.program for rule in rules if rule.path) > MAX_STEPS
    with pytest.raises(policy.PolicyError, match="instructions for each byte"):
        HttpRules(rules, (), Miss("", ""))
    assert HttpRules(loaded[0], (), Miss("", "")).judge(get("/ax0y7b")).allowed


def test_headers_are_not_touched_without_need() -> None:
    """Reading headers costs; a request that no rule asks headers of keeps them unread."""

    class Headless:
        method, path, host = b"GET", b"/jobs/1", b"jobs"

        @property
        def headers(self) -> Any:
            raise AssertionError("headers were read")

    revision = compiled(http_rule({"path": "/jobs/[0-9]+"}, {"method": "PUT", "headers": ["X: 1"]}))
    assert judge(revision, Headless()).allowed  # type: ignore[arg-type]
