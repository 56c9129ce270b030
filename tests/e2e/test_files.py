"""Mistakes in files, and unusual ways to change files, as seen from outside: gauge, status, traffic."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rig import Node, accept, asker, connect, document, eventually, http_rule, listen, put, running_node

from kproxy.demo.network import Network

pytestmark = pytest.mark.bpf

GOOD = document([http_rule("server", "ingress", "client", 80, [{"path": "/jobs/.*"}], "good")])
WIDER = document(
    [http_rule("server", "ingress", "client", 80, [{"path": "/jobs/.*"}, {"path": "/x"}], "good")]
)
MISSPELT = GOOD.replace('"path"', '"pth"')


@pytest.fixture
def listener(network: Network) -> Iterator[socket.socket]:
    """A server that the test answers for by hand."""
    with listen(network["server"], 80) as made:
        yield made


@pytest.fixture
def node(network: Network, tmp_path: Path) -> Iterator[Node]:
    """The server's ingress is enforced."""
    with running_node(tmp_path, network, json.loads(GOOD)["items"], ["server"]) as running:
        yield running


def syntax(folder: Path) -> None:
    """A bracket is missing."""
    (folder / "bad.json").write_text(GOOD[:-2])


def unknown_field(folder: Path) -> None:
    """A key that is no key."""
    (folder / "bad.json").write_text(MISSPELT)


def not_text(folder: Path) -> None:
    """Bytes."""
    (folder / "bad.json").write_bytes(b'{"kind": "\xff"}')


def dangling(folder: Path) -> None:
    """A link to nowhere."""
    (folder / "bad.json").symlink_to("nowhere")


def renamed_over(folder: Path) -> None:
    """The good file itself is replaced."""
    put(folder / "policy.json", MISSPELT)


def config_map(folder: Path) -> None:
    """As Kubernetes does it: a link to a link to a folder."""
    for version, text in (("..v1", document([])), ("..v2", MISSPELT)):
        (folder / version).mkdir()
        (folder / version / "bad.json").write_text(text)
    (folder / "..data").symlink_to("..v1")
    (folder / "bad.json").symlink_to("..data/bad.json")
    (folder / "..data_tmp").symlink_to("..v2")
    (folder / "..data_tmp").rename(folder / "..data")


def another_folder(folder: Path) -> None:
    """The folder goes and another takes its name."""
    fresh = folder.with_name("fresh")
    fresh.mkdir()
    unknown_field(fresh)
    folder.rename(folder.with_name("former"))
    fresh.rename(folder)


BAD: list[tuple[Callable[[Path], None], str]] = [
    (syntax, "bad.json"),
    (unknown_field, "bad.json:1: /items/0/spec/ingress/0/toPorts/0/rules/http/0/pth"),
    (not_text, "bad.json:1: not UTF-8"),
    (dangling, "bad.json: cannot be read"),
    (renamed_over, "policy.json:1: /items/0/spec/ingress/0/toPorts/0/rules/http/0/pth"),
    (config_map, "bad.json:1: /items/0/spec"),
    (another_folder, "bad.json:1: /items/0/spec"),
]


@pytest.mark.parametrize(("act", "told"), BAD, ids=[act.__name__ for act, _ in BAD])
def test_mistake_keeps_the_whole_last_good_state(
    network: Network, listener: socket.socket, node: Node, act: Callable[[Path], None], told: str
) -> None:
    """Gauge and status say which file and where; nothing of the folder is taken over; mending it ends it."""
    folder = node.rules.parent
    ask = asker(connect(network["client"], network["server"], 80), accept(listener))
    assert ask() == 200
    revision = node.revision()
    (folder / "more.json").write_text(document([http_rule("stranger", "egress", "client", 80, name="more")]))
    act(folder)
    eventually(lambda: node.count("kproxy_policy_reload_success") == 0, "the mistake is noticed")
    eventually(lambda: told in str(node.status()["reload"]["errors"]), f"{told!r} is told")
    assert ask() == 200
    assert node.count("kproxy_policy_errors") == 1
    before = node.revision()
    assert before <= revision + 1  # more.json alone may have been seen first
    shutil.rmtree(folder)
    folder.mkdir()
    put(folder / "policy.json", WIDER)
    eventually(lambda: node.count("kproxy_policy_reload_success") == 1, "the mended state is taken over")
    eventually(lambda: node.revision() > before, "it is in force")
    assert ask() == 200


def test_file_that_comes_and_goes(network: Network, node: Node) -> None:
    """A file that was there for a moment, half-written, leaves no trace."""
    for _ in range(20):
        bad = node.rules.with_name("half.json")
        bad.write_text(GOOD[:40])
        bad.unlink()
    with node.reading():
        put(node.rules, WIDER)
    assert node.status()["reload"] | {"time": ""} == {"ok": True, "time": "", "errors": [], "warnings": []}


def test_a_thousand_files_at_once(network: Network, node: Node) -> None:
    """They come into force together, in a handful of revisions and not in a thousand."""
    before = node.revision()
    for number in range(1000):
        rule = http_rule("server", "ingress", "stranger", 1000 + number, [{"path": "/x"}], f"p{number}")
        node.rules.with_name(f"p{number}.json").write_text(document([rule]))

    def is_in_force(port: int) -> bool:
        try:
            connect(network["stranger"], network["server"], port)
        except ConnectionRefusedError:
            return False
        return True  # kproxy took it, to judge its requests

    eventually(lambda: is_in_force(1999), "the last file is in force")
    assert is_in_force(1000)
    assert node.revision() - before < 50


def test_the_last_of_quick_changes_wins(network: Network, listener: socket.socket, node: Node) -> None:
    """Changes that come while the one before is read and compiled are not lost: what is in force is the last."""
    ask = asker(connect(network["client"], network["server"], 80), accept(listener))
    for number in range(300):
        rules = [{"path": "/jobs/.*" if number == 299 else f"/other{number}"}]
        node.put_rules([http_rule("server", "ingress", "client", 80, rules, f"p{number}")])
    last = "default/p299#ingress[0].toPorts[0].http[0]"
    eventually(lambda: ask() and any(line["rule"] == last for line in node.log()), "the last is in force")
    assert ask() == 200
