"""From rules to answers, for connections and for requests."""

from __future__ import annotations

from ipaddress import ip_address
from itertools import pairwise

import pytest
from rules_world import (
    NODE,
    WORKLOADS,
    cnp,
    compiled,
    get,
    http_rule,
    judge,
    l4,
    load,
    np,
    number,
    rule,
    rules_of,
)

import policy
from policy import TCP, UDP, Node, Workload

TWEETS, BATCH, HOST, WORLD = "10.0.0.3", "10.0.0.4", "10.0.0.1", "8.8.8.8"
FROM_TWEETS = {"fromEndpoints": [{"matchLabels": {"app": "turtletweets"}}]}
PORT_80 = {"toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}]}]}


def test_gordons_story() -> None:
    """The tweet service may GET /jobs/{id} and nothing else; each answer names its place in the rules."""
    revision = compiled(http_rule({"method": "GET", "path": "/jobs/[0-9]+"}, **FROM_TWEETS))
    assert l4(revision, TWEETS) == "redirect"
    assert l4(revision, WORLD) == "deny"
    allowed = judge(revision, get("/jobs/331"))
    assert (allowed.verdict, allowed.rule) == ("allow", "*/f0[0]#ingress[0].toPorts[0].http[0]")
    denied = judge(revision, get("/jobs", method="POST"))
    assert (denied.verdict, denied.rule) == ("deny", "*/f0[0]#ingress[0].toPorts[0]")
    assert allowed.path_judged
    assert denied.path_judged


def test_an_unselected_endpoint_is_open() -> None:
    """Default deny begins with the first rule that selects an endpoint, in that direction only."""
    revision = compiled(http_rule({}))
    assert l4(revision, WORLD, endpoint="turtletweets") == "pass"
    assert l4(revision, WORLD, direction="egress") == "pass"
    assert not revision.endpoint("hr", "jobs-api").egress.enforced
    assert revision.endpoint("hr", "jobs-api").ingress.enforced


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"ingress": [{}]}, "deny"),
        ({"ingress": [{"fromEndpoints": []}]}, "deny"),
        ({"ingress": [{"fromEndpoints": [], **PORT_80}]}, "deny"),
        ({"ingress": [{"fromEndpoints": [{}]}]}, "pass"),
        ({"ingress": [PORT_80]}, "pass"),
        ({"ingress": [FROM_TWEETS]}, "pass"),
        ({"ingress": [{"fromEntities": ["cluster"]}]}, "pass"),
        ({"ingress": [{"fromEntities": ["all"]}]}, "pass"),
        ({"ingress": [{"fromEntities": ["world", "remote-node", "none"]}]}, "deny"),
        ({"ingress": [{"fromCIDR": ["10.0.0.0/8"]}]}, "deny"),
        ({"ingressDeny": [{"fromCIDR": ["9.0.0.0/8"]}]}, "deny"),
        ({"ingressDeny": [{}], "enableDefaultDeny": {"ingress": False}}, "pass"),
        ({"ingressDeny": [FROM_TWEETS], "enableDefaultDeny": {"ingress": False}}, "deny"),
        ({"ingress": [{"fromEndpoints": [{}]}], "ingressDeny": [FROM_TWEETS]}, "deny"),
        ({"ingress": [{"fromEndpoints": [{}]}], "ingressDeny": [FROM_TWEETS | PORT_80]}, "deny"),
        ({"ingress": [{}], "enableDefaultDeny": {"ingress": False}}, "pass"),
        ({"egress": [{}], "enableDefaultDeny": {"ingress": True}}, "deny"),
    ],
)
def test_who_may_connect(section: dict[str, object], expected: str) -> None:
    """One rule, and what becomes of a connection from the tweet service to port 80."""
    assert l4(compiled(rule(**section)), TWEETS) == expected


def test_the_world_is_what_no_one_knows() -> None:
    """A CIDR matches neither workloads nor nodes; the entity world includes every CIDR."""
    everywhere = compiled(rule(ingress=[{"fromCIDR": ["0.0.0.0/0"]}]), node=Node(NODE.addresses, "policy"))
    assert [l4(everywhere, peer) for peer in (WORLD, TWEETS, BATCH, HOST)] == ["pass", "deny", "deny", "deny"]
    world = compiled(
        rule(ingress=[{"fromEntities": ["world"]}, {"fromCIDR": ["9.9.0.0/16"]}]),
    )
    assert [l4(world, peer) for peer in (WORLD, "9.9.9.9", "2001:db8::1", TWEETS)] == ["pass"] * 3 + ["deny"]


