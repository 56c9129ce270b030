"""Policies that the Cilium project publishes: each accepted with the meaning of its text, or refused by name."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest
from rules_world import get

import policy
from policy import TCP, UDP, Action, Node, Workload

DATA = Path(__file__).parent / "data"

# Why each refused file is refused: parts of the messages, one for each error, in order.
REFUSED = {
    "connectivity-client-egress-l7-http-external-node.yaml": ["no DNS", "neither a port"],
    "connectivity-client-egress-l7-http-matchheader-secret-port-range.yaml": [
        "label value",
        "label value",
        "of a namespace",
    ],
    "connectivity-client-egress-l7-http-matchheader-secret.yaml": [
        "label value",
        "label value",
        "of a namespace",
    ],
    "connectivity-client-egress-l7-http-named-port.yaml": ["label value", "label value", "no DNS"],
    "connectivity-client-egress-l7-http-port-range.yaml": ["label value", "label value", "no DNS"],
    "connectivity-client-egress-l7-http.yaml": ["label value", "label value", "no DNS"],
    "connectivity-client-egress-to-fqdns-and-http-get.yaml": ["object name", "no DNS"],
    "connectivity-echo-ingress-from-client-tiered-wildcard-pass-l7.yaml": ["tiers", "namespace name"],
    "examples-http-legacy.json": ["HTTP is not a field"],
    "examples-http.yaml": ["HTTP is not a field"],
    "examples-kafka-Role.yaml": ["kafka"],
    "examples-kafka-legacy.json": ["kafka"],
    "examples-kafka-role.json": ["kafka"],
    "examples-kafka.yaml": ["kafka"],
    "getting-started-dkr_demo_l7.json": ["HTTP is not a field"],
    "getting-started-kafka.yaml": ["kafka"],
    "hubble-l7_80_53.yaml": ["DNS rules"],
    "kubernetes-kafka-sw-security-policy.yaml": ["kafka"] * 3,
    "test-l7-policy-TLS.yaml": [
        *("DNS rules", "no DNS", "not intercepted", "not intercepted"),
        *("DNS rules", "no DNS", "not intercepted", "not intercepted"),
    ],
    "test-l7-policy-kafka.yaml": ["kafka"],
}

# What an accepted file says: the endpoint's labels, the peer's, direction, port, request (None: connection
# only), and whether it may pass.
OUTSIDE = "external-service.org"
TOKEN = ("X-Very-Secret-Token", "42")
CLIENT = ({"kind": "client"}, {"kind": "echo"}, "egress")
ECHO_FROM_ANY = ({"kind": "echo"}, {"any": "one"}, "ingress")
ECHO_FROM_OTHER = ({"kind": "echo"}, {"other": "client"}, "ingress")
METHOD = ({"other": "client"}, {"kind": "echo"}, "egress")
DOORS = ({"app": "cc-door-mgr"}, {"app": "public-terminal"}, "ingress")
SECRET_ECHO = [
    (*ECHO_FROM_OTHER, 8080, get("/"), True),
    (*ECHO_FROM_OTHER, 8080, get("/public"), True),
    (*ECHO_FROM_OTHER, 8080, get("/private"), False),
    (*ECHO_FROM_OTHER, 8080, get("/private", TOKEN), True),
    (*ECHO_FROM_ANY, 8080, get("/"), False),
    (*ECHO_FROM_OTHER, 8081, get("/"), False),
]
SAID = {
    "connectivity-client-egress-l7-http-from-any.yaml": [
        (*CLIENT, 8080, get("/"), True),
        (*CLIENT, 8080, get("/x"), False),
        (*CLIENT, 8080, get("/", method="POST"), False),
        ({"kind": "client"}, {"kind": "other"}, "egress", 8080, get("/"), False),
    ],
    "connectivity-client-egress-l7-http-method-port-range.yaml": [
        (*METHOD, 4096, get("/public", method="POST"), True),
        (*METHOD, 8191, get("/private", method="POST"), True),
        (*METHOD, 8192, get("/private", method="POST"), False),
        (*METHOD, 5000, get("/private"), False),
    ],
    "connectivity-client-egress-l7-http-method.yaml": [
        (*METHOD, 8080, get("/public", method="POST"), True),
        (*METHOD, 8080, get("/public"), False),
        (*METHOD, 8080, get("/public/x", method="POST"), False),
    ],
    "connectivity-echo-ingress-l7-http-from-anywhere-port-range.yaml": [
        (*ECHO_FROM_ANY, 4096, get("/"), True),
        (*ECHO_FROM_ANY, 4095, get("/"), False),
        (*ECHO_FROM_ANY, 8191, get("/x"), False),
    ],
    "connectivity-echo-ingress-l7-http-from-anywhere.yaml": [
        (*ECHO_FROM_ANY, 8080, get("/"), True),
        (*ECHO_FROM_ANY, 8080, get("/x"), False),
        (*ECHO_FROM_ANY, 80, get("/"), False),
    ],
    "connectivity-echo-ingress-l7-http-named-port.yaml": SECRET_ECHO,
    "connectivity-echo-ingress-l7-http.yaml": SECRET_ECHO,
    "examples-l7_multi.yaml": [
        ({"app": "service"}, {"env": "prod"}, "ingress", 80, get("/public"), True),
        ({"app": "service"}, {"env": "prod"}, "ingress", 80, get("/secret"), False),
        ({"app": "service"}, {"env": "test"}, "ingress", 80, get("/public"), False),
        (
            {"env": "prod"},
            {"any": "one"},
            "egress",
            80,
            get("/", method="POST", host=OUTSIDE),
            True,
        ),
        ({"env": "prod"}, {"any": "one"}, "egress", 80, get("/", host=OUTSIDE), False),
        ({"env": "prod"}, {"any": "one"}, "egress", 80, get("/", method="POST", host="evil.org"), False),
    ],
    "examples-l7-simple.yaml": [
        ({"app": "service"}, {"env": "prod"}, "ingress", 80, get("/secret", method="POST"), True),
        ({"app": "service"}, {"env": "prod"}, "ingress", 443, get("/"), True),
        ({"app": "service"}, {"env": "test"}, "ingress", 80, get("/public"), True),
        ({"app": "service"}, {"env": "test"}, "ingress", 80, get("/secret"), False),
        ({"app": "service"}, {"env": "test"}, "ingress", 443, get("/public"), False),
    ],
    "getting-started-l7-policy.yaml": [
        ({"id": "web-server"}, {"id": "goodclient"}, "ingress", 8181, get("/public"), True),
        ({"id": "web-server"}, {"id": "goodclient"}, "ingress", 8181, get("/private"), False),
        ({"id": "web-server"}, {"id": "badclient"}, "ingress", 8181, get("/public"), False),
    ],
    "grpc-cc-door-ingress-security.yaml": [
        (*DOORS, 50051, get("/cloudcity.DoorManager/GetName", method="POST"), True),
        (*DOORS, 50051, get("/cloudcity.DoorManager/GetLocation", method="POST"), True),
        (*DOORS, 50051, get("/cloudcity.DoorManager/SetAccessCode", method="POST"), False),
    ],
    "test-l7-policy-demo.yaml": [
        ({"zgroup": "testDS"}, {"any": "one"}, "ingress", 80, get("/anything", method="PURGE"), True),
        ({"zgroup": "testDS"}, {"any": "one"}, "ingress", 81, get("/"), False),
        ({"zgroup": "testDS"}, {"any": "one"}, "ingress", 69, None, True),
        ({"zgroup": "testDS"}, {"any": "one"}, "ingress", 70, None, False),
    ],
    "test-l7-policy.yaml": [
        ({"id": "app1"}, {"id": "app2"}, "ingress", 80, get("/public"), True),
        ({"id": "app1"}, {"id": "app2"}, "ingress", 80, get("/public", method="PUT"), False),
        ({"id": "app1"}, {"id": "app3"}, "ingress", 80, get("/public"), False),
    ],
}


def test_every_file_is_spoken_of() -> None:
    """No example is left out of either table."""
    assert {path.name for path in DATA.iterdir()} - {"README.md"} == set(REFUSED) | set(SAID)
    assert not set(REFUSED) & set(SAID)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused(name: str) -> None:
    """Each error has its line and pointer, and names what is refused."""
    loaded = policy.load([(name, (DATA / name).read_text())])
    assert all(error.line and error.pointer for error in loaded.errors)
    assert len(loaded.errors) == len(REFUSED[name])
    for error, part in zip(loaded.errors, REFUSED[name], strict=True):
        assert part in error.message


@pytest.mark.parametrize("name", sorted(SAID))
def test_said(name: str) -> None:
    """Each connection and request gets the verdict that the text of the policy gives it."""
    loaded = policy.load([(name, (DATA / name).read_text())])
    assert not loaded.errors
    for own, other, direction, port, request, passes in SAID[name]:
        ports = {"http-8080": 8080}
        endpoint = Workload("endpoint", "default", own, (ip_address("10.0.0.1"),), ports, local=True)
        peer = Workload("peer", "default", other, (ip_address("10.0.0.2"),), ports)
        revision = policy.compile(loaded.rules, (endpoint, peer), Node(), 1)
        side = getattr(revision.endpoint("default", "endpoint"), direction)
        number = revision.identity_of("default", "peer").number
        verdict = side.decide(number, UDP if request is None else TCP, port)
        allowed = verdict.action is Action.PASS
        if verdict.action is Action.REDIRECT:
            allowed = side.http(number, port).judge(request).allowed
        assert allowed is passes, (own, other, direction, port, request)
