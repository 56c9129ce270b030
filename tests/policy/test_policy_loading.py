"""Text into rules: what is accepted, and for everything else where it stands, what is wrong and how to mend it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rules_world import cnp, http_rule, load, np, rule, rules_of

import policy
from policy.text import JsonLines

HTTP = "/0/ingress/0/toPorts/0/rules/http/0"
PORT = "/0/ingress/0/toPorts/0/ports/0"


def to_ports(**fields: Any) -> dict[str, Any]:
    """A rule with one toPorts entry."""
    entry = {"ports": [{"port": "80", "protocol": "TCP"}]} | fields
    return rule(ingress=[{"toPorts": [entry]}])


def port(**fields: Any) -> dict[str, Any]:
    """A rule with one port."""
    return to_ports(ports=[{"port": "80", "protocol": "TCP"} | fields])


def ingress(**fields: Any) -> dict[str, Any]:
    """A rule with one ingress rule."""
    return rule(ingress=[fields])


GROUP = {"cidr": "1.0.0.0/8", "cidrGroupRef": "g"}
LABELS = "/0/ingress/0/fromEndpoints/0/matchLabels"
CLUSTERWIDE = "CiliumClusterwideNetworkPolicy"
REFUSED = [
    # What is misspelt, with the word that was meant.
    (rule(ingress=[{}], ingres=[{}]), "/0/ingres", "not a field", "did you mean ingress?"),
    (
        to_ports(rules={"HTTP": [{}]}),
        "/0/ingress/0/toPorts/0/rules/HTTP",
        "not a field",
        "did you mean http?",
    ),
    (http_rule({"Method": "GET"}), f"{HTTP}/Method", "not a field", "did you mean method?"),
    (http_rule({"methods": "GET"}), f"{HTTP}/methods", "not a field", "GET|HEAD"),
    (http_rule({"pathPrefix": "/"}), f"{HTTP}/pathPrefix", "not a field", "rules.kproxy.http"),
    (ingress(toEndpoints=[{}]), "/0/ingress/0/toEndpoints", "not a field", "did you mean fromEndpoints?"),
    (ingress(fromEntities=["words"]), "/0/ingress/0/fromEntities/0", "not known", "did you mean world?"),
    ({"endpointSelector": {"labels": {}}, "ingress": [{}]}, "/0/endpointSelector/labels", "", "matchLabels"),
    # What Cilium has and kproxy has not, each with its sentence.
    (rule(egress=[{"toFQDNs": [{}]}]), "/0/egress/0/toFQDNs", "sees no DNS answers", "toCIDR"),
    (rule(egress=[{"toServices": [{}]}]), "/0/egress/0/toServices", "knows no Services", "toEndpoints"),
    (ingress(fromRequires=[{}]), "/0/ingress/0/fromRequires", "removed from Cilium", ""),
    (ingress(fromNodes=[{}]), "/0/ingress/0/fromNodes", "node selectors", "remote-node"),
    (ingress(fromGroups=[{}]), "/0/ingress/0/fromGroups", "groups of cloud providers", ""),
    (ingress(icmps=[{}]), "/0/ingress/0/icmps", "TCP and UDP only", "ICMP"),
    (ingress(authentication={}), "/0/ingress/0/authentication", "mutual authentication", ""),
    (to_ports(terminatingTLS={}), "/0/ingress/0/toPorts/0/terminatingTLS", "not intercepted", ""),
    (to_ports(listener={}), "/0/ingress/0/toPorts/0/listener", "no Envoy", ""),
    (to_ports(serverNames=["a"]), "/0/ingress/0/toPorts/0/serverNames", "server names", ""),
    (to_ports(rules={"dns": [{}]}), "/0/ingress/0/toPorts/0/rules/dns", "DNS rules", "port 53"),
    (to_ports(rules={"kafka": [{}]}), "/0/ingress/0/toPorts/0/rules/kafka", "kafka rules", ""),
    (to_ports(rules={"l7proto": "x"}), "/0/ingress/0/toPorts/0/rules/l7proto", "proxylib", ""),
    (port(protocol="SCTP"), f"{PORT}/protocol", "TCP and UDP only", ""),
    (rule(nodeSelector={}, ingress=[{}]), "/0/nodeSelector", "host policies", ""),
    (
        ingress(fromCIDRSet=[GROUP]),
        "/0/ingress/0/fromCIDRSet/0/cidrGroupRef",
        "",
        "",
    ),
    # Values that are not what they must be.
    (port(port=80), f"{PORT}/port", "must be a string, not a number", 'write "80" in quotes'),
    (port(port="65536"), f"{PORT}/port", "neither a port", ""),
    (port(port="080"), f"{PORT}/port", "neither a port", ""),
    (port(port="a-name-that-is-long"), f"{PORT}/port", "neither a port", ""),
    (port(endPort=79), f"{PORT}/endPort", "before port 80", ""),
    (port(port="http", endPort=90), f"{PORT}/endPort", "needs a port number", ""),
    (port(port="0", endPort=90), f"{PORT}/endPort", "needs a port number", ""),
    (port(endPort=True), f"{PORT}/endPort", "whole number", ""),
    (to_ports(ports=[]), "/0/ingress/0/toPorts/0/ports", "is empty", ""),
    (to_ports(ports=[{}]), PORT, "port is missing", ""),
    (ingress(fromCIDR=["10.0.0.0/33"]), "/0/ingress/0/fromCIDR/0", "not a CIDR", ""),
    (ingress(fromCIDR=["10.0.0.0/255.0.0.0"]), "/0/ingress/0/fromCIDR/0", "not a CIDR", ""),
    (ingress(fromCIDR=["::ffff:10.0.0.0/104"]), "/0/ingress/0/fromCIDR/0", "IPv4 written as IPv6", ""),
    (ingress(fromCIDRSet=[{"cidr": "10.0.0.1"}]), "/0/ingress/0/fromCIDRSet/0/cidr", "prefix length", ""),
    (
        ingress(fromCIDRSet=[{"cidr": "10.0.0.0/8", "except": ["11.0.0.0/9"]}]),
        "/0/ingress/0/fromCIDRSet/0/except/0",
        "does not lie in",
        "",
    ),
    (ingress(fromEndpoints=None), "/0/ingress/0/fromEndpoints", "null", "leave it out"),
    (ingress(fromEndpoints={}), "/0/ingress/0/fromEndpoints", "must be a list", ""),
    (
        ingress(fromEndpoints=[{"matchLabels": {"a b": "c"}}]),
        f"{LABELS}/a b",
        "label key",
        "",
    ),
    (
        ingress(fromEndpoints=[{"matchLabels": {"a": 1}}]),
        f"{LABELS}/a",
        "a string",
        '"1"',
    ),
    (
        ingress(fromEndpoints=[{"matchExpressions": [{"key": "a", "operator": "In"}]}]),
        "/0/ingress/0/fromEndpoints/0/matchExpressions/0",
        "In needs values",
        "",
    ),
    (
        ingress(fromEndpoints=[{"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}]),
        "/0/ingress/0/fromEndpoints/0/matchExpressions/0/values",
        "takes no values",
        "",
    ),
    (
        rule(enableDefaultDeny={"ingress": "no"}, ingress=[{}]),
        "/0/enableDefaultDeny/ingress",
        "true or false",
        "",
    ),
    # HTTP rules.
    (http_rule(), "/0/ingress/0/toPorts/0/rules/http", "is empty", ""),
    (to_ports(rules={}), "/0/ingress/0/toPorts/0/rules", "names no rules", ""),
    (to_ports(rules={"kproxy": {}}), "/0/ingress/0/toPorts/0/rules/kproxy", "names no rules", ""),
    (http_rule({"path": "("}), f"{HTTP}/path", "not an RE2 pattern", ""),
    (http_rule({"path": "(?=x)"}), f"{HTTP}/path", "not an RE2 pattern", ""),
    (http_rule({"path": "/ü"}), f"{HTTP}/path", "percent-encoded", ""),
    (http_rule({"path": "x{999}y{999}"}), f"{HTTP}/path", "instructions", ""),
    (http_rule({"headers": ["X-A:b"]}), f"{HTTP}/headers/0", "whole name", ""),
    (http_rule({"headers": ["X A: b"]}), f"{HTTP}/headers/0", "must be a header", ""),
    (
        http_rule({"headerMatches": [{"name": "A", "mismatch": "ADD"}]}),
        f"{HTTP}/headerMatches/0",
        "needs a value",
        "",
    ),
    (
        http_rule({"headerMatches": [{"name": "Host", "mismatch": "REPLACE", "value": "x"}]}),
        f"{HTTP}/headerMatches/0/name",
        "frames or routes",
        "",
    ),
    (
        http_rule({"headerMatches": [{"name": "Content_Length", "mismatch": "DELETE"}]}),
        f"{HTTP}/headerMatches/0/name",
        "frames or routes",
        "",
    ),
    (
        http_rule({"headerMatches": [{"name": "A", "value": "s3cret\r\nB: c"}]}),
        f"{HTTP}/headerMatches/0/value",
        "the value is not a header value (visible ASCII, blanks inside, no line breaks)",
        "",
    ),
    (
        http_rule({"headerMatches": [{"name": "A", "value": "x" * 8193}]}),
        f"{HTTP}/headerMatches/0/value",
        "the value is longer than 8192 bytes",
        "",
    ),
    (
        http_rule({"headerMatches": [{"name": "A", "value": 1234567}]}),
        f"{HTTP}/headerMatches/0/value",
        "must be a string, not a number",
        "in quotes",
    ),
    (
        http_rule({"headerMatches": [{"name": "A", "secret": {"name": "../shadow"}}]}),
        f"{HTTP}/headerMatches/0/secret/name",
        "is not the name of a secret",
        "",
    ),
    (
        http_rule({"headerMatches": [{"name": "A", "secret": {"name": "t", "namespace": "a/b"}}]}),
        f"{HTTP}/headerMatches/0/secret/namespace",
        "is not the name of a namespace",
        "",
    ),
    (
        cnp(
            {
                "endpointSelector": {},
                "ingress": http_rule(
                    {"headerMatches": [{"name": "A", "secret": {"name": "t", "namespace": "ops"}}]}
                )["ingress"],
            }
        ),
        "/spec/ingress/0/toPorts/0/rules/http/0/headerMatches/0/secret/namespace",
        "a policy in hr cannot use a secret of ops",
        "CiliumClusterwideNetworkPolicy",
    ),
    (
        to_ports(ports=[{"port": "80"}], rules={"http": [{}]}),
        "/0/ingress/0/toPorts/0/ports/0",
        "http rules are for TCP",
        "",
    ),
    (
        to_ports(ports=[{"port": "0", "protocol": "TCP"}], rules={"http": [{}]}),
        "/0/ingress/0/toPorts/0/ports/0",
        "all ports",
        "",
    ),
    # Fields that cannot stand together.
    (ingress(fromEndpoints=[{}], fromCIDR=["1.0.0.0/8"]), "/0/ingress/0", "cannot stand in one rule", ""),
    (rule(), "/0", "has no rules", ""),
    (rule(ingress=[]), "/0", "has no rules", ""),
    ({"ingress": [{}]}, "/0", "endpointSelector is missing", ""),
    ({"kind": 3}, "", "has no kind", "CiliumNetworkPolicy"),
    # Objects.
    (cnp({}), "", "has no spec", ""),
    (cnp({}) | {"specs": [rule(ingress=[{}])]}, "/spec", "is empty beside specs", "leave it out"),
    (cnp(rule(ingress=[{}])) | {"apiVersion": "cilium.io/v1"}, "/apiVersion", "must be cilium.io/v2", ""),
    (
        cnp(rule(ingress=[{}])) | {"kind": "CiliumNetworkPolicies"},
        "/kind",
        "not a kind",
        "CiliumNetworkPolicy",
    ),
    (cnp(rule(ingress=[{}])) | {"Description": "x"}, "/Description", "not a field", "mean description?"),
    (
        cnp(rule(ingress=[{}])) | {"description": 1},
        "/description",
        "must be a string",
        '"1"',
    ),
    # kproxy's own fields, where they do not stand.
    (rule(ingress=[{}], mode="audit"), "/0/mode", "not a field", "kproxy: {mode"),
    (rule(ingress=[{}], audit=True), "/0/audit", "not a field", "kproxy: {mode: audit}"),
    (np({"ingressDeny": [{}]}), "/spec/ingressDeny", "not a field", "no deny rules"),
    # Lists of objects.
    ([cnp(rule(ingress=[{}])), rule(ingress=[{}])], "/1", "in a list of objects", "a kind and a spec"),
    (
        {"kind": "NetworkPolicyList", "items": [cnp(rule(ingress=[{}]))]},
        "/items/0/kind",
        "stands in a NetworkPolicyList",
        "or a List",
    ),
    (
        {"kind": "List", "items": [{"kind": "List", "items": [np({})]}]},
        "/items/0",
        "a list in a list",
        "outer list",
    ),
    ({"kind": "List", "items": [[rule(ingress=[{}])]]}, "/items/0", "must be an object", ""),
    (cnp(rule(ingress=[{}])) | {"kind": "ClusterNetworkPolicy"}, "/kind", "tiers", ""),
    (cnp(rule(ingress=[{}]), name="a/b"), "/metadata/name", "not an object name", ""),
    (
        cnp(rule(ingress=[{}])) | {"kind": "CiliumClusterwideNetworkPolicy"},
        "/metadata/namespace",
        "no namespace",
        "",
    ),
    (
        cnp({"endpointSelector": {"matchLabels": {"k8s:io.kubernetes.pod.namespace": "x"}}, "ingress": [{}]}),
        "/spec/endpointSelector",
        "its own namespace",
        "",
    ),
    (np({"podSelector": {}, "ingress": [{"from": [{}]}]}), "/spec/ingress/0/from/0", "empty peer", ""),
    (
        np(
            {
                "podSelector": {},
                "ingress": [{"from": [{"podSelector": {}, "ipBlock": {"cidr": "1.0.0.0/8"}}]}],
            }
        ),
        "/spec/ingress/0/from/0",
        "stands alone",
        "",
    ),
    (
        np({"ingress": [{"ports": [{"port": "80"}]}]}),
        "/spec/ingress/0/ports/0/port",
        "without quotes",
        "",
    ),
    (
        np({"ingress": [{"ports": [{"protocol": "SCTP"}]}]}),
        "/spec/ingress/0/ports/0/protocol",
        "SCTP",
        "",
    ),
    (np({"podSelector": {}, "policyTypes": ["Ingress"], "egress": [{}]}), "/spec/egress", "policyTypes", ""),
    (np({"endpointSelector": {}}), "/spec/endpointSelector", "not a field", "podSelector"),
    (
        np({"podSelector": {"matchLabels": {"k8s:app": "x"}}}),
        "/spec/podSelector/matchLabels/k8s:app",
        "not a label key",
        "",
    ),
]


@pytest.mark.parametrize(("document", "pointer", "message", "mend"), REFUSED)
def test_refused_by_name(document: Any, pointer: str, message: str, mend: str) -> None:
    """One thing wrong: one error, at its place, that says what and how to mend it; and no rule of it."""
    loaded = load(document)
    assert [(error.file, error.pointer) for error in loaded.errors] == [("f0.json", pointer)]
    assert message in loaded.errors[0].message
    assert mend in f"{loaded.errors[0].message} {loaded.errors[0].mend}"
    assert loaded.rules == ()


def test_all_errors_of_all_files_at_once() -> None:
    """Nothing hides behind the first error, not even what only shows when fields are compared."""
    broken = rule(
        ingress=[
            {"fromEndpoints": [{}], "fromCIDR": ["1.0.0.0/8"], "toPort": []},
            {"toPorts": [{"ports": [{"port": "80"}, {"port": 81}], "rules": {"http": [{"path": "("}]}}]},
        ]
    )
    loaded = load(broken, cnp(rule(egres=[])), http_rule({}))
    assert [(error.file, error.pointer) for error in loaded.errors] == [
        ("f0.json", "/0/ingress/0/toPort"),
        ("f0.json", "/0/ingress/0"),
        ("f0.json", "/0/ingress/1/toPorts/0/ports/1/port"),
        ("f0.json", "/0/ingress/1/toPorts/0/rules/http/0/path"),
        ("f0.json", "/0/ingress/1/toPorts/0/ports/0"),
        ("f1.json", "/spec/egres"),
        ("f1.json", "/spec"),
    ]
    assert len(loaded.rules) == 1


YAML = """\
# rules of the jobs API
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata:
  name: jobs
  creationTimestamp: null
