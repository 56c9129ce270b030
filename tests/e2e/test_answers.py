"""Answers about a running node, and from what it logged: they are what happens on real sockets."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rig import Node, eventually, http_rule, running_node

from kproxy import cli
from kproxy.demo.client import Call, curl
from kproxy.demo.network import Network, Pod

pytestmark = pytest.mark.bpf

Output = pytest.CaptureFixture[str]
JOBS = [{"method": "GET", "path": "/jobs/[0-9]+"}]
CALLS = [
    Call("GET", "/jobs/331"),
    Call("GET", "/jobs/x"),
    Call("GET", "/jobs/1/../2"),
    Call("get", "/jobs/1"),
]


@pytest.fixture(scope="module")
def api(network: Network) -> Iterator[Pod]:
    """The Jobs API in the server's pod."""
    server = network["server"]
    with server.start([sys.executable, "-m", "kproxy.demo.jobs_api", "--port", "80"], listening=80):
        yield server


def explain(node: Node, api: Pod, call: Call, capsys: Output) -> dict[str, Any]:
    """The running node's answer about a call of the client."""
    who = ["--from", "client", "--to", str(api.v4), "--port", "80"]
    what = ["--method", call.method, "--path", call.path]
    code = cli.main(["explain", "--config", str(node.files.config), "--running", "--json", *who, *what])
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert code == (1 if answer["verdict"] == "deny" else 0)
    return answer


def test_the_running_node_explains_what_it_does(
    network: Network, api: Pod, tmp_path: Path, capsys: Output
) -> None:
    """Each call is answered as explain says, before a change of the rules and after it."""
    rules = [http_rule("server", "ingress", "client", 80, JOBS)]
    with running_node(tmp_path, network, rules, ["server"]) as node:
        for path in (None, "/jobs/.*"):
            if path:
                revision = explain(node, api, CALLS[0], capsys)["revision"]
                node.put_rules([http_rule("server", "ingress", "client", 80, [{"path": path}])])
                eventually(
                    lambda before=revision: explain(node, api, CALLS[0], capsys)["revision"] > before,
                    "the new rules are in force",
                )
            for call in CALLS:
                (reply,) = curl([call], api.v4, netns=network["client"].netns)
                answer = explain(node, api, call, capsys)
                assert (answer["verdict"] == "deny") == (answer["status"] == reply.status), call


def test_what_is_learned_of_the_log_allows_what_was_seen(
    network: Network, api: Pod, tmp_path: Path, capsys: Output
) -> None:
    """Every request allowed and logged; learned from; the learned policy in force: the same passes, no more."""
    seen = [Call("GET", f"/jobs/{n}") for n in (331, 332, 333)]
    watched = [http_rule("client", "egress", "server", 80, [{}])]
    with running_node(tmp_path, network, watched, ["client"]) as node:
        curl(seen, api.v4, netns=network["client"].netns)
        node.logged(path="/jobs/333")
        argv = ["policy", "learn", "--config", str(node.files.config), "--verdict", "allow"]
        assert cli.main(argv) == 0
        learned = json.loads(capsys.readouterr().out)["items"]
        revision = node.count("kproxy_policy_revision")
        node.put_rules(learned)
        eventually(lambda: node.count("kproxy_policy_revision") > revision, "what was learned is in force")
        again = curl(
            [*seen, Call("GET", "/jobs/999"), Call("GET", "/admin")], api.v4, netns=network["client"].netns
        )
        assert [reply.status == 403 for reply in again] == [False, False, False, False, True]
