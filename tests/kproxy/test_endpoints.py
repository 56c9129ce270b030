"""The endpoints file: who is enforced here, who is a peer, and what may not be said."""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from kproxy import endpoints
from kproxy.errors import FileError, Problem

JOBS = {
    "name": "jobs-api",
    "namespace": "hr",
    "labels": {"app": "jobs-api"},
    "netns": "/run/netns/jobs-api",
    "addresses": ["10.0.0.2"],
    "ports": {"http": 80},
}
TWEETS = {
    "name": "turtletweets",
    "namespace": "hr",
    "labels": {"app": "turtletweets"},
    "addresses": ["10.0.0.3"],
}


def parse(*entries: dict[str, Any]) -> tuple[endpoints.Endpoint, ...]:
    """Parse a file of these entries."""
    return endpoints.parse(json.dumps({"endpoints": entries}, indent=1), "e.json")


def refused(*entries: dict[str, Any]) -> tuple[Problem, ...]:
    """Parse entries that must be refused, and give what is told."""
    with pytest.raises(FileError) as caught:
        parse(*entries)
    return caught.value.problems


def test_example_of_the_design() -> None:
    """The published example: one endpoint that is enforced here, and one peer."""
    jobs, tweets = parse(JOBS, TWEETS)
    assert (jobs.key, jobs.local, jobs.netns) == ("hr/jobs-api", True, "/run/netns/jobs-api")
    assert jobs.addresses == (ip_address("10.0.0.2"),)
    assert (jobs.labels, jobs.ports, jobs.splice) == ({"app": "jobs-api"}, {"http": 80}, True)
    assert (tweets.key, tweets.local, tweets.netns) == ("hr/turtletweets", False, None)


def test_file_is_read(tmp_path: Path) -> None:
    """A file on disk gives the same as its text."""
    path = tmp_path / "endpoints.json"
    path.write_text(json.dumps({"endpoints": [JOBS]}))
    assert endpoints.load(path) == parse(JOBS)


def test_process_stands_for_its_namespace() -> None:
    """A pid means the network namespace of that process."""
    (one,) = parse({**TWEETS, "pid": 4711})
    assert (one.netns, one.local) == ("/proc/4711/ns/net", True)


def test_namespace_defaults_as_in_kubernetes() -> None:
    """Without a namespace a workload stands in `default`."""
    (one,) = parse({"name": "a", "addresses": ["10.0.0.1"]})
    assert one.key == "default/a"


def test_node_is_a_peer_without_namespace() -> None:
    """A reserved label makes a peer a host, which stands in no namespace."""
    (node,) = parse({"name": "n2", "labels": {"reserved:remote-node": ""}, "addresses": ["10.0.9.2"]})
    assert (node.key, node.namespace, node.local) == ("n2", "", False)


def test_node_may_say_that_it_has_no_namespace() -> None:
    """An empty namespace is a host's own."""
    entry = {"name": "n2", "namespace": "", "labels": {"reserved:remote-node": ""}, "addresses": ["10.0.9.2"]}
    assert [one.key for one in parse(entry)] == ["n2"]


def test_api_server_outside_of_the_cluster() -> None:
    """It is part of the world as well, and rules for either mean it."""
    labels = {"reserved:kube-apiserver": "", "reserved:world": ""}
    (server,) = parse({"name": "api", "labels": labels, "addresses": ["9.9.9.9"]})
    assert (server.key, server.labels) == ("api", labels)


def test_labels_may_name_their_source() -> None:
    """What is not Kubernetes' own label says whose it is."""
    labels = {"k8s:app": "x", "container:tier": "back"}
    (one,) = parse({"name": "a", "labels": labels, "addresses": ["10.0.0.1"]})
    assert one.labels == labels


def test_splice_can_be_switched_off() -> None:
    """An endpoint whose workload cannot bear spliced sockets says so."""
    (one,) = parse({**JOBS, "splice": False})
    assert not one.splice