def test_cidr_exceptions() -> None:
    """An exception takes its addresses out of its own block, not out of others."""
    sets = [{"cidr": "9.0.0.0/8", "except": ["9.1.0.0/16"]}, {"cidr": "9.1.2.0/24"}]
    revision = compiled(rule(ingress=[{"fromCIDRSet": sets}]))
    assert [l4(revision, peer) for peer in ("9.0.0.1", "9.1.0.1", "9.1.2.1")] == ["pass", "deny", "pass"]


def test_the_prefix_table_answers_like_identify() -> None:
    """Whoever looks an address up by its longest prefix finds the number that identify gives."""
    revision = compiled(rule(ingress=[{"fromCIDR": ["9.0.0.0/8", "9.1.2.0/24", "fd00::/8"]}]))
    for text in (
        "9.1.2.3",
        "9.1.3.3",
        "1.1.1.1",
        TWEETS,
        HOST,
        "fd00::4",
        "fd00::5",
        "::1",
        "255.255.255.255",
    ):
        address = ip_address(text)
        fitting = [
            p for p in revision.prefixes if p.network.version == address.version and address in p.network
        ]
        longest = max(fitting, key=lambda prefix: prefix.network.prefixlen)
        assert longest.identity == revision.identify(address).number
    assert revision.identify(ip_address("::ffff:10.0.0.3")).name == "hr/turtletweets"


def test_names_of_identities() -> None:
    """People see workloads, the host, the world and networks by name."""
    revision = compiled(rule(ingress=[{"fromCIDR": ["9.0.0.0/8"]}]))
    seen = {
        text: revision.identify(ip_address(text)).name for text in (TWEETS, "fd00::4", HOST, WORLD, "9.9.9.9")
    }
    assert list(seen.values()) == ["hr/turtletweets", "ops/batch", "host", "world", "cidr:9.0.0.0/8"]


def test_numbers_outlive_revisions() -> None:
    """A peer keeps its number when workloads come and go: its class is the same."""
    document = http_rule({}, **FROM_TWEETS)
    more = (*WORKLOADS, Workload("new", "hr", {"app": "new"}, (ip_address("10.0.0.9"),)))
    assert number(compiled(document), TWEETS) == number(compiled(document, workloads=more), TWEETS)


def test_peers_that_no_rule_tells_apart_share_a_number() -> None:
    """A thousand replicas cost the policy map what one does."""
    replicas = [
        Workload(f"r{i}", "hr", {"app": "r", "hash": str(i)}, (ip_address(i + 2**24),)) for i in range(50)
    ]
    revision = compiled(rule(ingress=[PORT_80]), workloads=(*WORKLOADS, *replicas))
    assert len({number(revision, str(w.addresses[0])) for w in replicas}) == 1


def test_two_workloads_with_one_address_are_refused() -> None:
    """Nobody could say whose rules apply."""
    twin = Workload("twin", "hr", {}, (ip_address(TWEETS),))
    with pytest.raises(policy.AddressConflict, match="hr/turtletweets's and hr/twin's"):
        compiled(workloads=(*WORKLOADS, twin))


def test_the_node_reaches_its_own_pods() -> None:
    """Probes pass whatever the default, until the operator says otherwise; a deny rule still wins."""
    document = http_rule({"path": "/jobs"})
    assert l4(compiled(document), HOST) == "pass"
    assert l4(compiled(document, node=Node(NODE.addresses, "policy")), HOST) == "redirect"
    assert l4(compiled(rule(ingress=[FROM_TWEETS])), HOST, 9999) == "pass"
    assert l4(compiled(rule(ingressDeny=[{"fromEntities": ["host"]}])), HOST) == "deny"


def test_allow_without_requests_widens_a_port() -> None:
    """An L3 or L4 rule beside an HTTP rule lets that peer send anything; others are still judged."""
    for wider in (FROM_TWEETS, FROM_TWEETS | PORT_80, FROM_TWEETS | _ports("70", end=90)):
        revision = compiled(http_rule({"path": "/jobs"}), rule(ingress=[wider]))
        assert (l4(revision, TWEETS), l4(revision, WORLD)) == ("pass", "redirect")


