"""A change of rules, or of who is who, ends connections that it no longer lets be as they are, and counts them."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from rig import Node, accept, close_opened, connect, eventually, http_rule, listen, running_node

from kproxy.demo.network import Network
from kproxy.demo.node import endpoint

pytestmark = pytest.mark.bpf

PORT = 8080
FAMILIES = pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
DIRECTIONS = pytest.mark.parametrize("direction", ["egress", "ingress"])
ENDS = {"egress": ("client", "server"), "ingress": ("server", "client")}
ANY_REQUEST = [{"path": "/.*"}]
DIRECT, PROXIED = None, ANY_REQUEST
REQUEST = b"GET /jobs/1 HTTP/1.1\r\nHost: a\r\n\r\n"


def allowed(direction: str, http: list[dict[str, str]] | None, peer: str | None = None) -> dict[str, Any]:
    """A policy for one end that lets the other end through, or `peer`: whole, or by its requests."""
    subject, other = ENDS[direction]
    return http_rule(subject, direction, peer or other, PORT, http, name=f"of-{subject}")


def ends_reset(client: socket.socket) -> None:
    """The client learns that its connection is over: by a reset, or because its own socket was ended (ABORTED)."""
    with pytest.raises((ConnectionResetError, ConnectionAbortedError)):
        client.recv(100)


def counted(node: Node, name: str, direction: str, reason: str) -> None:
    """The end is in the metrics by its endpoint, direction and reason, once."""
    labels = {"endpoint": f"default/{ENDS[direction][0]}", "direction": direction, "reason": reason}
    eventually(lambda: node.count(name, **labels) == 1, f"{name} counts {labels}")


@FAMILIES
@DIRECTIONS
@pytest.mark.parametrize(
    ("before", "after", "peer", "metric", "reason"),
    [
        (DIRECT, DIRECT, "stranger", "kproxy_direct_connections_reset_total", "not_allowed"),
        (DIRECT, PROXIED, None, "kproxy_direct_connections_reset_total", "needs_judging"),
        (PROXIED, PROXIED, "stranger", "kproxy_connections_closed_total", "policy_withdrawn"),
    ],
    ids=["direct-withdrawn", "direct-to-be-judged", "proxied-withdrawn"],
)
def test_rules_that_change(
    network: Network,
    tmp_path: Path,
    family: int,
    direction: str,
    before: list[dict[str, str]] | None,
    after: list[dict[str, str]] | None,
    peer: str | None,
    metric: str,
    reason: str,
) -> None:
    """A live connection that is no longer allowed as it is ends with a reset."""
    with (
        listen(network["server"], PORT, family) as listener,
        running_node(tmp_path, network, [allowed(direction, before)], [ENDS[direction][0]]) as node,
    ):
        client = connect(network["client"], network["server"], PORT, family)
        server = accept(listener)
        client.sendall(REQUEST)
        assert server.recv(1000) == REQUEST
        node.put_rules([allowed(direction, after, peer)])
        ends_reset(client)
        counted(node, metric, direction, reason)


@FAMILIES
@DIRECTIONS
@pytest.mark.parametrize(
    ("http", "metric", "reason"),
    [
        (DIRECT, "kproxy_direct_connections_reset_total", "not_allowed"),
        (PROXIED, "kproxy_connections_closed_total", "policy_withdrawn"),
    ],
    ids=["direct", "proxied"],
)
def test_an_address_that_is_given_to_another(
    network: Network,
    tmp_path: Path,
    family: int,
    direction: str,
    http: list[dict[str, str]] | None,
    metric: str,
    reason: str,
) -> None:
    """The peer leaves the endpoints file and a stranger has its addresses: no rule lets that one through."""
    subject, other = ENDS[direction]
    with (
        listen(network["server"], PORT, family) as listener,
        running_node(tmp_path, network, [allowed(direction, http)], [subject]) as node,
    ):
        client = connect(network["client"], network["server"], PORT, family)
        server = accept(listener)
        client.sendall(REQUEST)
        assert server.recv(1000) == REQUEST
        addresses = endpoint(network[other])["addresses"]
        stranger = {**endpoint(network["stranger"], enforced=False), "addresses": addresses}
        node.put_endpoints([endpoint(network[subject]), stranger])
        ends_reset(client)
        counted(node, metric, direction, reason)


def test_an_enforced_endpoint_that_leaves_the_file(network: Network, tmp_path: Path) -> None:
    """Its proxied connections end; it is under no policy any more; whoever stays is."""
    rules = [
        allowed("ingress", PROXIED),
        http_rule("stranger", "ingress", "nobody", PORT, name="of-stranger"),
    ]
    with (
        listen(network["server"], PORT) as listener,
        running_node(tmp_path, network, rules, ["server", "stranger"]) as node,
    ):
        client = connect(network["client"], network["server"], PORT)
        accept(listener)
        with node.reading():
            node.put_endpoints([endpoint(network["client"], enforced=False), endpoint(network["stranger"])])
        ends_reset(client)
        again = connect(network["client"], network["server"], PORT)
        server = accept(listener)
        again.sendall(b"not http")
        assert server.recv(100) == b"not http"
        with pytest.raises(ConnectionRefusedError):
            connect(network["client"], network["stranger"], PORT)


def test_the_server_of_a_flow_that_leaves_the_file(network: Network, tmp_path: Path) -> None:
    """A flow that both ends judged ends when one of them is no endpoint any more; a new one has one judge."""
    to_anyone = http_rule("client", "egress", None, PORT, PROXIED, name="of-client")
    rules = [to_anyone, allowed("ingress", PROXIED)]
    with (
        listen(network["server"], PORT) as listener,
        running_node(tmp_path, network, rules, ["client", "server"]) as node,
    ):
        client = connect(network["client"], network["server"], PORT)
        accept(listener)
        with node.reading():
            node.put_endpoints([endpoint(network["client"])])
        ends_reset(client)
        again = connect(network["client"], network["server"], PORT)
        server = accept(listener)
        again.sendall(REQUEST)
        assert server.recv(1000) == REQUEST
        close_opened()  # kproxy would wait for open flows


def test_an_endpoint_that_is_described_anew_stays_in_force(network: Network, tmp_path: Path) -> None:
    """Its labels change: its connections live on, and are judged as those of who it now is."""
    rules = [allowed("ingress", PROXIED)]
    with (
        listen(network["server"], PORT) as listener,
        running_node(tmp_path, network, rules, ["server"]) as node,
    ):
        client = connect(network["client"], network["server"], PORT)
        server = accept(listener)
        entry = endpoint(network["server"])
        with node.reading():
            changed = {**entry, "labels": {**entry["labels"], "tier": "backend"}, "ports": {"web": PORT}}
            node.put_endpoints([changed, endpoint(network["client"], enforced=False)])
        eventually(lambda: "endpoint changed" in node.process.output(), "the change is told")
        assert "endpoint left" not in node.process.output()
        client.sendall(REQUEST)
        assert server.recv(1000) == REQUEST
        close_opened()  # as above


def test_a_namespace_that_goes_on_under_another_name_has_no_gap(network: Network, tmp_path: Path) -> None:
    """An endpoint gets another name and back, again and again: what no name allows is never let in meanwhile."""
    rules = [allowed("ingress", DIRECT, "nobody")]
    server, client = endpoint(network["server"]), endpoint(network["client"], enforced=False)
    reached, stop = [], threading.Event()

    def knock() -> None:
        while not stop.is_set():
            try:
                connect(network["client"], network["server"], PORT)
            except OSError:
                continue
            reached.append(time.monotonic())

    with (
        listen(network["server"], PORT),
        running_node(tmp_path, network, rules, ["server"]) as node,
    ):
        knocker = threading.Thread(target=knock)
        knocker.start()
        try:
            for name in ("renamed", "server") * 5:
                with node.reading():
                    node.put_endpoints([{**server, "name": name}, client])
        finally:
            stop.set()
            knocker.join()
        assert not reached
        eventually(lambda: node.process.output().count("endpoint changed") == 10, "each change is told")
        assert "endpoint left" not in node.process.output()


def test_two_endpoints_that_swap_their_addresses_in_the_file(network: Network, tmp_path: Path) -> None:
    """Each still reaches itself, and is known to the other's policy by what the file now says."""
    rules = [allowed("ingress", DIRECT), http_rule("client", "ingress", "nobody", PORT, name="of-client")]
    server, client = endpoint(network["server"]), endpoint(network["client"])
    swapped = [
        {**server, "addresses": client["addresses"]},
        {**client, "addresses": server["addresses"]},
    ]
    with (
        listen(network["server"], PORT) as listener,
        running_node(tmp_path, network, rules, ["server", "client"]) as node,
    ):
        for entries in (swapped, [server, client]):
            with node.reading():
                node.put_endpoints(entries)
        connect(network["server"], network["server"], PORT)
        accept(listener)
        connect(network["client"], network["server"], PORT)
        accept(listener)


