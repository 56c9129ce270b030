"""Warnings: what is right but likely not meant, and what is right and meant."""

from __future__ import annotations

from typing import Any

import pytest
from rules_world import WORKLOADS, cnp, compiled, http_rule, load, rule, rules_of

import policy

PORT_80 = [{"ports": [{"port": "80", "protocol": "TCP"}]}]
TWEETS = {"fromEndpoints": [{"matchLabels": {"app": "turtletweets"}}]}
EXCEPT = {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}
FRONT_OF_A = {"matchLabels": {"app": "a", "tier": "x"}}
HTTP = "/0/ingress/0/toPorts/0/rules/http"

WARNED = [
    (http_rule({"path": "/v1/"}), f"{HTTP}/0/path", "nothing below it", "write /v1/.*"),
    (http_rule({"path": "/a|/v1/"}), f"{HTTP}/0/path", "nothing below it", ""),
    (http_rule({"path": "/v1/*"}), f"{HTTP}/0/path", "no globs", "write /v1/.*"),
    (http_rule({"path": "/jobs?page=[0-9]+"}), f"{HTTP}/0/path", "optional", r"write \?"),
    (http_rule({"path": "/jobs/[0-9]+"}, {"path": "/jobs/.*"}), f"{HTTP}/0", "http[1] matches all", ""),
    (
        http_rule({"path": "/jobs/.*"}, {"path": "/jobs/1/x", "method": "GET"}),
        f"{HTTP}/1",
        "http[0] matches all",
        "",
    ),
    (
        rule(ingress=[TWEETS, TWEETS | {"toPorts": PORT_80}]),
        "/0/ingress/1/toPorts/0",
        "decides nothing: */f0[0]#ingress[0] allows all",
        "",
    ),
    ([rule(ingress=[TWEETS]), rule(ingress=[TWEETS])], "/1/ingress/0", "decides nothing", ""),
    (
        rule(ingressDeny=[{"fromEntities": ["all"]}, TWEETS]),
        "/0/ingressDeny/1",
        "ingressDeny[0] denies all",
        "",
    ),
    (http_rule({"path": "jobs/.*"}), f"{HTTP}/0/path", "matches no path", ""),
    (http_rule({"host": "api.example.com"}), f"{HTTP}/0/host", "match any character", r"write \."),
    (http_rule({"host": "^external-service.org$"}), f"{HTTP}/0/host", "match any character", ""),
    (http_rule({"method": "get"}), f"{HTTP}/0/method", "upper case", ""),
    (
        http_rule({"path": "/a"}, {"path": "/a"}),
        f"{HTTP}/1",
        "decides nothing: */f0[0]#ingress[0].toPorts[0].http[0]",
        "",
    ),
    (http_rule({"path": "/a", "method": "GET"}, {"path": "/a"}), f"{HTTP}/0", "http[1] matches all", ""),
    (http_rule({"path": "/a", "headers": ["X"]}, {"path": "/.*"}), f"{HTTP}/0", "http[1] matches all", ""),
    (http_rule({}, {"host": "a"}), f"{HTTP}/1", "http[0] matches all", ""),
    (
        [http_rule({"path": "/a"}, **TWEETS), rule(ingress=[TWEETS])],
        "/0/ingress/0/toPorts/0",
        "not judged here: */f0[1]#ingress[0] allows",
        "http rules too",
    ),
    (
        [http_rule({"path": "/a"}), rule(ingress=[TWEETS | {"toPorts": PORT_80}])],
        "/0/ingress/0/toPorts/0",
        "not judged here",
        "",
    ),
    (
        [http_rule({"path": "/a"}), rule(ingressDeny=[{"toPorts": PORT_80}])],
        "/0/ingress/0/toPorts/0",
        "allows nothing: */f0[1]#ingressDeny[0].toPorts[0] denies all",
        "",
    ),
    (rule(ingress=[{"toPorts": []}]), "/0/ingress/0/toPorts", "every port", "leave it out"),
    (
        [http_rule({"path": "/a"}, **TWEETS), rule(endpointSelector={}, ingress=[{"fromEndpoints": [{}]}])],
        "/0/ingress/0/toPorts/0",
        "requests are not judged here: */f0[1]#ingress[0]",
        "",
    ),
    (
        [http_rule({"path": "/a"}), rule(ingress=[TWEETS])],
        "/0/ingress/0/toPorts/0",
        "requests of some peers or ports are not judged here",
        "",
    ),
    ([http_rule({"path": "/a"}), http_rule({"path": "/.*"})], HTTP + "/0", "[1]#ingress[0]", "matches all"),
    (
        [http_rule({"path": "/a"}), http_rule({"path": "/a"})],
        "/1" + HTTP[2:] + "/0",
        "*/f0[0]",
        "matches all",
    ),
    ([http_rule({}), http_rule({"path": "/a"}, **TWEETS)], "/1" + HTTP[2:] + "/0", "*/f0[0]", "matches all"),
    (
        [http_rule({"path": "/a"}), http_rule({}) | {"endpointSelector": {}}],
        HTTP + "/0",
        "*/f0[1]#ingress[0].toPorts[0].http[0] matches all",
        "",
    ),
    (
        cnp({"endpointSelector": {}, "ingress": [{"fromEndpoints": [{}]}, TWEETS | {"toPorts": PORT_80}]}),
        "/spec/ingress/1/toPorts/0",
        "decides nothing: hr/jobs#ingress[0] allows all",
        "",
    ),
    (
        rule(ingress=[{"fromCIDR": ["10.0.0.0/8"]}, {"fromCIDRSet": [EXCEPT]}]),
        "/0/ingress/1",
        "ingress[0] allows all",
        "",
    ),
    (
        rule(ingress=[{"fromEndpoints": [{"matchLabels": {"app": "a"}}]}, {"fromEndpoints": [FRONT_OF_A]}]),
        "/0/ingress/1",
        "ingress[0] allows all",
        "",
    ),
]