spec:
  endpointSelector: {matchLabels: {app: jobs-api}}
  ingress:
  - toPorts:
    - ports:
      - port: "80"
        protocol: TCP
      rules:
        http:
        - method: GET
          pth: /jobs
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: jobs, namespace: hr}
spec:
  podSelector: {}
"""


def test_yaml_of_many_documents() -> None:
    """Pointers begin with the number of the document; lines are those of the file."""
    loaded = policy.load([("jobs.yaml", YAML)])
    assert [(e.line, e.pointer) for e in loaded.errors] == [
        (17, "/0/spec/ingress/0/toPorts/0/rules/http/0/pth")
    ]
    mended = policy.load([("jobs.yaml", YAML.replace("pth", "path"))])
    assert [one.name for one in mended.rules] == ["default/jobs", "hr/jobs"]
    assert mended.rules[0].ingress.allow[0].ports[0].http[0].place.line == 16  # type: ignore[index]


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 100_000, "- " * 100_000, "? " * 100_000])
def test_yaml_whose_nesting_would_overflow_the_stack(text: str) -> None:
    """It is refused before it is composed: the composer recurses without a bound, and would end the process."""
    (error,) = policy.load([("x.yaml", text)]).errors
    assert (error.line, error.message) == (1, "nested too deeply to be a policy")


def test_yaml_with_many_brackets_is_read() -> None:
    """Many brackets beside each other are no nesting."""
    items = ", ".join(["{a: [1]}"] * 2000)
    errors = policy.load([("x.yaml", f"[{items}]")]).errors
    assert len([one for one in errors if one.message.startswith("a is not a field")]) == 2000


BOMB = "b0: &b0 [1]\n" + "".join(f"b{i}: &b{i} [{', '.join([f'*b{i - 1}'] * 9)}]\n" for i in range(1, 9))


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: [", 2, "not YAML"),
        ("a: 1\na: 2", 2, "written twice"),
        ("port: 0777", 1, "differently"),
        ("port: 22:22", 1, "differently"),
        ("day: 2026-01-01", 1, "differently"),
        ("on: x", 1, "not a string"),
        ("<<: {a: b}", 1, "merge keys"),
        ("a: !!binary aGk=", 1, "tag"),
        ("a: &x [*x]", 1, "nested too deeply"),
        (BOMB, 0, "too many"),
        ("\x00", 0, "not YAML"),
    ],
)
def test_yaml_that_readers_could_disagree_on(text: str, line: int, message: str) -> None:
    """Doubled keys, guessed values, tags, and texts that grow without end are refused."""
    errors = policy.load([("x.yaml", f"kind: CiliumNetworkPolicy\n{text}\n")]).errors
    found = [error for error in errors if message in error.message]
    assert found, errors
    assert not line or found[0].line == line + 1


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("[\n{]", 2, "not JSON"),
        ('[\n {"endpointSelector": {},\n "ingress": [{}],\n "ingress": [{}]}]', 4, "written twice"),
        ("[NaN]", 0, "NaN is not JSON"),
        ('[\n{"x": ' + "9" * 10_000 + "}]", 2, "x is not a field"),
        ("[" * 100_000, 0, "too deeply"),
        ('["\\ud83d\\ude00"]', 1, "object, not a string"),
        ('["\\ude00\\ud83d"]', 0, "half a character"),
        ("3", 1, "must be an object or a list"),
        ("", 1, "not JSON"),
    ],
)
def test_json_that_is_none(text: str, line: int, message: str) -> None:
    """Syntax errors have their line; doubled keys are errors, as only one could count."""
    errors = policy.load([("x.json", text)]).errors
    assert [error.line for error in errors if message in error.message] == [line]


def test_names_of_rules() -> None:
    """A rule is named by its place: specs, clusterwide policies, lists, and the classic list with labels."""
    spec = rule(ingress=[{}, {"toPorts": [{"ports": [{"port": "80"}]}]}])
    clusterwide = cnp(spec) | {"kind": "CiliumClusterwideNetworkPolicy", "metadata": {"name": "all"}}
    several = cnp({}) | {"specs": [spec, spec]}
    several.pop("spec")
    labelled = spec | {"labels": [{"key": "name", "value": "jobs-rule"}]}
    listed = {
        "apiVersion": "v1",
        "kind": "List",
        "items": [np({"ingress": [{"ports": [{}]}]}, "np")],
    }
    loaded = rules_of(clusterwide, several, [spec, labelled], listed)
    names = [one.ingress.allow[-1].ports[0].name for one in loaded]  # type: ignore[index]
    assert names == [
        "*/all#ingress[1].toPorts[0]",
        "hr/jobs#specs[0].ingress[1].toPorts[0]",
        "hr/jobs#specs[1].ingress[1].toPorts[0]",
        "*/f2[0]#ingress[1].toPorts[0]",
        "*/jobs-rule#ingress[1].toPorts[0]",
        "hr/np#ingress[0].ports",
    ]


def test_lists_of_one_kind_and_plain_lists_of_objects() -> None:
    """The API server leaves kind and apiVersion out of the items; tools write objects into a bare array."""
    spec = rule(ingress=[{}])
    bare = [{"metadata": {"name": name}, "spec": spec} for name in ("a", "b")]
    typed = {"apiVersion": "cilium.io/v2", "kind": "CiliumClusterwideNetworkPolicyList", "items": bare}
    array = [cnp(spec), np({"ingress": [{}]}, "net")]
    assert [one.name for one in rules_of(typed, array)] == ["*/a", "*/b", "hr/jobs", "hr/net"]


def test_a_description_beside_the_spec_is_read_with_a_warning() -> None:
    """Many published examples have it there, where a cluster would drop it."""
    loaded = load(cnp(rule(ingress=[{}])) | {"description": "no one calls"})
    assert (loaded.errors, loaded.rules[0].description) == ((), "no one calls")
    assert [(one.pointer, one.mend) for one in loaded.warnings] == [
        ("/description", "write it into the spec")
    ]


def test_a_byte_order_mark_is_passed_over() -> None:
    """Some editors write it; it says nothing."""
    text = "\ufeff" + json.dumps(cnp(rule(ingress=[{}])))
    for file in ("x.json", "x.yaml", "x"):
        assert [one.name for one in policy.load([(file, text)]).rules] == ["hr/jobs"]


def test_an_object_written_with_a_doubled_key_is_no_rule() -> None:
    """Not even what is left of it."""
    text = '[{"endpointSelector": {}, "ingress": [{}], "ingress": [{}]}]'
    loaded = policy.load([("x.json", text)])
    assert (len(loaded.errors), loaded.rules) == (1, ())


def test_one_object_stands_once() -> None:
    """The same kind and name twice is an error; another kind of that name is a warning."""
    spec = rule(ingress=[{}])
    twice = load(cnp(spec), cnp(spec))
    assert [error.file for error in twice.errors] == ["f1.json"]
    assert "f0.json:1 already" in twice.errors[0].message
    kinds = load(cnp(spec), np({"podSelector": {}}))
    assert not kinds.errors
    assert any("also a CiliumNetworkPolicy" in warning.message for warning in kinds.warnings)


def test_kproxys_own_fields() -> None:
    """Audit mode and L7 deny rules stand under keys named kproxy."""
    own = {"kproxy": {"http": [{"pathPrefix": "/admin/", "query": [{"name": "q"}], "description": "no"}]}}
    body = rule(ingressDeny=[{"toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}], "rules": own}]}])
    loaded = rules_of(cnp(body | {"kproxy": {"mode": "audit"}}))
    denied = loaded[0].ingress.deny[0].ports[0].http[0]  # type: ignore[index]
    assert denied.name == "hr/jobs#ingressDeny[0].toPorts[0].kproxy.http[0]"
    assert (denied.path_prefix, denied.description, loaded[0].mode.value) == (b"/admin", "no", "audit")


values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text('a"\\{[é\n', max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("a/~0", max_size=2), inner, max_size=3)
    ),
    max_leaves=12,
)


def pointers(value: Any, pointer: str = "") -> list[tuple[str, Any]]:
    """All pointers into a value."""
    members = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    found = [(pointer, value)]
    for key, member in members:
        found += pointers(member, f"{pointer}/{str(key).replace('~', '~0').replace('/', '~1')}")
    return found


@given(values)
def test_lines_of_json_pointers(value: Any) -> None:
    """Where every value stands on a line of its own, each pointer finds a line that holds its beginning."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    lines = text.split("\n")
    for pointer, member in pointers(value):
        first = json.dumps(member, indent=1, ensure_ascii=False).split("\n")[0]
        assert first in lines[JsonLines(text).line_of(pointer) - 1]


@given(values)
def test_any_value_is_rules_or_errors(value: Any) -> None:
    """Whatever JSON says, reading it ends, in rules or in errors that name a place."""
    loaded = policy.load([("x.json", json.dumps(value))])
    assert loaded.rules or loaded.errors or value == []
    assert all(error.file == "x.json" for error in loaded.errors)


@given(st.text(max_size=60))
def test_any_text_is_rules_or_errors(text: str) -> None:
    """No text makes the reader fail."""
    policy.load([("x.yaml", text), ("x.json", text), ("x", text)])