def _ports(port: str, protocol: str = "TCP", end: int | None = None) -> dict[str, object]:
    spec: dict[str, object] = {"port": port, "protocol": protocol}
    return {"toPorts": [{"ports": [spec | ({"endPort": end} if end else {})]}]}


@pytest.mark.parametrize(
    ("ports", "open_ones"),
    [
        (_ports("80"), {(TCP, 80)}),
        (_ports("53", "UDP"), {(UDP, 53)}),
        (_ports("53", "ANY"), {(TCP, 53), (UDP, 53)}),
        (_ports("53", "udp"), {(UDP, 53)}),
        (_ports("50", end=60), {(TCP, 53)}),
        (_ports("0"), {(TCP, 53), (TCP, 80), (TCP, 8080)}),
        (_ports("HTTP"), {(TCP, 80)}),
        (_ports("metrics"), set()),
        ({"toPorts": []}, set()),
    ],
)
def test_ports(ports: dict[str, object], open_ones: set[tuple[int, int]]) -> None:
    """Numbers, ranges, names of the endpoint, protocols."""
    revision = compiled(rule(ingress=[ports]))
    tried = [(protocol, port) for protocol in (TCP, UDP) for port in (53, 80, 8080)]
    assert {t for t in tried if l4(revision, WORLD, t[1], t[0]) == "pass"} == open_ones


def test_an_egress_port_name_is_the_peers() -> None:
    """`http` at the jobs API is its port 80, and nothing at a peer that has no such port."""
    to_anyone = {"endpointSelector": {"matchLabels": {"app": "turtletweets"}}, "egress": [_ports("http")]}
    revision = compiled(to_anyone)
    where = {"endpoint": "turtletweets", "direction": "egress"}
    assert l4(revision, "10.0.0.2", 80, **where) == "pass"
    assert [l4(revision, "10.0.0.2", 81, **where), l4(revision, BATCH, 80, **where)] == ["deny", "deny"]


def test_overlapping_ranges_are_disjoint_entries() -> None:
    """The policy map gets intervals that do not overlap, and agrees with decide at their ends."""
    ranges = [_ports("10", end=30), _ports("20", end=40), _ports("41"), http_rule({})["ingress"][0]]
    denied = _ports("25", end=26)
    revision = compiled(rule(ingress=ranges, ingressDeny=[denied]))
    ingress = revision.endpoint("hr", "jobs-api").ingress
    by_identity: dict[tuple[int, int], list[policy.L4Entry]] = {}
    for entry in ingress.entries:
        by_identity.setdefault((entry.identity, entry.protocol), []).append(entry)
        for port in (entry.first_port, entry.last_port):
            assert ingress.decide(entry.identity, entry.protocol, port).action is entry.action
    for entries in by_identity.values():
        assert all(one.last_port < other.first_port for one, other in pairwise(entries))
    actions = [(e.first_port, e.last_port, e.action.value) for e in by_identity[number(revision, WORLD), TCP]]
    passing = [(10, 24, "pass"), (27, 30, "pass"), (31, 40, "pass"), (41, 41, "pass")]
    assert actions == sorted([*passing, (25, 26, "deny"), (80, 80, "redirect")])


def test_a_cnp_selector_means_its_own_namespace() -> None:
    """`[{}]` in a CiliumNetworkPolicy is every pod of its namespace: no other namespace, no world."""
    spec = rule(ingress=[{"fromEndpoints": [{}]}])
    revision = compiled(cnp(spec), node=Node(NODE.addresses, "policy"))
    assert [l4(revision, peer) for peer in (TWEETS, BATCH, WORLD, HOST)] == ["pass", "deny", "deny", "deny"]


@pytest.mark.parametrize(
    ("labels", "reached"),
    [
        ({"app": "batch"}, False),
        ({"app": "batch", "io.kubernetes.pod.namespace": "ops"}, True),
        ({"k8s:io.kubernetes.pod.namespace": "ops"}, True),
        ({"k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name": "ops"}, True),
        ({"any:app": "batch", "any:io.kubernetes.pod.namespace": "ops"}, True),
        ({"k8s:app": "batch", "k8s:io.kubernetes.pod.namespace": "hr"}, False),
        ({"container:app": "batch", "k8s:io.kubernetes.pod.namespace": "ops"}, False),
    ],
)
def test_label_sources_and_namespaces(labels: dict[str, str], reached: bool) -> None:
    """Prefixes choose a label's source; a namespace label reaches into other namespaces."""
    revision = compiled(cnp(rule(ingress=[{"fromEndpoints": [{"matchLabels": labels}]}])))
    assert (l4(revision, BATCH) == "pass") is reached