def test_listeners_that_come_and_go_do_not_hide_who_called(network: Network, tmp_path: Path) -> None:
    """A client listens on the port that it called from, a server closes its listener: both connections end."""
    other = PORT + 1
    rules = [allowed("egress", DIRECT), allowed("ingress", DIRECT)]
    both = network["client"], network["server"]
    with running_node(tmp_path, network, rules, ["client", "server"]) as node:
        with listen(network["server"], PORT) as listener:
            with network["client"].inside():
                hiding = socket.socket()
                late = socket.socket()
            for one in (hiding, late):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                one.settimeout(10)
            with hiding, late:
                hiding.bind(("0.0.0.0", other))
                hiding.connect((str(both[1].v4), PORT))
                accept(listener)
                late.bind(("0.0.0.0", other))
                late.listen(1)
                with node.reading():
                    node.put_rules([allowed("egress", DIRECT, "nobody"), allowed("ingress", DIRECT)])
                ends_reset(hiding)
        with listen(network["server"], PORT) as listener:
            with node.reading():
                node.put_rules(rules)
            client = connect(*both, PORT)
            accept(listener)
        with node.reading():
            node.put_rules([allowed("egress", DIRECT), allowed("ingress", DIRECT, "nobody")])
        ends_reset(client)


def test_a_live_flow_is_judged_as_who_its_namespace_is_now(network: Network, tmp_path: Path) -> None:
    """The client's namespace gets another label, and its old address goes to one that may: the flow ends."""
    rules = [allowed("ingress", PROXIED), allowed("ingress", PROXIED, "good")]
    rules[1]["metadata"]["name"] = "good"
    pods = {name: endpoint(network[name]) for name in ("client", "server", "stranger")}
    client, stranger = pods["client"], pods["stranger"]
    swapped = [
        {**client, "labels": {"app": "bad"}, "addresses": stranger["addresses"]},
        {**stranger, "labels": {"app": "good"}, "addresses": client["addresses"]},
        pods["server"],
    ]
    with (
        listen(network["server"], PORT) as listener,
        running_node(tmp_path, network, rules, list(pods)) as node,
    ):
        one = connect(network["client"], network["server"], PORT)
        server = accept(listener)
        one.sendall(REQUEST)
        assert server.recv(1000) == REQUEST
        with node.reading():
            node.put_endpoints(swapped)
        ends_reset(one)