@pytest.mark.parametrize(("document", "pointer", "message", "mend"), WARNED)
def test_warned(document: Any, pointer: str, message: str, mend: str) -> None:
    """One warning, at its place, with what to write instead; never an error."""
    loaded = load(document)
    assert not loaded.errors
    assert [warning.pointer for warning in loaded.warnings] == [pointer]
    assert message in loaded.warnings[0].message
    assert mend in f"{loaded.warnings[0].message} {loaded.warnings[0].mend}"


@pytest.mark.parametrize(
    "document",
    [
        http_rule({"path": "/"}),
        http_rule({"path": "/v1/.*", "host": r".*\.example\.com", "method": "GET|HEAD"}),
        http_rule({"path": "/a", "headers": ["A"]}, {"path": "/a", "headers": ["B"]}),
        http_rule({"path": "/a", "method": "GET"}, {"path": "/a", "method": "PUT"}),
        http_rule({"path": "/a"}, {"path": "/a", "headerMatches": [{"name": "A", "mismatch": "LOG"}]}),
        http_rule({"path": ".*x"}),
        http_rule({"path": "/jobs.*", "method": "GET"}, {"path": "/jobs/1"}),
        http_rule({"path": "/jobs/.*"}, {"path": "/jobs"}, {"path": "/job.*", "host": "a"}),
        http_rule({"path": r"/jobs(\?page=[0-9]+)?"}, {"path": r"/a\?b=c"}, {"path": "/v1/$"}),
        rule(ingress=[TWEETS | {"toPorts": PORT_80}, TWEETS | {"toPorts": [{"ports": [{"port": "81"}]}]}]),
        [rule(ingress=[TWEETS], kproxy={"mode": "audit"}), rule(ingress=[TWEETS | {"toPorts": PORT_80}])],
        [http_rule({"path": "/a"}), rule(ingress=[TWEETS | {"toPorts": [{"ports": [{"port": "81"}]}]}])],
        [http_rule({"path": "/a"}), rule(ingressDeny=[TWEETS])],
        [http_rule({"path": "/.*"}, **TWEETS), http_rule({"path": "/a"})],
        [http_rule({}, kproxy={"mode": "audit"}), http_rule({"path": "/a"})],
        rule(
            ingress=[{"fromCIDR": ["10.1.0.0/16"]}, {"fromCIDRSet": [EXCEPT | {"except": ["10.2.0.0/16"]}]}]
        ),
        rule(
            ingress=[{"fromCIDRSet": [EXCEPT | {"except": ["10.2.0.0/16"]}]}, {"fromCIDR": ["10.2.0.0/15"]}]
        ),
    ],
)
def test_not_warned(document: Any) -> None:
    """What people mean is not warned about."""
    assert load(document).warnings == ()


@pytest.mark.parametrize(
    ("own", "decided"),
    [
        ([{"pathPrefix": "/a"}, {"pathExact": "/a"}], 1),
        ([{"pathPrefix": "/a"}, {"pathPrefix": "/a/b"}], 1),
        ([{"pathPrefix": "/a"}, {"path": "/a/[0-9]+"}], 1),
        ([{"path": "/a.*"}, {"pathPrefix": "/ab"}], 1),
        ([{"pathPrefix": "/a"}, {"path": "/a[0-9]+"}], None),
        ([{"pathPrefix": "/a"}, {"pathExact": "/ab"}], None),
        ([{"pathPrefix": "/a/b"}, {"pathExact": "/a"}], None),
    ],
)
def test_what_prefixes_cover(own: list[dict[str, Any]], decided: int | None) -> None:
    """Whole elements, in kproxy's own rules too."""
    ports = [PORT_80[0] | {"rules": {"kproxy": {"http": own}}}]
    pointers = [one.pointer.rpartition("/")[2] for one in load(rule(ingress=[{"toPorts": ports}])).warnings]
    assert pointers == ([] if decided is None else [str(decided)])


def test_what_nothing_is_like() -> None:
    """Once it is known who is there: selectors of no one, and port names of nothing."""
    absent = {"endpointSelector": {"matchLabels": {"app": "absent"}}, "ingress": [{}]}
    peers = rule(ingress=[{"fromEndpoints": [{"matchLabels": {"app": "nobody"}}]}])
    named = rule(ingress=[{"toPorts": [{"ports": [{"port": "metrics"}]}]}])
    messages = [warning.message for warning in compiled(cnp(absent), [peers, named]).warnings]
    assert [message.partition(":")[0] for message in messages] == [
        "selects no endpoint",
        "no known peer has the labels app=nobody",
        "nothing has a port named metrics",
    ]
    fine = rule(ingress=[TWEETS, {"fromEntities": ["remote-node"]}, {"fromEndpoints": [{}]}])
    assert not policy.lint_world(rules_of(fine), WORKLOADS)
