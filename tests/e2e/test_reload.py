"""A hundred revisions under load: no request fails, none is judged by two of them, none gets through between."""

from __future__ import annotations

import json
import os
import re
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hammer import hammering, keepalive, tcp, udp
from load import nginx, requests_in, wrk_while
from rig import http_rule, node_with, running_node

from kproxy.demo.network import Network, Pod
from kproxy.demo.node import endpoint

pytestmark = pytest.mark.bpf

PORT, OTHER_PORT = 8092, 8093
REVISIONS = int(os.environ.get("KPROXY_TEST_REVISIONS", "100"))
"""How many revisions come into force under load; more by hand, where there is time."""
SWAPS = REVISIONS // 2
"""And how many where several processes call without pause, which takes longer."""

GET = b"GET /jobs/1 HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(scope="module")
def server(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    """nginx on two ports of the server's pod, and on the stranger's."""
    folder = tmp_path_factory.mktemp("nginx")
    with (
        nginx(network["server"], folder / "server", PORT, OTHER_PORT),
        nginx(network["stranger"], folder / "stranger", PORT, OTHER_PORT),
    ):
        yield network["server"]


def turn_of(rule: str) -> int:
    """The turn that a rule is of: its policy is named after it."""
    found = re.search(r"-turn(\d+)#", rule)
    assert found, f"{rule} is no rule of any turn"
    return int(found[1])


def allowed_both_ways(turn: int) -> list[dict[str, Any]]:
    """The same requests at both sides, by rules that are written another way each time."""
    path = "/jobs/[0-9]+" if turn % 2 else "/jobs/.*"
    rules = [{"method": "GET", "path": path}]
    return [
        http_rule("client", "egress", "server", PORT, rules, f"out-turn{turn}"),
        http_rule("server", "ingress", "client", PORT, rules, f"in-turn{turn}"),
    ]


def test_every_request_is_judged_by_one_revision(network: Network, server: Pod, tmp_path: Path) -> None:
    """Under load on kept and on new connections: none fails, and both rules that let it pass are of one turn."""
    with running_node(tmp_path, network, allowed_both_ways(0), ["client", "server"]) as node:
        first = node.revision()
        with (
            wrk_while(network["client"], server, PORT, connections=48) as kept,
            wrk_while(network["client"], server, PORT, connections=4, headers=["Connection: close"]) as fresh,
        ):
            for turn in range(1, REVISIONS + 1):
                with node.reading():
                    node.put_rules(allowed_both_ways(turn))
        made = requests_in(kept()) + requests_in(fresh())
        assert node.revision() - first >= REVISIONS
        assert node.count("kproxy_requests_total", verdict="deny") == 0
        lines = node.log_after(made)
    assert {line["verdict"] for line in lines} == {"allow"}
    pairs = Counter((turn_of(line["rule"]), turn_of(line["also"]["rule"])) for line in lines)
    assert {one for one, other in pairs if one != other} == set(), "judged by two revisions"
    assert len(pairs) > REVISIONS * 0.9, "most revisions have judged something"
    assert went_back(lines) == []


def went_back(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines of requests that an older revision judged than one before on their connection."""
    last: dict[int, int] = {}
    found = []
    for line in lines:
        turn = turn_of(line["rule"])
        if turn < last.setdefault(line["flow"], turn):
            found.append(line)
        last[line["flow"]] = turn
    return found


def one_port_at_a_time(turn: int) -> list[dict[str, Any]]:
    """The one port open for requests and the other shut, and the other way round in the next revision."""
    port = (PORT, OTHER_PORT)[turn % 2]
    rules = [{"method": "GET", "path": "/jobs/.*"}]
    return [
        http_rule("client", "egress", "server", port, rules, f"out-turn{turn}"),
        http_rule("server", "ingress", "client", port, rules, f"in-turn{turn}"),
    ]


def test_a_port_that_opens_and_shuts(network: Network, server: Pod, tmp_path: Path) -> None:
    """Each connection is answered as one revision has it: the rule that the log names is about its port."""
    client = network["client"]
    calls = {
        f"{name} {port}": (client, how(server.v4, port, GET))
        for port in (PORT, OTHER_PORT)
        for name, how in (("new", tcp), ("kept", keepalive))
    }
    with running_node(tmp_path, network, one_port_at_a_time(0), ["client", "server"]) as node:
        with hammering(calls) as told:
            for turn in range(1, SWAPS + 1):
                with node.reading():
                    node.put_rules(one_port_at_a_time(turn))
        lines = node.log_after(sum(count["200"] for count in told.values()))
    for name, count in told.items():
        # Allowed, refused at once, or reset when the port was shut under it.
        assert count.keys() <= {"200", "EPERM", "ECONNRESET", "EPIPE", "end"}, (name, count)
        assert count["200"] > SWAPS
        assert count["EPERM"] > SWAPS
    for line in lines:
        if line["verdict"] == "allow":
            assert port_of(line) == (PORT, OTHER_PORT)[turn_of(line["rule"]) % 2], line
            assert turn_of(line["rule"]) == turn_of(line["also"]["rule"]), line
        elif line["tier"] == "kernel":
            assert "default deny" in line["reason"] or "no longer in force" in line["reason"], line


def port_of(line: dict[str, Any]) -> int:
    """The server's port: in the peer's address of whoever called."""
    return int(line["peer_address"].rpartition(":")[2])


def at_one_end(turn: int) -> list[dict[str, Any]]:
    """The client may call and the server refuses, and the other way round in the next revision."""
    peers = ("server", "stranger"), ("client", "stranger")
    policies = [
        http_rule("client", "egress", peers[0][turn % 2], PORT, None, "out"),
        http_rule("server", "ingress", peers[1][1 - turn % 2], PORT, None, "in"),
    ]
    for policy in policies:
        for direction in ("egress", "ingress"):
            for rule in policy["spec"].get(direction, ()):
                rule["toPorts"][0]["ports"][0]["protocol"] = "ANY"
    return policies


def test_two_ends_never_answer_by_two_revisions(network: Network, server: Pod, tmp_path: Path) -> None:
    """A call that one revision lets out and the next would let in is one that neither allows."""
    client = network["client"]
    calls = {
        "TCP": (client, tcp(server.v4, PORT)),
        "more TCP": (client, tcp(server.v6, PORT)),
        "UDP": (client, udp(server.v4, PORT)),
    }
    with server.inside():
        listener = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    with listener, running_node(tmp_path, network, at_one_end(0), ["client", "server"]) as node:
        listener.bind(("::", PORT))
        listener.setblocking(False)
        with hammering(calls) as told:
            for turn in range(1, SWAPS + 1):
                with node.reading():
                    node.put_rules(at_one_end(turn))
        with pytest.raises(BlockingIOError):
            listener.recv(100)
    assert told["UDP"]["sent"] > SWAPS, "in every other revision they leave, and do not arrive"
    for name in ("TCP", "more TCP"):
        assert told[name].keys() <= {"EPERM", "ECONNREFUSED", "ECONNRESET", "ECONNABORTED"}, told[name]
        assert min(told[name]["EPERM"], told[name]["ECONNREFUSED"]) > SWAPS


# ---- what no revision allows ------------------------------------------------------------------------------------

COLOURS = ("red", "blue")


class Mount:
    """Rules and endpoints as Kubernetes mounts a ConfigMap: all files change in one rename."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._versions = folder, 0
        folder.mkdir()

    def put(self, files: dict[str, str]) -> None:
        """Swap the whole content."""
        self._versions += 1
        version = self._folder / f"..{self._versions}"
        version.mkdir()
        for name, text in files.items():
            (version / name).write_text(text)
            link = self._folder / name
            if not link.is_symlink():
                link.symlink_to(f"..data/{name}")
        (self._folder / "..new").symlink_to(version.name)
        (self._folder / "..new").rename(self._folder / "..data")


def swapped(network: Network, turn: int) -> dict[str, str]:
    """Who is allowed keeps being allowed, under the other label: labels and rules change places.

    Client and server are good, the stranger is not. What the rules of one turn say of the labels of another
    would let the stranger in; and the labels of client and server change too, so that a moment without their
    policy would let anything through.
    """
    good, bad = COLOURS[turn % 2], COLOURS[1 - turn % 2]
    colours = {"client": good, "server": good, "stranger": bad}
    entries = [
        endpoint(pod, enforced=pod.name != "stranger")
        | {"labels": {"app": pod.name, "colour": colours[pod.name], "turn": str(turn)}}
        for pod in map(network.__getitem__, colours)
    ]
    policies = [
        coloured("client", "egress", good, f"out-turn{turn}"),
        coloured("server", "ingress", good, f"in-turn{turn}"),
    ]
    return {
        "rules.json": json.dumps({"apiVersion": "v1", "kind": "List", "items": policies}),
        "endpoints.json": json.dumps({"endpoints": entries}),
    }


def coloured(selects: str, direction: str, colour: str, name: str) -> dict[str, Any]:
    """One port with requests, one without."""
    policy = http_rule(selects, direction, None, PORT, [{"path": "/jobs/.*"}], name)
    rule = policy["spec"][direction][0]
    rule["fromEndpoints" if direction == "ingress" else "toEndpoints"] = [{"matchLabels": {"colour": colour}}]
    rule["toPorts"].append({"ports": [{"port": str(OTHER_PORT), "protocol": "ANY"}]})
    return policy


def test_what_no_revision_allows_never_gets_through(network: Network, server: Pod, tmp_path: Path) -> None:
    """Labels, rules and who is who change at once: the stranger is never called nor heard, nobody else refused."""
    client, stranger = network["client"], network["stranger"]
    never = {
        "client calls the stranger": (client, tcp(stranger.v4, PORT)),
        "client calls the stranger, no requests": (client, tcp(stranger.v6, OTHER_PORT)),
        "client tells the stranger": (client, udp(stranger.v4, OTHER_PORT)),
        "stranger calls the server": (stranger, tcp(server.v4, PORT, GET)),
        "stranger calls the server, no requests": (stranger, tcp(server.v6, OTHER_PORT)),
    }
    always = {
        "client asks the server": (client, tcp(server.v4, PORT, GET)),
        "client calls the server": (client, tcp(server.v6, OTHER_PORT)),
        "client keeps asking": (client, keepalive(server.v4, PORT, GET)),
        "client tells the server": (client, udp(server.v4, OTHER_PORT)),
    }
    mount = Mount(tmp_path / "mount")
    mount.put(swapped(network, 0))
    with node_with(tmp_path, [tmp_path / "mount/rules.json"], endpoints="mount/endpoints.json") as node:
        with hammering(never | always) as told:
            for turn in range(1, SWAPS + 1):
                with node.reading():
                    mount.put(swapped(network, turn))
        print({name: dict(count) for name, count in told.items()})
    for name in never:
        assert set(told[name]) <= {"EPERM", "ECONNREFUSED"}, (name, told[name])
        assert told[name].total() > 10 * SWAPS
    for name in always:
        assert set(told[name]) <= {"open", "sent", "200"}, (name, told[name])
        assert told[name].total() > 5 * SWAPS