@pytest.mark.parametrize(
    ("change", "pointer", "told"),
    [
        ({"name": "a/b"}, "name", "not a workload's name"),
        ({"name": ""}, "name", "not a workload's name"),
        ({"namespace": "h r"}, "namespace", "not a namespace"),
        ({"labels": {"any:app": "x"}}, "labels/any:app", "not a label key"),
        ({"labels": {"a:b:c": "x"}}, "labels/a:b:c", "not a label key"),
        ({"labels": {"k8s:app": "x", "app": "y"}}, "labels/k8s:app", "the same label as the one without"),
        ({"namespace": ""}, "namespace", "not a namespace"),
        ({"labels": {"reserved:world": ""}}, "labels/reserved:world", "is not for endpoints"),
        ({"labels": {"a/b~c": "\n"}}, "labels/a~1b~0c", "not a label value"),
        ({"labels": {"app": 1}}, "labels/app", "expected `str`"),
        ({"labels": {"reserved:host": ""}}, "labels/reserved:host", "is not for endpoints"),
        ({"labels": {"reserved:remote-node": ""}}, "labels/reserved:remote-node", "stands in no namespace"),
        (
            {"labels": {"io.kubernetes.pod.namespace": "x"}},
            "labels/io.kubernetes.pod.namespace",
            "another namesp",
        ),
        ({"addresses": []}, "addresses", "length >= 1"),
        ({"addresses": ["10.0.0.2/24"]}, "addresses/0", "without its prefix length"),
        ({"addresses": ["10.0.0.2", "010.0.0.3"]}, "addresses/1", "is not an IP address"),
        ({"addresses": ["::ffff:10.0.0.2"]}, "addresses/0", "write 10.0.0.2"),
        ({"addresses": ["fe80::1%eth0"]}, "addresses/0", "zone"),
        ({"addresses": ["127.0.0.1"]}, "addresses/0", "no one workload's address"),
        ({"addresses": ["::"]}, "addresses/0", "no one workload's address"),
        ({"addresses": ["224.0.0.1"]}, "addresses/0", "no one workload's address"),
        ({"ports": {"HTTP": 80}}, "ports/HTTP", "RFC 6335"),
        ({"ports": {"a--b": 80}}, "ports/a--b", "RFC 6335"),
        ({"ports": {"80": 80}}, "ports/80", "RFC 6335"),
        ({"ports": {"http": 0}}, "ports/http", "expected `int` >= 1"),
        ({"netns": "run/netns/x"}, "netns", "not an absolute path"),
        ({"pid": 7}, "pid", "a second place"),
        ({"netns": None, "cgroup": "/x"}, "cgroup", "not supported yet"),
        ({"nets": "x"}, "nets", 'did you mean "netns"?'),
    ],
)
def test_each_mistake_is_named(change: dict[str, Any], pointer: str, told: str) -> None:
    """A mistake in one entry is told by its place, with what would be right."""
    (problem,) = refused({**JOBS, **change})
    assert problem.pointer == f"/endpoints/0/{pointer}"
    assert told in str(problem)
    assert problem.line > 1


@pytest.mark.parametrize(
    ("second", "pointer"),
    [
        ({"name": "jobs-api", "namespace": "hr", "addresses": ["10.0.0.9"]}, "name"),
        ({"name": "b", "addresses": ["10.0.0.2"]}, "addresses/0"),
        ({"name": "b", "addresses": ["10.0.0.9", "10.0.0.9"]}, "addresses/1"),
        ({"name": "b", "addresses": ["2001:db8::1", "2001:DB8:0::1"]}, "addresses/1"),
        ({"name": "b", "netns": "/run/netns/jobs-api", "addresses": ["10.0.0.9"]}, "netns"),
    ],
)
def test_nothing_is_claimed_twice(second: dict[str, Any], pointer: str) -> None:
    """A name, an address and a namespace each mean one endpoint; the second claim is named with the first."""
    (problem,) = refused(JOBS, second)
    assert problem.pointer == f"/endpoints/1/{pointer}"
    assert "is already at /endpoints/" in problem.message


def test_same_name_in_two_namespaces() -> None:
    """A name is unique in its namespace only."""
    one, two = parse(TWEETS, {**TWEETS, "namespace": "it", "addresses": ["10.0.0.4"]})
    assert one.key != two.key


def test_host_is_not_enforced() -> None:
    """A peer with a reserved label cannot have a network namespace here."""
    entry = {"name": "n2", "labels": {"reserved:remote-node": ""}, "addresses": ["10.0.9.2"], "pid": 1}
    (problem,) = refused(entry)
    assert "a host is not enforced here" in problem.message


def test_all_mistakes_of_all_entries_at_once() -> None:
    """A file with mistakes in several entries is told in one go."""
    found = refused({**JOBS, "name": "a b"}, {**TWEETS, "addresses": ["x"], "cgroup": "/c"})
    assert {problem.pointer for problem in found} == {
        "/endpoints/0/name",
        "/endpoints/1/addresses/0",
        "/endpoints/1/cgroup",
    }
