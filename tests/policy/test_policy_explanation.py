"""Answers to why: the deciding rule, the nearest miss, and who may talk to whom."""

from __future__ import annotations

import pytest
from rules_world import JOBS, TWEETS, compiled, get, http_rule, rule

import policy

FROM_TWEETS = {"fromEndpoints": [{"matchLabels": {"app": "turtletweets"}}]}
JOB = {"method": "GET", "path": "/jobs/[0-9]+"}
WRITE = {"method": "POST", "path": "/jobs", "headers": ["X-Role: admin"]}


def explain(
    revision: policy.NodePolicy, client: str, server: str, port: int, request: object
) -> policy.Explanation:
    """Ask by names."""
    parties = (policy.party(revision, client), policy.party(revision, server))
    return policy.explain(revision, *parties, port, request)  # type: ignore[arg-type]


def test_an_allowed_request_names_its_rule() -> None:
    """Both sides answer; the ingress rule that decided comes first."""
    revision = compiled(http_rule(JOB, WRITE, **FROM_TWEETS))
    answer = explain(revision, "hr/turtletweets", "jobs-api", 80, get("/jobs/1"))
    assert (answer.verdict, [side.direction for side in answer.sides]) == ("allow", ["egress", "ingress"])
    ingress = answer.sides[1]
    assert ingress.rule == "*/f0[0]#ingress[0].toPorts[0].http[0]"
    assert ingress.candidates[0].rule == ingress.rule
    assert ingress.candidates[0].failed == ()


def test_the_nearest_miss_comes_first() -> None:
    """Rules are ordered by how far they are: peer, port, then how many conditions of the request failed."""
    elsewhere = rule(ingress=[{"fromCIDR": ["9.0.0.0/8"]}])
    revision = compiled(elsewhere, http_rule(WRITE, JOB, **FROM_TWEETS))
    answer = explain(revision, "turtletweets", "10.0.0.2", 80, get("/jobs/x"))
    assert (answer.verdict, answer.rule) == ("deny", "*/f1[0]#ingress[0].toPorts[0]")
    near, far, other = answer.sides[1].candidates
    assert near.failed == ("path: /jobs/x is not /jobs/[0-9]+",)
    assert far.failed == (
        "method: GET is not POST",
        "path: /jobs/x is not /jobs",
        "header: there is no x-role with the value admin",
    )
    assert other.failed == ("peer: hr/turtletweets is not 9.0.0.0/8",)


def test_connections_are_explained_too() -> None:
    """Without a request: the peer and the port that each rule wants."""
    revision = compiled(http_rule(JOB, **FROM_TWEETS))
    answer = explain(revision, "8.8.8.8", "jobs-api", 81, None)
    assert answer.verdict == "deny"
    assert answer.reason == "default deny: no ingress rule of */f0[0] allows world on 81/TCP"
    assert answer.sides[0].candidates[0].failed == (
        "peer: world is not app=turtletweets",
        "port: 81/TCP is not 80/TCP",
    )


def test_own_conditions_are_explained() -> None:
    """kproxy's own fields, in their own words."""
    own = [
        {"pathPrefix": "/a", "query": [{"name": "q", "value": "1"}]},
        {"pathExact": "/b", "description": "the b"},
    ]
    rules = {"kproxy": {"http": own}}
    ports = [{"ports": [{"port": "80", "protocol": "TCP"}], "rules": rules}]
    answer = explain(compiled(rule(ingress=[{"toPorts": ports}])), "host", "jobs-api", 80, get("/c"))
    assert answer.verdict == "allow"
    failed = {candidate.failed: candidate.description for candidate in answer.sides[0].candidates}
    assert failed == {
        ("path: /c is not exactly /b",): "the b",
        ("path: /c is not /a or below", "query: there is no q with the value 1"): "",
    }


def test_parties() -> None:
    """Names, addresses and the host; what is none of these is an error that says so."""
    revision = compiled(rule(ingress=[{}]))
    assert policy.party(revision, "10.0.0.3").workload == TWEETS
    assert policy.party(revision, "hr/jobs-api").workload == JOBS
    assert policy.party(revision, "8.8.8.8").identity.name == "world"
    assert policy.party(revision, "world").identity == revision.world
    assert policy.party(revision, "cidr:9.0.0.0/8").identity.name == "world"
    with pytest.raises(policy.UnknownParty, match="neither a known workload, host, world, nor an address"):
        policy.party(revision, "nobody")
    with pytest.raises(policy.UnknownParty) as caught:
        policy.party(revision, "job-api")
    assert caught.value.mend == "did you mean hr/jobs-api?"