NODES = (
    Workload("node-2", "", {"reserved:remote-node": ""}, (ip_address("9.1.1.1"), ip_address("fd00:9::1"))),
    Workload("api", "", {"reserved:kube-apiserver": "", "reserved:world": ""}, (ip_address("9.2.2.2"),)),
)
ALL = {"host", "node", "api", "pod", "v4", "v6"}


@pytest.mark.parametrize(
    ("peers", "reached"),
    [
        ({"fromEntities": ["all"]}, ALL),
        ({"fromEntities": ["cluster"]}, ALL - {"v4", "v6"}),
        ({"fromEntities": ["world"]}, {"api", "v4", "v6"}),
        ({"fromEntities": ["world-ipv4"]}, {"v4"}),
        ({"fromEntities": ["world-ipv6"]}, {"v6"}),
        ({"fromEntities": ["host"]}, {"host"}),
        ({"fromEntities": ["remote-node"]}, {"node"}),
        ({"fromEntities": ["kube-apiserver"]}, {"api"}),
        ({"fromEntities": ["none", "init", "health", "ingress", "unmanaged"]}, set()),
        ({"fromCIDR": ["0.0.0.0/0", "::/0"]}, {"v4", "v6"}),
        ({"fromCIDR": ["9.1.1.1", "9.2.2.2/32", "fd00:9::1", "10.0.0.1", "10.0.0.4/32"]}, set()),
        ({"fromEndpoints": [{}]}, ALL),
        (
            {"fromEndpoints": [{"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}]},
            ALL - {"pod"},
        ),
        ({"fromEndpoints": [{"matchLabels": {"reserved:world": ""}}]}, {"api", "v4", "v6"}),
    ],
)
def test_entities_and_networks(peers: dict[str, object], reached: set[str]) -> None:
    """In the classic list, who is meant by each: CIDRs speak of no one who is known, nodes included."""
    everyone = {
        "host": HOST,
        "node": "9.1.1.1",
        "api": "9.2.2.2",
        "pod": BATCH,
        "v4": "9.3.3.3",
        "v6": "fd01::1",
    }
    revision = compiled(
        rule(ingress=[peers]), workloads=(*WORKLOADS, *NODES), node=Node(NODE.addresses, "policy")
    )
    assert {who for who, address in everyone.items() if l4(revision, address) == "pass"} == reached


def test_in_a_clusterwide_policy_everyone_is_every_pod() -> None:
    """Neither the world nor the nodes; in a namespaced one, every pod of the namespace."""
    spec = rule(ingress=[{"fromEndpoints": [{}]}])
    wide = {"apiVersion": "cilium.io/v2", "kind": "CiliumClusterwideNetworkPolicy", "metadata": {"name": "w"}}
    revision = compiled(
        wide | {"spec": spec}, workloads=(*WORKLOADS, *NODES), node=Node(NODE.addresses, "policy")
    )
    peers = (TWEETS, BATCH, HOST, WORLD, "9.1.1.1", "9.2.2.2")
    assert [l4(revision, peer) for peer in peers] == ["pass", "pass", "deny", "deny", "deny", "deny"]


def test_an_empty_egress_list_of_a_network_policy_is_no_rule() -> None:
    """Without policyTypes, egress is isolated only if there is an egress rule, as Kubernetes defaults it."""
    for spec, expected in (
        ({"podSelector": {}, "egress": []}, "pass"),
        ({"podSelector": {}, "policyTypes": [], "egress": []}, "pass"),
        ({"podSelector": {}, "policyTypes": ["Egress"]}, "deny"),
        ({"podSelector": {}, "egress": [{"ports": [{"port": 1}]}]}, "deny"),
    ):
        assert l4(compiled(np(spec)), WORLD, direction="egress") == expected
    assert "policyTypes: [Egress]" in load(np({"podSelector": {}, "egress": []})).warnings[0].mend


def test_a_network_policy_looks_at_kubernetes_labels_only() -> None:
    """A label of another source is none of a pod's."""
    spec = {"podSelector": {}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"tier": "x"}}}]}]}
    marked = Workload("m", "hr", {"container:tier": "x"}, (ip_address("10.0.0.7"),))
    labelled = Workload("l", "hr", {"tier": "x"}, (ip_address("10.0.0.8"),))
    revision = compiled(np(spec), workloads=(*WORKLOADS, marked, labelled))
    assert [l4(revision, peer) for peer in ("10.0.0.7", "10.0.0.8")] == ["deny", "pass"]


