"""Policies, connections and requests by chance, in a small world where they often meet."""

from __future__ import annotations

from ipaddress import ip_address
from random import Random
from typing import Any

from hypothesis import strategies as st
from reference import Connection, World
from rules_world import Request

from policy import Node, Workload

APPS, NAMESPACES = ("a", "b", "c"), ("hr", "ops")
PODS = tuple(
    Workload(
        f"{app}-{space}",
        space,
        {"app": app}
        | ({"tier": "front"} if app == "a" else {"container:tier": "back", "any": "x"} if app == "b" else {})
        | ({"io.cilium.k8s.namespace.labels.team": "blue"} if space == "ops" else {}),
        (ip_address(f"10.0.{i}.{j}"), ip_address(f"fd00::{i}:{j}")),
        {"http": 80 + j, "admin": 8080},
        local=space == "hr",
    )
    for i, space in enumerate(NAMESPACES)
    for j, app in enumerate(APPS)
)
# Other nodes, and API servers inside and outside of the cluster, in the midst of networks that rules name.
OTHERS = tuple(
    Workload(name, "", {f"reserved:{one}": "" for one in reserved}, (ip_address(address),), {"http": 80})
    for name, reserved, address in (
        ("node-2", ("remote-node",), "9.1.2.9"),
        ("node-3", ("remote-node", "kube-apiserver"), "2001:db8::9"),
        ("api", ("world", "kube-apiserver"), "8.8.4.4"),
    )
)
WORKLOADS = PODS + OTHERS
NODE_ADDRESS = "10.0.9.1"
ADDRESSES = (
    *(str(address) for workload in WORKLOADS for address in workload.addresses),
    *(NODE_ADDRESS, "9.9.9.9", "9.1.2.3", "8.8.8.8", "2001:db8::1", "10.0.7.7"),
)
NETWORKS = (
    *(
        "0.0.0.0/0",
        "9.0.0.0/8",
        "9.1.0.0/16",
        "9.1.2.0/24",
        "10.0.0.0/8",
        "9.9.9.9/32",
        "9.1.2.9",
        "10.0.0.0",
    ),
    *("2001:db8::/32", "::/0", "fd00::/8", "2001:db8::1", "2001:db8::9/128"),
)
NAMESPACE = "io.kubernetes.pod.namespace"
NAMESPACE_LABELS = "io.cilium.k8s.namespace.labels."
WORLD_KEYS = (
    *("app", "tier", "k8s:app", "any:tier", "container:tier", "k8s:tier", NAMESPACE, f"k8s:{NAMESPACE}"),
    *(f"any:{NAMESPACE}", f"{NAMESPACE_LABELS}team", f"k8s:{NAMESPACE_LABELS}kubernetes.io/metadata.name"),
    *("reserved:remote-node", "reserved:world", "io.cilium.k8s.policy.cluster"),
)

label_values = st.sampled_from((*APPS, *NAMESPACES, "front", "back", "blue", "default", ""))
expressions = st.one_of(
    st.fixed_dictionaries(
        {
            "key": st.sampled_from(WORLD_KEYS),
            "operator": st.sampled_from(("In", "NotIn")),
            "values": st.lists(label_values, min_size=1, max_size=2),
        }
    ),
    st.fixed_dictionaries(
        {"key": st.sampled_from(WORLD_KEYS), "operator": st.sampled_from(("Exists", "DoesNotExist"))}
    ),
)
pod_selectors = st.fixed_dictionaries(
    {},
    optional={
        "matchLabels": st.dictionaries(st.sampled_from(("app", "tier", "k8s:app")), label_values, max_size=1),
        "matchExpressions": st.lists(
            st.fixed_dictionaries(
                {"key": st.just("app"), "operator": st.sampled_from(("Exists", "DoesNotExist"))}
            ),
            max_size=1,
        ),
    },
)
peer_selectors = st.one_of(
    pod_selectors,
    st.fixed_dictionaries({"matchExpressions": st.lists(expressions, min_size=1, max_size=2)}),
    st.fixed_dictionaries(
        {"matchLabels": st.dictionaries(st.sampled_from(WORLD_KEYS), label_values, max_size=2)}
    ),
    st.sampled_from(("host", "world", "remote-node", "kube-apiserver", "world-ipv6")).map(
        lambda name: {"matchLabels": {f"reserved:{name}": ""}}
    ),
)
blocks = st.sampled_from(
    (
        {"cidr": "0.0.0.0/0", "except": ["9.0.0.0/8"]},
        {"cidr": "9.0.0.0/8", "except": ["9.1.0.0/16", "9.9.9.9/32"]},
        {"cidr": "9.1.0.0/16", "except": ["9.1.2.0/24"]},
        {"cidr": "9.1.2.9/32"},
        {"cidr": "10.0.0.0/8"},
        {"cidr": "10.0.0.0/8", "except": ["10.0.7.0/24", "10.0.7.7/32", "10.0.0.0/24"]},
        {"cidr": "::/0", "except": ["2001:db8::/32"]},
        {"cidr": "2001:db8::/32", "except": ["2001:db8::/127"]},
    )
)
entities = st.sampled_from(
    (
        *("all", "world", "cluster", "host", "none", "remote-node", "kube-apiserver", "world-ipv4"),
        *("world-ipv6", "unmanaged", "health", "init", "ingress"),
    )
)