def test_a_workload_elsewhere_decides_nothing_here() -> None:
    """Rules about a workload that another node enforces are told, and leave this node's verdict alone."""
    shut = {"endpointSelector": {"matchLabels": {"app": "batch"}}, "egress": [{}]}
    revision = compiled(shut, http_rule(JOB))
    answer = explain(revision, "batch", "jobs-api", 80, get("/jobs/1"))
    assert [(side.enforced, side.verdict) for side in answer.sides] == [(False, "deny"), (True, "allow")]
    assert (answer.verdict, answer.decided_by) == ("allow", answer.sides[1])
    away = explain(revision, "batch", "8.8.8.8", 80, None)
    assert (away.verdict, away.decided_by, away.sides[0].verdict) == ("allow", None, "deny")


def test_a_connection_that_is_denied_carries_no_request() -> None:
    """Where one side denies the connection and the other the request, the connection's denial is the answer."""
    egress = [{"toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}], "rules": {"http": [JOB]}}]}]
    picky = {"endpointSelector": {"matchLabels": {"app": "turtletweets"}}, "egress": egress}
    answer = explain(compiled(picky, rule(ingress=[{}])), "turtletweets", "jobs-api", 80, get("/x"))
    assert [side.verdict for side in answer.sides] == ["deny", "deny"]
    assert answer.rule == "*/f1[0]#ingress"


def test_a_workload_may_talk_to_itself() -> None:
    """Traffic inside one workload passes no hook."""
    answer = explain(compiled(rule(ingress=[{}])), "jobs-api", "10.0.0.2", 80, None)
    assert (answer.verdict, answer.sides) == ("allow", ())


def test_candidates_are_bounded_and_the_deciding_rule_is_among_them() -> None:
    """Of many rules the nearest are shown and the rest counted; a rule that decides stands first."""
    rules = [{"path": f"/{n}"} for n in range(50)]
    side = explain(compiled(http_rule(*rules)), "turtletweets", "jobs-api", 80, get("/49")).sides[1]
    assert (side.candidates[0].rule, side.candidates[0].failed) == (side.rule, ())
    assert (len(side.candidates), side.more) == (10, 40)


def test_a_secret_is_compared_and_not_shown() -> None:
    """A header with another value than its secret is a miss; the secret is in no answer."""
    match = {"name": "X-Key", "secret": {"namespace": "hr", "name": "key"}}
    known = compiled(http_rule({"headerMatches": [match]}), secrets={"hr/key": b"open sesame"})
    said = {
        value: explain(known, "turtletweets", "jobs-api", 80, get("/", ("X-Key", value)))
        for value in ("open sesame", "guess")
    }
    assert [answer.verdict for answer in said.values()] == ["allow", "deny"]
    miss = said["guess"].sides[1].candidates[0].failed
    assert miss == ("header: x-key does not have the value that the rule wants",)
    lacking = explain(compiled(http_rule({"headerMatches": [match]})), "batch", "jobs-api", 80, get("/"))
    assert "x-key cannot be judged, as there is no secret hr/key" in lacking.sides[-1].candidates[0].failed[0]
    assert "sesame" not in repr([*said.values(), lacking])


def test_the_reason_names_the_peer_that_was_asked_about() -> None:
    """Peers that no rule tells apart share an identity; the answer is about the one that was named."""
    revision = compiled(rule(ingress=[{"fromCIDR": ["9.0.0.0/8"]}]))
    for name in ("hr/turtletweets", "ops/batch"):
        assert f"allows {name} on" in explain(revision, name, "jobs-api", 80, None).reason


LINES = [
    ("cidr:9.0.0.0/8", "any", "allow", ()),
    ("host", "any", "allow", ()),
    ("hr/turtletweets", "80/TCP", "judged", (("allow", "GET", "/jobs/[0-9]+"),)),
    ("everyone else", "any other", "deny", ()),
]


def test_reach_draws_what_may_talk() -> None:
    """Lines by peers and ports, with the requests that may pass, and the default at the end."""
    revision = compiled(http_rule(JOB, **FROM_TWEETS), rule(ingress=[{"fromCIDR": ["9.0.0.0/8"]}]))
    found = policy.reach(revision, JOBS)
    shown = [
        (*line.peers, *line.ports, line.action, tuple((r.verdict, r.method, r.path) for r in line.requests))
        for line in found
        if line.direction == "ingress"
    ]
    assert shown == LINES
    assert [(line.peers, line.action, line.default) for line in found[len(LINES) :]] == [
        (("everyone",), "allow", True)
    ]


def test_reach_of_two() -> None:
    """Asked about one peer, only what concerns it is drawn."""
    revision = compiled(http_rule(JOB, **FROM_TWEETS), rule(ingress=[{"fromCIDR": ["9.0.0.0/8"]}]))
    found = policy.reach(revision, JOBS, policy.party(revision, "batch").identity)
    assert [(line.direction, line.peers, line.ports, line.action) for line in found] == [
        ("ingress", ("ops/batch",), ("any",), "deny"),
        ("egress", ("ops/batch",), ("any",), "allow"),
    ]


def test_reach_knows_everyone_and_deny_rules() -> None:
    """Rules about everyone are one line; denials stand before what is allowed; audit is told."""
    denied = {"kproxy": {"http": [{"pathPrefix": "/admin", "description": "no admin"}]}}
    port = {"ports": [{"port": "80", "protocol": "TCP"}]}
    revision = compiled(
        rule(ingress=[{"toPorts": [port]}], ingressDeny=[{"toPorts": [port | {"rules": denied}]}]),
        rule(egress=[{"toCIDR": ["9.0.0.0/8"]}], kproxy={"mode": "audit"}),
    )
    found = policy.reach(revision, JOBS)
    (judged,) = [line for line in found if line.requests]
    assert [(one.verdict, one.path, one.description) for one in judged.requests] == [
        ("deny", "/admin or below", "no admin"),
        ("allow", "", ""),
    ]
    assert found[-1].action == "audit"


def test_reach_is_bounded() -> None:
    """Long lists of requests are cut, and the rest is counted."""
    revision = compiled(http_rule(*({"path": f"/{n}"} for n in range(50))))
    line = next(one for one in policy.reach(revision, JOBS) if one.requests)
    assert (len(line.requests), line.more_requests) == (20, 30)


def test_headers_that_a_rule_compares_or_edits() -> None:
    """A wrong value, and a secret that is not there, are told without any value; edits without theirs."""
    fail = {"headerMatches": [{"name": "X-Token", "secret": {"name": "token"}}]}
    add = {"path": "/a", "headerMatches": [{"name": "X-Role", "value": "s3cret", "mismatch": "ADD"}]}
    rules = http_rule(fail, add, **FROM_TWEETS)
    request = get("/b", ("x-token", "wrong"))
    told = {
        b"s3cret": "header: x-token does not have the value that the rule wants",
        None: "header: x-token cannot be judged, as there is no secret default/token",
    }
    for value, why in told.items():
        secrets = {} if value is None else {"default/token": value}
        side = explain(compiled(rules, secrets=secrets), "hr/turtletweets", "jobs-api", 80, request).sides[1]
        assert why in [failed for candidate in side.candidates for failed in candidate.failed]
    answer = explain(compiled(rules), "hr/turtletweets", "jobs-api", 80, get("/a"))
    assert answer.sides[1].edits == ("add x-role",)
    assert "s3cret" not in repr(answer)


def test_ingress_is_asked_about_what_egress_forwards() -> None:
    """A header that the client's policy replaces is judged by the server's policy as it was replaced."""
    port = {"ports": [{"port": "80", "protocol": "TCP"}]}
    match = {"name": "X-Role", "value": "user", "mismatch": "REPLACE"}
    egress = [{"toPorts": [port | {"rules": {"http": [{"headerMatches": [match]}]}}]}]
    revision = compiled(
        http_rule({"headers": ["X-Role: user"]}),
        rule(endpointSelector={"matchLabels": {"app": "turtletweets"}}, egress=egress),
    )
    answer = explain(revision, "hr/turtletweets", "jobs-api", 80, get("/", ("x-role", "admin")))
    assert [(side.verdict, side.edits) for side in answer.sides] == [
        ("allow", ("replace x-role",)),
        ("allow", ()),
    ]