def test_a_mapped_address_is_the_ipv4_address() -> None:
    """However the endpoints file writes it."""
    mapped = Workload("m", "hr", {}, (ip_address("::ffff:10.0.0.9"),))
    revision = compiled(workloads=(*WORKLOADS, mapped))
    for address in ("10.0.0.9", "::ffff:10.0.0.9"):
        assert revision.identify(ip_address(address)).name == "hr/m"


def test_verdicts_say_what_the_rule_is_for() -> None:
    """The description of a request's rule, or else of its policy, ends every reason."""
    http = {"kproxy": {"http": [{"path": "/a"}, {"path": "/b", "description": "only b"}]}}
    ports = [{"port": "80", "protocol": "TCP"}]
    spec = rule(
        description="jobs are read",
        ingress=[FROM_TWEETS | {"toPorts": [{"ports": ports, "rules": http}, {"ports": [{"port": "81"}]}]}],
        ingressDeny=[{"toPorts": [{"ports": [{"port": "22"}]}]}],
    )
    revision = compiled(cnp(spec))
    reasons = [judge(revision, get(path)).reason for path in ("/a", "/b", "/c")]
    assert reasons[:2] == ["allowed by rule (jobs are read)", "allowed by rule (only b)"]
    assert reasons[2].endswith("did not match (jobs are read)")
    ingress = revision.endpoint("hr", "jobs-api").ingress
    for port in (81, 22, 23):
        assert ingress.decide(number(revision, TWEETS), TCP, port).reason.endswith("(jobs are read)")


def test_a_long_description_is_cut() -> None:
    """Each line of the log repeats it."""
    ingress = [{"toPorts": [{"ports": [{"port": "80"}]}]}]
    revision = compiled(rule(description="two\nlines " + "x" * 5000, ingress=ingress))
    reason = revision.endpoint("hr", "jobs-api").ingress.decide(number(revision, TWEETS), TCP, 80).reason
    assert reason.startswith("allowed by rule (two lines xxx")
    assert (len(reason), reason[-2:]) == (218, "…)")


def test_reserved_labels_in_a_selector_mean_no_namespace() -> None:
    """`reserved:host` selects the host from inside a namespaced policy."""
    spec = rule(ingress=[{"fromEndpoints": [{"matchLabels": {"reserved:host": ""}}]}])
    assert l4(compiled(cnp(spec), node=Node(NODE.addresses, "policy")), HOST) == "pass"


def test_what_does_not_exist_is_not_an_endpoint() -> None:
    """Asking for an endpoint that nobody knows raises, and requests that are not judged have no judge."""
    revision = compiled(rule(ingress=[PORT_80]))
    with pytest.raises(policy.UnknownEndpoint):
        revision.endpoint("hr", "nobody")
    with pytest.raises(policy.NotJudged):
        judge(revision, get("/"))


def test_a_revision_is_its_own() -> None:
    """Compiling again gives another value; the first one still answers as before."""
    first, second = compiled(http_rule({"path": "/a"})), compiled(http_rule({"path": "/b"}))
    assert (judge(first, get("/a")).allowed, judge(second, get("/a")).allowed) == (True, False)


def test_rules_that_could_stall_the_node_are_refused_together() -> None:
    """Lists of patterns that each pass, but together would cost too much on a long path."""
    wide = [http_rule(*({"path": f".*{'[a-z]' * 50}{i}.?"} for i in range(at, at + 12))) for at in (0, 12)]
    with pytest.raises(policy.CompileError, match="instructions for each byte") as refused:
        policy.compile(rules_of(*wide), WORKLOADS, NODE, 1)
    assert refused.value.problems[0].file == "f0.json"
    assert "begin path patterns with plain text" in refused.value.problems[0].mend


def test_one_list_that_could_stall_the_node_is_an_error_of_its_file() -> None:
    """Known before it is known who is there."""
    loaded = load(http_rule(*({"path": f".*{'[a-z]' * 50}{i}.?"} for i in range(60))))
    assert [(error.pointer, error.mend[:5]) for error in loaded.errors] == [
        ("/0/ingress/0/toPorts/0", "begin")
    ]