PATHS = (
    *("/", "/jobs", "/jobs/1", "/jobs/12/x", "/jobs?page=2"),
    *("/jobsearch", "/admin", "/v1/jobs/7", "/v1/", "/x.y"),
    *("/jobs?page=x&page=2", "/jobs?p%61ge=3", "/jobs?a=1;page=2", "/jobs?page=%zz", "/?%zz=1&page=2"),
)
PATTERNS = (
    *("/[^/]+/jobs/.*", "/v[0-9]/jobs/7", "/v[0-9]/[a-z]+/7", "/[a-z]+/12/x", "/[a-z]+/jobs"),
    *("/jobs", "/jobs/[0-9]+", "/jobs/.*", "/.*", ".*", "/v1/", "/v1/.*", "/(jobs|admin)"),
    *("/jobs|/admin", "^/jobs$", "/[a-z]+", "/[a-z]+/[0-9]+", "/jobs/[^/]+/x", ".*/7"),
    *("/jobs?", "/x\\.y", "/x.y", "/jobs.*", "[^?]*", "/jobs\\?.*"),
)
METHODS = ("GET", "POST", "PUT", "GET|POST", "P.*", "")
HOSTS = ("jobs", "jobs\\.example\\.com", ".*\\.example\\.com", "[a-z]+", "JOBS", "a\\.example\\.com|jobs", "")
HEADERS = ("X-Role", "X-Role: admin", "X-Role: user", "X-Role: user,admin", "Accept: text/plain")
http_rules = st.fixed_dictionaries(
    {},
    optional={
        "method": st.sampled_from(METHODS),
        "path": st.sampled_from(PATTERNS),
        "host": st.sampled_from(HOSTS),
        "headers": st.lists(st.sampled_from(HEADERS), max_size=2),
    },
)
header_matches = st.fixed_dictionaries(
    {"name": st.sampled_from(("X-Role", "X-None"))},
    optional={
        "value": st.sampled_from(("admin", "user", "user,admin")),
        "mismatch": st.sampled_from(("LOG", "DELETE")),
        "secret": st.just({"name": "lost"}),
    },
)
edit_rules = st.builds(
    lambda rule, matches: rule | {"headerMatches": matches},
    http_rules,
    st.lists(header_matches, min_size=1, max_size=2),
)
queries = st.fixed_dictionaries(
    {"name": st.sampled_from(("page", "a"))}, optional={"value": st.sampled_from(("[0-9]+", "2|3", ".*"))}
)
own_rules = st.one_of(
    http_rules,
    st.builds(
        lambda rule, tests: rule | {"query": tests}, http_rules, st.lists(queries, min_size=1, max_size=2)
    ),
    st.fixed_dictionaries(
        {"pathPrefix": st.sampled_from(("/", "/jobs", "/jobs/", "/v1"))}, optional={"method": st.just("GET")}
    ),
    st.fixed_dictionaries({"pathExact": st.sampled_from(PATHS[:4])}),
)
many_http = st.one_of(
    st.lists(http_rules, min_size=1, max_size=12),
    st.lists(st.one_of(http_rules, edit_rules), min_size=1, max_size=5),
)
ports = st.one_of(
    st.fixed_dictionaries(
        {"port": st.sampled_from(("80", "81", "http", "HTTP", "admin", "none")), "protocol": st.just("TCP")}
    ),
    st.fixed_dictionaries(
        {"port": st.just("79"), "endPort": st.sampled_from((79, 81, 1000, 65535)), "protocol": st.just("TCP")}
    ),
)
l4_ports = st.one_of(
    ports,
    st.fixed_dictionaries(
        {"port": st.sampled_from(("80", "0", "http"))}, optional={"protocol": st.sampled_from(("UDP", "ANY"))}
    ),
    st.fixed_dictionaries(
        {"port": st.sampled_from(("1", "80")), "endPort": st.sampled_from((80, 8080, 65535))},
        optional={"protocol": st.sampled_from(("TCP", "UDP", "ANY"))},
    ),
)
allow_rules = st.one_of(
    st.fixed_dictionaries({"http": many_http}),
    st.fixed_dictionaries(
        {"kproxy": st.fixed_dictionaries({"http": st.lists(own_rules, min_size=1, max_size=5)})}
    ),
)
deny_rules = st.fixed_dictionaries(
    {"kproxy": st.fixed_dictionaries({"http": st.lists(own_rules, min_size=1, max_size=5)})}
)


