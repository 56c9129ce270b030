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
    with pytest.raises(policy.UnknownParty, match="neither a known workload, host, nor an address"):
        policy.party(revision, "nobody")


def test_reach_draws_what_may_talk() -> None:
    """Lines by peers and ports, with the rules behind them, and the default at the end."""
    revision = compiled(http_rule(JOB, **FROM_TWEETS), rule(ingress=[{"fromCIDR": ["9.0.0.0/8"]}]))
    lines = [(r.direction, r.peers, r.ports, r.action) for r in policy.reach(revision, JOBS)]
    assert ("ingress", ("hr/turtletweets",), "80/TCP", "redirect") in lines
    assert ("ingress", ("cidr:9.0.0.0/8",), "TCP", "pass") in lines
    assert ("ingress", ("everyone else",), "any", "deny") in lines
    assert ("egress", ("everyone",), "any", "pass") in lines


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
