"""Bringing a revision into force: all of it, or the last good state as it was."""

from __future__ import annotations

import errno
import json
import os
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from kproxy import reload
from kproxy.config import Config, load
from kproxy.directory import Changes
from kproxy.errors import FileError
from kproxy.metrics import Metrics
from kproxy.revision import MOST_WARNINGS, Revision
from kproxy.rollout import MAX_UNSETTLED, Rollout
from tests.kproxy.policies import allow


def noop(*_arguments: Any) -> None:
    """Do nothing."""


class Node:
    """A node whose kernel may be full, and whose endpoints are never opened."""

    def __init__(self, folder: Path) -> None:
        (folder / "rules").mkdir()
        self.rules, self.endpoints = folder / "rules" / "p.json", folder / "endpoints.json"
        self.put([allow("server", "ingress", "client")])
        self.put_workloads("client", "server")
        text = {"node": "n", "rules": ["rules"], "endpoints": "endpoints.json"}
        (folder / "config.json").write_text(json.dumps(text))
        self.config: Config = load(str(folder / "config.json"))
        self.wanted: list[tuple[str, ...]] = []
        self.asked: tuple[str, ...] = ()
        self.too_much: tuple[str, ...] | None = None
        self.host = frozenset({ip_address("10.9.9.9")})
        self.metrics = Metrics(100)
        directory = self._directory()
        self.revision = Revision(self.config, reload.read(self.config), directory)
        maps = SimpleNamespace(prepare=self._prepare, extend=noop, put_in_force=noop, discard=noop)
        hooks = SimpleNamespace(policy=maps)
        carrier = SimpleNamespace(policy_changed=lambda _policy: 0, own_sockets=lambda: None)
        parts = cast(Any, (hooks, directory, carrier))
        self.rollout = Rollout(self.config, self.revision, *parts, self.metrics)

    def _directory(self) -> Any:
        class Directory(list[Any]):
            host_addresses = self.host
            failures: dict[str, str] = {}

            def want(_self, endpoints: Any) -> Changes:
                self.wanted.append(tuple(one.name for one in endpoints))
                return Changes([], [], [])

            def numbers(_self, endpoints: Any) -> dict[int, Any]:
                self.asked = tuple(one.name for one in endpoints)
                return {}

        self.directory = Directory()
        return self.directory

    def _prepare(self, _tables: Any) -> None:
        if self.asked == self.too_much:
            raise OSError(errno.ENOSPC, "No space left on device")

    def put(self, policies: list[dict[str, Any]]) -> None:
        """Write the rule file."""
        self.rules.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": policies}))

    def put_workloads(self, *names: str) -> None:
        """Write the endpoints file."""
        entries = [
            {"name": name, "namespace": "hr", "labels": {"app": name}, "addresses": [f"10.0.0.{number + 2}"]}
            for number, name in enumerate(names)
        ]
        self.endpoints.write_text(json.dumps({"endpoints": entries}))


async def settled() -> bool:
    """No file changed while it was read."""
    return True


@pytest.fixture
async def node(tmp_path: Path) -> Node:
    """A node that has started."""
    made = Node(tmp_path)
    await made.rollout.start()
    return made


async def test_what_does_not_fit_changes_nothing(node: Node) -> None:
    """The kernel's maps are full: policy and endpoints are the last good ones, and the status says why."""
    node.put([allow("client", "egress", "server")])
    node.put_workloads("client", "server", "more")
    node.too_much = ("client", "server", "more")
    node.wanted.clear()
    await node.rollout.read_again(settled)
    assert node.wanted == [], "endpoints change in the same step as the policy, or not at all"
    assert [one.name for one in node.revision.policy.rules] == ["hr/of-server-ingress"]
    assert not node.revision.reload.ok
    assert "does not fit" in node.revision.reload.errors[0]
    assert (node.metrics.reloads.failed, node.metrics.reloads.last_ok) == (1, False)


async def test_files_that_change_while_they_are_read(node: Node) -> None:
    """Neither what they said nor their mistakes count, but for one that never rests, in the end."""

    async def restless() -> bool:
        return False

    before = node.revision.policy
    node.rules.write_text("{")
    for _ in range(MAX_UNSETTLED - 1):
        await node.rollout.read_again(restless)
    assert node.revision.reload.ok
    node.put([allow("client", "egress", "server")])
    await node.rollout.read_again(restless)
    assert node.revision.policy is not before


async def test_a_node_that_changes_while_its_kernel_is_full(node: Node) -> None:
    """The revision that was in force stays, and kproxy goes on."""
    before = node.revision.policy
    node.too_much = node.wanted[-1]
    await node.rollout.compile_again()
    assert node.revision.policy is before
    assert node.revision.reload.ok


async def test_a_first_revision_that_does_not_fit(tmp_path: Path) -> None:
    """There is nothing to go back to: it is an error of the start."""
    node = Node(tmp_path)
    node.too_much = ("client", "server")
    with pytest.raises(FileError, match="does not fit"):
        await node.rollout.start()


async def test_a_bad_file_stays_bad_when_the_node_changes(node: Node) -> None:
    """The node's addresses change while a rule file is wrong: what is in force is new, the file is not mended."""
    node.rules.write_text("{")
    await node.rollout.read_again(settled)
    number = node.revision.policy.revision
    await node.rollout.compile_again()
    assert node.revision.policy.revision == number + 1 == node.metrics.reloads.revision
    assert not node.revision.reload.ok
    assert not node.metrics.reloads.last_ok


async def test_warnings_are_those_of_now(node: Node) -> None:
    """Of a hundred and more, `status` has the first; each is told once while it lasts."""
    lonely = [allow(f"nobody-{number}", "ingress", "client") for number in range(MOST_WARNINGS + 5)]
    node.put(lonely)
    await node.rollout.read_again(settled)
    shown = node.revision.reload.warnings
    assert len(shown) == MOST_WARNINGS + 1
    assert shown[-1] == "and 5 more: kproxy check tells all"
    assert "selects no endpoint" in shown[0]
    assert node.revision.take_over(node.revision.first()) == ()
    node.put(lonely[1:])
    await node.rollout.read_again(settled)
    assert len(node.revision.warnings) == MOST_WARNINGS + 4


def test_names_that_are_not_utf8_do_not_keep_status_from_being_told(tmp_path: Path) -> None:
    """A mistake in a file of any name is told over JSON, with the odd bytes as escapes."""
    revision = Node(tmp_path).revision
    revision.keep((os.fsdecode(b"rules/\xff.json: not JSON"),))
    assert msgspec.json.decode(msgspec.json.encode(revision.reload))["errors"] == [
        "rules/\\udcff.json: not JSON"
    ]