def to_ports(l7: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """toPorts with or without requests."""
    return st.lists(
        st.one_of(
            st.fixed_dictionaries({"ports": st.lists(l4_ports, min_size=1, max_size=2)}),
            st.fixed_dictionaries({"ports": st.lists(ports, min_size=1, max_size=2), "rules": l7}),
        ),
        max_size=2,
    )


def peers(word: str) -> st.SearchStrategy[Any]:
    """At most one kind of peers."""
    return st.one_of(
        st.just({}),
        st.fixed_dictionaries({f"{word}Endpoints": st.lists(peer_selectors, max_size=2)}),
        st.fixed_dictionaries({f"{word}CIDR": st.lists(st.sampled_from(NETWORKS), max_size=2)}),
        st.fixed_dictionaries({f"{word}CIDRSet": st.lists(blocks, max_size=2)}),
        st.fixed_dictionaries({f"{word}Entities": st.lists(entities, max_size=2)}),
    )


def section(word: str, l7: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A list of rules."""
    rule = st.tuples(peers(word), st.fixed_dictionaries({}, optional={"toPorts": to_ports(l7)}))
    return st.lists(rule.map(lambda parts: parts[0] | parts[1]), min_size=1, max_size=3)


flags = st.fixed_dictionaries({}, optional={"ingress": st.booleans(), "egress": st.booleans()})
any_bodies = st.fixed_dictionaries(
    {"endpointSelector": pod_selectors},
    optional={
        "ingress": section("from", allow_rules),
        "egress": section("to", allow_rules),
        "ingressDeny": section("from", deny_rules),
        "egressDeny": section("to", deny_rules),
        "enableDefaultDeny": flags,
        "kproxy": st.sampled_from(({"mode": "audit"}, {"mode": "enforce"}, {})),
    },
).filter(lambda body: any(body.get(key) for key in ("ingress", "egress", "ingressDeny", "egressDeny")))


def judging(l7: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Rules about the requests of everyone on port 80, which many others could meet."""
    entry = st.fixed_dictionaries({"ports": st.just([{"port": "80", "protocol": "TCP"}]), "rules": l7})
    return st.lists(
        st.fixed_dictionaries({"toPorts": st.lists(entry, min_size=1, max_size=2)}), min_size=1, max_size=2
    )


judging_bodies = st.fixed_dictionaries(
    {"endpointSelector": st.just({}), "ingress": judging(allow_rules), "egress": judging(allow_rules)},
    optional={
        "ingressDeny": judging(deny_rules),
        "egressDeny": judging(deny_rules),
        "kproxy": st.just({"mode": "audit"}),
    },
)
bodies = st.one_of(any_bodies, judging_bodies)


def enveloped(kind: str, namespace: str | None) -> st.SearchStrategy[Any]:
    """Objects of Cilium's kinds."""
    about = {"name": "p"} | ({"namespace": namespace} if namespace else {})
    written = st.one_of(
        st.fixed_dictionaries({"spec": bodies}),
        st.fixed_dictionaries({"specs": st.lists(bodies, min_size=1, max_size=2)}, optional={"spec": bodies}),
    )
    return written.map(lambda specs: {"apiVersion": "cilium.io/v2", "kind": kind, "metadata": about} | specs)


namespaces = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"matchLabels": st.just({"kubernetes.io/metadata.name": "ops"})}),
    st.just(
        {"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["ops"]}]}
    ),
    st.sampled_from(("Exists", "DoesNotExist")).map(
        lambda operator: {"matchExpressions": [{"key": "team", "operator": operator}]}
    ),
)
np_selectors = st.fixed_dictionaries(
    {},
    optional={
        "matchLabels": st.dictionaries(st.sampled_from(("app", "tier")), label_values, max_size=1),
        "matchExpressions": st.lists(
            st.fixed_dictionaries(
                {
                    "key": st.sampled_from(("app", "tier")),
                    "operator": st.just("NotIn"),
                    "values": st.lists(label_values, min_size=1, max_size=2),
                }
            ),
            max_size=1,
        ),
    },
)
np_peers = st.one_of(
    st.fixed_dictionaries({"podSelector": np_selectors}),
    st.fixed_dictionaries({"namespaceSelector": namespaces}, optional={"podSelector": np_selectors}),
    st.fixed_dictionaries({"ipBlock": blocks}),
)
np_ports = st.one_of(
    st.fixed_dictionaries(
        {}, optional={"port": st.sampled_from((80, 81, "http")), "protocol": st.just("UDP")}
    ),
    st.fixed_dictionaries(
        {"port": st.just(79), "endPort": st.sampled_from((79, 81, 65535))},
        optional={"protocol": st.sampled_from(("TCP", "UDP"))},
    ),
)