def test_two_namespaces_that_swap_their_names_end_their_flows(network: Network, tmp_path: Path) -> None:
    """A flow is not judged by the policy of whoever has its endpoint's name now."""
    rules = [allowed("egress", PROXIED), http_rule("stranger", "egress", "nobody", PORT, name="none")]
    client, stranger = endpoint(network["client"]), endpoint(network["stranger"])
    places = ("netns", "addresses")
    swapped = [
        {**client, **{key: stranger[key] for key in places}},
        {**stranger, **{key: client[key] for key in places}},
        endpoint(network["server"], enforced=False),
    ]
    with (
        listen(network["server"], PORT) as listener,
        running_node(tmp_path, network, rules, ["client", "stranger"]) as node,
    ):
        one = connect(network["client"], network["server"], PORT)
        server = accept(listener)
        one.sendall(REQUEST)
        assert server.recv(1000) == REQUEST
        with node.reading():
            node.put_endpoints(swapped)
        ends_reset(one)
        with pytest.raises(PermissionError):
            connect(network["client"], network["server"], PORT)


def test_warnings_are_told_when_they_are_new(network: Network, tmp_path: Path) -> None:
    """A rule whose peer is nobody is worth a line when it comes, not at every change; `status` keeps it."""
    lonely = http_rule("server", "ingress", "nobody", PORT, name="lonely")
    with running_node(tmp_path, network, [allowed("ingress", DIRECT)], ["server"]) as node:
        assert "worth a look" not in node.process.output()
        for http in (DIRECT, PROXIED, DIRECT):
            with node.reading():
                node.put_rules([allowed("ingress", http), lonely])
            assert ["no known peer" in line for line in node.status()["reload"]["warnings"]] == [True]
        with node.reading():
            node.put_rules([allowed("ingress", DIRECT)])
        assert node.status()["reload"]["warnings"] == []
        eventually(lambda: node.process.output().count("files changed") == 4, "the log is complete")
        assert node.process.output().count("worth a look") == 1
