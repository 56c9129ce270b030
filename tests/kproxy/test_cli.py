"""The command line: exit codes, what is printed where, and that no expected failure shows a traceback."""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kproxy import cli, errors
from kproxy.admin import AdminServer
from kproxy.cli import node as cli_node
from kproxy.cli import run, schema, status
from kproxy.collector import NodeCollector
from kproxy.config import Address, Config
from kproxy.errors import EXIT_CODES, KproxyError, Problem
from kproxy.metrics import Metrics
from kproxy.state import EndpointStatus, FeatureStatus, ReloadStatus, Status
from sockmap import errors as sockmap_errors
from tests.kproxy import small_node
from tests.kproxy.small_node import FROM_TWEETS, jobs_policy
from tests.kproxy.test_admin import Kernel, Node

Output = pytest.CaptureFixture[str]

HTTP = "/spec/ingress/0/toPorts/0/rules/http"

RULES = [
    {
        "endpointSelector": {"matchLabels": {"app": "turtletweets"}},
        "egress": [{"toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}]}]}],
    }
]


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """Write a whole node's files without mistakes; gives the configuration."""
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "a.json").write_text(json.dumps(RULES))
    endpoint = {"name": "turtletweets", "labels": {"app": "turtletweets"}, "addresses": ["10.0.0.3"]}
    (tmp_path / "endpoints.json").write_text(json.dumps({"endpoints": [endpoint]}))
    config = {"node": "n1", "rules": ["rules"], "endpoints": "endpoints.json"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path / "config.json"


def test_check_of_good_files(node: Path, capsys: Output) -> None:
    """Without errors the exit code is 0, for rules alone and for a whole node."""
    assert cli.main(["check", str(node.parent / "rules")]) == 0
    assert cli.main(["check", "--config", str(node)]) == 0
    assert capsys.readouterr().out == "0 errors, 0 warnings\n" * 2


def test_check_names_every_mistake(node: Path, capsys: Output) -> None:
    """Mistakes in rules, endpoints and configuration come in one go, each as file:line: pointer: message."""
    folder = node.parent
    (folder / "rules" / "b.json").write_text('[\n {"endpointSelector": {}, "egres": []}\n]')
    (folder / "endpoints.json").write_text('{"endpoints": [\n {"name": "x", "addresses": ["y"]}]}')
    assert cli.main(["check", "--config", str(node)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith(f"{folder}/rules/b.json:2: /0/egres: ") for line in lines)
    assert any(line.startswith(f"{folder}/endpoints.json:2: /endpoints/0/addresses/0: ") for line in lines)
    assert lines[-1] == f"{len(lines) - 1} errors, 0 warnings"


def test_check_as_json(node: Path, capsys: Output) -> None:
    """The published form: errors and warnings, each with file, pointer and message."""
    (node.parent / "rules" / "b.json").write_text('[{"endpointSelector": {}, "ingress": [{}], "egres": []}]')
    (node.parent / "rules" / "notes.md").write_text("x")
    assert cli.main(["check", "--json", str(node.parent / "rules")]) == 1
    told = json.loads(capsys.readouterr().out)
    assert set(told) == {"errors", "warnings"}
    (error,) = told["errors"]
    assert (error["file"], error["pointer"]) == (str(node.parent / "rules" / "b.json"), "/0/egres")
    assert error["message"]
    assert [warning["file"] for warning in told["warnings"]] == [str(node.parent / "rules" / "notes.md")]


def test_check_of_a_bad_configuration(node: Path, capsys: Output) -> None:
    """A configuration with mistakes is an answer of check, not a failure of it."""
    node.write_text("{}")
    assert cli.main(["check", "--config", str(node)]) == 1
    assert 'the key "node" is missing' in capsys.readouterr().out


WORTH_A_LOOK = [
    (
        {},
        {"endpointSelector": {"matchLabels": {"app": "jobs"}}},
        "/spec",
        "selects no endpoint",
        "mend the labels",
    ),
    ({"path": "/v1/"}, {}, f"{HTTP}/0/path", "nothing below it", "write /v1/.*"),
    ({"host": "jobs.hr"}, {}, f"{HTTP}/0/host", "match any character", r"write \."),
    (
        {"path": "/a"},
        {"http": [{"path": "/a", "method": "GET"}]},
        f"{HTTP}/1",
        "decides nothing",
        "remove one",
    ),
    (
        {"path": "/a"},
        {"wide": True},
        "/spec/ingress/0/toPorts/0",
        "requests are not judged here",
        "http rules too",
    ),
    (
        {"path": "/a"},
        {"peer": "gone"},
        "/spec/ingress/0",
        "no known peer has the labels app=gone",
        "mend the labels",
    ),
    (
        {"path": "/a"},
        {"port": "web"},
        "/spec/ingress/0/toPorts/0",
        "a port named web",
        "add it to the endpoints",
    ),
]


@pytest.mark.parametrize(("http", "more", "pointer", "message", "mend"), WORTH_A_LOOK)
def test_check_warns(
    tmp_path: Path,
    capsys: Output,
    http: dict[str, str],
    more: dict[str, Any],
    pointer: str,
    message: str,
    mend: str,
) -> None:
    """What is right but likely not meant: each with file, line, pointer and mend, and exit code 0."""
    spec = jobs_policy(http, *more.get("http", ()))
    ingress = spec["spec"]["ingress"]
    if more.get("wide"):
        ingress.append(FROM_TWEETS)
    if "peer" in more:
        ingress[0]["fromEndpoints"] = [{"matchLabels": {"app": more["peer"]}}]
    if "port" in more:
        ingress[0]["toPorts"][0]["ports"][0]["port"] = more["port"]
    spec["spec"] |= {key: value for key, value in more.items() if key == "endpointSelector"}
    config = small_node.write(tmp_path, spec)
    assert cli.main(["check", "--json", "--config", str(config)]) == 0
    told = json.loads(capsys.readouterr().out)
    (warning,) = [one for one in told["warnings"] if message in one["message"]]
    assert (told["errors"], warning["pointer"]) == ([], pointer)
    assert warning["file"].endswith("/rules/0.json")
    assert warning["line"] > 1
    assert mend in warning["mend"]


def test_check_of_rules_alone_knows_nobody(tmp_path: Path, capsys: Output) -> None:
    """Without endpoints nothing is said of who is missing; with them it is."""
    config = small_node.write(tmp_path, jobs_policy({}, endpointSelector={"matchLabels": {"app": "x"}}))
    rules, endpoints = str(tmp_path / "rules"), str(tmp_path / "endpoints.json")
    assert cli.main(["check", rules]) == 0
    assert "selects no endpoint" not in capsys.readouterr().out
    assert cli.main(["check", rules, "--endpoints", endpoints]) == 0
    assert f"warning: {rules}/0.json:" in capsys.readouterr().out
    assert config.exists()


def test_check_cannot_be_made_to_paint_the_terminal(tmp_path: Path, capsys: Output) -> None:
    """A message quotes what a file holds; control characters in it are escaped."""
    (tmp_path / "a.json").write_text(json.dumps([{"endpointSelector": {}, "\x1b[2J": []}]))
    assert cli.main(["check", str(tmp_path / "a.json")]) == 1
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert r"\x1b[2J" in out


@pytest.mark.parametrize(
    "argv", [[], ["check"], ["run"], ["explode"], ["schema", "x"], ["status", "--admin", "x"]]
)
def test_usage(argv: list[str], capsys: Output) -> None:
    """Wrong usage is exit code 2 and a line on standard error."""
    assert code_of(argv) == 2
    out, err = capsys.readouterr()
    assert (out, bool(err)) == ("", True)


def code_of(argv: list[str]) -> object:
    """Run the command; argparse ends by exception, the rest by return."""
    try:
        return cli.main(argv)
    except SystemExit as end:
        return end.code


def test_help_names_every_exit_code(capsys: Output) -> None:
    """--help lists the exit codes, and every error class has one of them."""
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    shown = capsys.readouterr().out
    codes = dict(EXIT_CODES)
    for code, told in codes.items():
        assert f"{code:2}  {told}" in shown
    assert {kind.exit_code for kind in kinds(KproxyError)} <= codes.keys()


def kinds(root: type[KproxyError]) -> Iterator[type[KproxyError]]:
    """Give a class and all below it."""
    yield root
    for kind in root.__subclasses__():
        yield from kinds(kind)


@pytest.mark.parametrize("kind", [kind for kind in kinds(KproxyError) if kind is not errors.FileError])
def test_expected_failures_are_one_line(
    kind: type[KproxyError], monkeypatch: pytest.MonkeyPatch, node: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What can go wrong at run is one line with its mend and the documented exit code."""

    def fails(config: Config) -> int:
        raise kind("something is wrong", "do this")

    monkeypatch.setattr(run, "_service", lambda: fails)
    assert cli.main(["run", "--config", str(node)]) == kind.exit_code
    out, err = capfd.readouterr()
    assert (out, err) == ("", "kproxy: something is wrong; do this\n")


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (sockmap_errors.NotPermittedError, 3),
        (sockmap_errors.CgroupError, 4),
        (sockmap_errors.CompileError, 4),
        (sockmap_errors.AttachError, 4),
        (sockmap_errors.NamespaceError, 6),
    ],
)
def test_failures_of_the_kernel_side(
    kind: type[sockmap_errors.SockmapError],
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    node: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """What the BPF side reports reaches the terminal in the same form."""

    def fails(config: Config) -> int:
        raise kind("the kernel said no", "ask it nicely")

    monkeypatch.setattr(run, "_service", lambda: fails)
    assert cli.main(["run", "--config", str(node)]) == code
    assert capfd.readouterr().err == "kproxy: the kernel said no; ask it nicely\n"


def test_every_kernel_side_failure_is_known() -> None:
    """No exception of sockmap lacks an exit code."""
    assert set(sockmap_errors.SockmapError.__subclasses__()) == set(run._KINDS)


def test_bad_configuration_at_run(node: Path, capsys: Output) -> None:
    """`run` tells all mistakes of the configuration and ends with 2."""
    node.write_text('{"node": "n1", "rulez": [], "endpoints": 3}')
    assert cli.main(["run", "--config", str(node)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith(f"kproxy: {node}:1: ") for line in lines)


def test_run_passes_on_what_it_was_told(monkeypatch: pytest.MonkeyPatch, node: Path) -> None:
    """The option wins over the file, and the service's exit code is the command's."""
    seen: list[Config] = []

    def service(config: Config) -> int:
        seen.append(config)
        return 0

    monkeypatch.setattr(run, "_service", lambda: service)
    assert cli.main(["run", "--config", str(node)]) == 0
    assert cli.main(["run", "--config", str(node), "--detach-on-exit"]) == 0
    assert [config.detach_on_exit for config in seen] == [False, True]


def test_a_defect_is_a_traceback(monkeypatch: pytest.MonkeyPatch, node: Path, capfd: Any) -> None:
    """What no one expected is shown as what it is, under an exit code of its own."""

    def fails(config: Config) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(run, "_service", lambda: fails)
    assert cli.main(["run", "--config", str(node)]) == errors.DEFECT
    assert "Traceback" in capfd.readouterr().err


def test_version(capsys: Output) -> None:
    """The version is readable by people and by programs."""
    assert cli.main(["version"]) == 0
    assert capsys.readouterr().out.startswith("kproxy ")
    assert cli.main(["version", "--json"]) == 0
    assert {"kproxy", "python", "kernel"} <= set(json.loads(capsys.readouterr().out))


STATUS = Status(
    node="n1",
    version="0.1.0",
    not_ready=("hr/jobs-api: no such namespace",),
    fail_mode="closed",
    policy_revision=7,
    reload=ReloadStatus(ok=False, time="2026-01-02T03:04:05Z", errors=("a.json:1: /x: unknown key",)),
    endpoints=(
        EndpointStatus(name="hr/a", state="enforced", addresses=("10.0.0.2",), splice=True, flows=3),
        EndpointStatus(name="hr/b", state="failed", detail="no such namespace"),
    ),
    flows=3,
    features=(
        FeatureStatus(name="sk_msg", found=True),
        FeatureStatus(name="fionread", found=False, cost="no splicing"),
    ),
    limits={},
    limits_bit={"headBytes": 2},
    access_log_lost=5,
    access_log_trouble="access.jsonl cannot be written: No space left on device",
)


@pytest.fixture
def running() -> Iterator[tuple[Node, Address]]:
    """Run an admin listener on a thread of its own."""
    node = Node()
    loop = asyncio.new_event_loop()
    server = AdminServer(node, NodeCollector(Metrics(10), Kernel(), None, "closed", "0.1.0"))
    listener = loop.run_until_complete(server.start(Address("127.0.0.1", 0)))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield node, Address("127.0.0.1", listener.sockets[0].getsockname()[1])
    asyncio.run_coroutine_threadsafe(server.close(listener), loop).result(20)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(20)
    loop.close()


def test_status_of_a_running_node(running: tuple[Node, Address], capsys: Output) -> None:
    """A ready node is exit code 0, one that is not 1, and --json prints its own answer."""
    node, address = running
    assert cli.main(["status", "--admin", str(address)]) == 0
    assert capsys.readouterr().out.startswith("n1: ready")
    node.reasons = ("the hooks are not attached",)
    assert cli.main(["status", "--admin", str(address), "--json"]) == 1
    assert msgspec.json.decode(capsys.readouterr().out, type=Status) == node.status()


def test_status_by_configuration(running: tuple[Node, Address], node: Path, capsys: Output) -> None:
    """The configuration names the admin address; without one the mistake is told."""
    content = json.loads(node.read_text())
    node.write_text(json.dumps(content | {"admin": str(running[1])}))
    assert cli.main(["status", "--config", str(node)]) == 0
    node.write_text(json.dumps(content | {"admin": None}))
    assert cli.main(["status", "--config", str(node)]) == 2
    assert '"admin": null' in capsys.readouterr().err


def test_status_without_a_node(capsys: Output) -> None:
    """Where no node answers, that is said, with how to start one."""
    assert cli.main(["status", "--admin", "127.0.0.1:1"]) == 8
    assert capsys.readouterr().err == (
        "kproxy: no node answers at 127.0.0.1:1: Connection refused; "
        "start it with kproxy run, or name its admin address with --admin\n"
    )


def test_status_of_something_else(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    """What answers but is not kproxy is told as such."""
    monkeypatch.setattr(status, "fetch", lambda address: b"<html>")
    assert cli.main(["status"]) == 8
    assert "is not kproxy" in capsys.readouterr().err


def test_status_for_people() -> None:
    """Everything that an operator must mend is on the screen."""
    shown = "\n".join(status.lines(STATUS))
    for told in (
        "NOT READY",
        "not ready: hr/jobs-api: no such namespace",
        "revision 7",
        "FAILED, the last good policy stays",
        "error: a.json:1: /x: unknown key",
        "hr/a: enforced, 3 flows, spliced [10.0.0.2]",
        "hr/b: failed (no such namespace)",
        "1 of 2 features",
        "missing fionread: no splicing",
        "limit headBytes bit 2 times",
        "5 lines lost: access.jsonl cannot be written",
    ):
        assert told in shown


ASKED = ["--from", "turtletweets", "--to", "jobs-api", "--port", "80"]


def test_explain_of_a_running_node(running: tuple[Node, Address], node: Path, capsys: Output) -> None:
    """What is in force is told with its revision, by address or by the configuration that names it."""
    address = str(running[1])
    assert cli.main(["explain", "--admin", address, *ASKED, "--path", "/jobs/1"]) == 0
    assert "from: revision 7, in force on n1" in capsys.readouterr().out
    assert cli.main(["explain", "--admin", address, *ASKED, "--path", "/\udcff", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["revision"] == 7
    node.write_text(json.dumps(json.loads(node.read_text()) | {"admin": address}))
    assert cli.main(["explain", "--config", str(node), "--running"]) == 0
    assert "hr/jobs-api: who may call it" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--from", "nobody", "--to", "jobs-api"], "nobody is neither a known workload"),
        ([*ASKED, "--path", "/" + "a" * 40_000], "the question is longer than"),
    ],
)
def test_a_node_that_does_not_answer_a_question(
    running: tuple[Node, Address], capsys: Output, argv: list[str], told: str
) -> None:
    """What the node finds wrong is exit code 2 and one line here."""
    assert cli.main(["explain", "--admin", str(running[1]), *argv]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert told in err


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ((200, b"<html>"), "is not kproxy"),
        ((200, b'{"a": "\xff"}'), "is not kproxy"),
        ((400, b"bad request"), "is not kproxy"),
        ((404, b"not found"), "answers /explain with 404; is it a node of this version?"),
    ],
)
def test_explain_of_something_else(
    monkeypatch: pytest.MonkeyPatch, capsys: Output, answer: tuple[int, bytes], told: str
) -> None:
    """What answers but is not kproxy is told as such."""
    monkeypatch.setattr(cli_node, "get", lambda address, target: answer)
    assert cli.main(["explain", *ASKED]) == 2
    assert told in capsys.readouterr().err


def test_explain_without_a_node(node: Path, capsys: Output) -> None:
    """Unlike status, no node is exit code 2: 1 means denied, and nothing else than 0 to 2 is an answer."""
    assert cli.main(["explain", "--admin", "127.0.0.1:1", *ASKED]) == 2
    assert "no node answers at 127.0.0.1:1: Connection refused" in capsys.readouterr().err
    assert cli.main(["explain", "--running", *ASKED]) == 2
    assert "--running goes with --config" in capsys.readouterr().err
    node.write_text(json.dumps(json.loads(node.read_text()) | {"admin": None}))
    assert cli.main(["explain", "--config", str(node), "--running"]) == 2
    assert '"admin": null' in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["rules", *schema.KINDS])
def test_published_schemas_are_current(kind: str, capsys: Output) -> None:
    """docs/schemas holds what `kproxy schema` prints."""
    assert cli.main(["schema", kind]) == 0
    published = Path(__file__).parents[2] / "docs" / "schemas" / f"{kind}.json"
    assert published.read_text() == capsys.readouterr().out


def test_output_that_no_one_reads(node: Path) -> None:
    """A reader that goes away early, such as head, is no failure."""
    command = f"{sys.executable} -m kproxy.cli schema config | head -c 1"
    run = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, check=False)
    assert (run.returncode, run.stderr) == (0, b"")


def test_problems_read_as_editors_expect() -> None:
    """A problem without line or pointer leaves them out."""
    assert str(Problem("f", 3, "/a", "wrong", "mend it")) == "f:3: /a: wrong; mend it"
    assert str(Problem("f", 0, "", "wrong")) == "f: wrong"


def test_every_command_has_help() -> None:
    """Each command describes itself."""
    actions = [a for a in cli.parser()._actions if isinstance(a, argparse._SubParsersAction)]
    known = {"run", "demo", "check", "explain", "policy", "status", "version", "schema"}
    assert set(actions[0].choices) == known