def np_rules(word: str) -> st.SearchStrategy[Any]:
    """Rules of a NetworkPolicy."""
    one = {word: st.lists(np_peers, max_size=2), "ports": st.lists(np_ports, max_size=2)}
    return st.lists(st.fixed_dictionaries({}, optional=one), max_size=2)


np_bodies = st.fixed_dictionaries(
    {"podSelector": np_selectors},
    optional={
        "ingress": np_rules("from"),
        "egress": np_rules("to"),
        "kproxy": st.just({"mode": "audit"}),
        "policyTypes": st.sampled_from(([], ["Ingress"], ["Egress"], ["Ingress", "Egress"])),
    },
).filter(
    # Rules of a direction that policyTypes does not name are an error.
    lambda body: all(
        not body.get(word) or not body.get("policyTypes") or word.capitalize() in body["policyTypes"]
        for word in ("ingress", "egress")
    )
)
network_policies = np_bodies.map(
    lambda spec: {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "hr"},
        "spec": spec,
    }
)
documents = st.lists(
    st.one_of(
        enveloped("CiliumNetworkPolicy", "hr"),
        enveloped("CiliumClusterwideNetworkPolicy", None),
        st.lists(bodies, min_size=1, max_size=2),
        network_policies,
    ),
    min_size=1,
    max_size=3,
)


def named(written: list[Any]) -> list[Any]:
    """The same documents with names that differ, so that they can stand beside each other."""
    return [
        one if isinstance(one, list) else one | {"metadata": one["metadata"] | {"name": f"p{i}"}}
        for i, one in enumerate(written)
    ]


worlds = st.sampled_from(("always", "policy")).map(
    lambda localhost: World(WORKLOADS, Node((ip_address(NODE_ADDRESS),), localhost))
)
LOCAL = [workload for workload in WORKLOADS if workload.local]
SENT = ((b"x-role", b"admin"), (b"x-role", b"user"), (b"x-role", b"user,admin"), (b"accept", b"text/plain"))


def connection(chance: Random) -> Connection:
    """Any endpoint, either direction, any other side."""
    return Connection(
        chance.choice(LOCAL),
        chance.choice(("ingress", "egress")),
        chance.choice(ADDRESSES),
        chance.choice((6, 6, 6, 17)),
        chance.choice((79, 80, 80, 80, 80, 81, 8080)),
    )


def request(chance: Random) -> Request:
    """Any request that some rules are about."""
    return Request(
        chance.choice((b"GET", b"POST", b"PUT")),
        chance.choice(PATHS).encode(),
        chance.choice((b"jobs", b"jobs.example.com", b"a.example.com")),
        chance.sample(SENT, chance.randrange(4)),
    )
