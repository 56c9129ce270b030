"""The secrets folder: what is read, what is told of what is wrong, and that no value is ever shown."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import policy
from kproxy import config, reload, secrets
from kproxy.cli import main
from kproxy.errors import FileError
from kproxy.http1 import Http1Flow, HttpOptions
from kproxy.reload import problem
from parsers.http1 import Limits, RequestHead, request_head
from tests.kproxy.recorded import INGRESS, Recorded
from tests.kproxy.story import Clock, Recorder, to_bytes

VALUE = "Bearer s3cret-that-nobody-logs"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A secrets folder with a secret hr/token as a file."""
    made = tmp_path / "secrets"
    (made / "hr").mkdir(parents=True)
    write(made / "hr/token", VALUE + "\n")
    return made


def write(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a file that only its owner reads."""
    path.write_text(text)
    path.chmod(mode)


def mount(folder: Path, value: str, generation: str = "..1", key: str = "password") -> None:
    """Mount a Secret as Kubernetes does, or swap one that is mounted."""
    (folder / generation).mkdir(parents=True)
    write(folder / generation / key, value)
    fresh = folder / "..data_tmp"
    fresh.symlink_to(generation)
    fresh.rename(folder / "..data")
    if not (folder / key).is_symlink():
        (folder / key).symlink_to(f"..data/{key}")


def test_a_file_without_its_line_feed(folder: Path) -> None:
    """One line feed at the end is an editor's, not part of the value."""
    found = secrets.read(str(folder), ["hr/token"])
    assert (found.values, found.errors, found.warnings) == ({"hr/token": VALUE.encode()}, (), ())


def test_a_kubernetes_mount(folder: Path) -> None:
    """A folder with one key behind links is its value, also after it was swapped."""
    for generation, value in (("..1", "one"), ("..2", "two")):
        mount(folder / "hr/mounted", value, generation)
        assert secrets.read(str(folder), ["hr/mounted"]).values == {"hr/mounted": value.encode()}


def test_only_what_is_named_is_read(folder: Path) -> None:
    """What no rule asks for may be as wrong as it likes."""
    write(folder / "hr/other", "\x00")
    assert set(secrets.read(str(folder), ["hr/token"]).values) == {"hr/token"}
    assert secrets.read(str(folder), []).values == {}
    assert secrets.read(None, ["hr/token"]).values == {}


@pytest.mark.parametrize("name", ["hr/absent", "absent/token", "hr/empty", "hr/dangling"])
def test_a_secret_that_is_not_there(folder: Path, name: str) -> None:
    """It is left out, for policy to tell of: absent, a mount without its Secret yet, a link to nothing."""
    (folder / "hr/empty").mkdir()
    (folder / "hr/dangling").symlink_to("nowhere")
    found = secrets.read(str(folder), [name])
    assert (found.values, found.errors) == ({}, ())


Make = Callable[[Path], object]
WRONG: dict[str, tuple[Make, str]] = {
    "empty": (lambda path: write(path, ""), "is empty"),
    "only a line feed": (lambda path: write(path, "\n"), "is empty"),
    "two lines": (lambda path: write(path, f"{VALUE}\n{VALUE}\n"), "is not a header value"),
    "CR": (lambda path: write(path, f"{VALUE}\r\n"), "is not a header value"),
    "NUL": (lambda path: write(path, f"{VALUE}\0"), "is not a header value"),
    "a control": (lambda path: write(path, f"{VALUE}\x1b[0m"), "is not a header value"),
    "not ASCII": (lambda path: write(path, f"{VALUE}ü"), "is not a header value"),
    "a blank at the end": (lambda path: write(path, f"{VALUE} "), "is not a header value"),
    "too long": (lambda path: write(path, VALUE * 300), "is longer than 8192 bytes"),
    "a pipe": (os.mkfifo, "is not a file"),
    "two keys": (lambda path: [mount(path, VALUE), mount(path, VALUE, "..2", "user")], "has 2 keys"),
    "a folder in a folder": (lambda path: (path / "key/more").mkdir(parents=True), "cannot be read"),
    "a loop": (lambda path: path.symlink_to(path.name), "cannot be read"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_by_its_path(folder: Path, name: str) -> None:
    """With a sentence, and without the value."""
    make, told = WRONG[name]
    make(folder / "hr/bad")
    found = secrets.read(str(folder), ["hr/bad", "hr/token"])
    assert [one.file.startswith(str(folder / "hr/bad")) for one in found.errors] == [True]
    assert told in found.errors[0].message
    assert "s3cret" not in str(found.errors)
    assert set(found.values) == {"hr/token"}


def test_what_every_user_can_read_is_a_warning(folder: Path) -> None:
    """It is read all the same: it may be the default of a mount."""
    write(folder / "hr/token", VALUE, 0o644)
    found = secrets.read(str(folder), ["hr/token"])
    assert set(found.values) == {"hr/token"}
    assert "every user can read" in found.warnings[0].message


def test_their_number_is_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than can be opened at every reload are refused as a whole."""
    monkeypatch.setattr(secrets, "MAX_SECRETS", 1)
    assert not secrets.read(str(folder), ["hr/token"]).errors
    assert "at most" in secrets.read(str(folder), ["hr/token", "hr/b"]).errors[0].message


def match(name: str, mismatch: str | None = None, secret: str = "token") -> dict[str, Any]:
    """One header match with a secret."""
    return {"name": name, "secret": {"name": secret}} | ({"mismatch": mismatch} if mismatch else {})


RULES = [
    {"path": "/add", "headerMatches": [match("X-Token", "ADD")]},
    {"path": "/fail", "headerMatches": [match("X-Token")]},
    {"path": "/log", "headerMatches": [match("X-Token", "LOG")]},
    {"path": "/replace", "headerMatches": [{"name": "X-Own", "value": VALUE, "mismatch": "REPLACE"}]},
]


@pytest.fixture
def node(folder: Path) -> Path:
    """A configuration whose rules use the secret, and a value of their own."""
    tmp_path = folder.parent
    ports = [{"ports": [{"port": "80", "protocol": "TCP"}], "rules": {"http": RULES}}]
    document = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "p", "namespace": "hr"},
        "spec": {"endpointSelector": {"matchLabels": {"app": "jobs"}}, "ingress": [{"toPorts": ports}]},
    }
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules/p.json").write_text(json.dumps(document))
    endpoint = {"name": "jobs", "namespace": "hr", "labels": {"app": "jobs"}, "addresses": ["10.0.0.2"]}
    (tmp_path / "endpoints.json").write_text(json.dumps({"endpoints": [endpoint]}))
    path = tmp_path / "config.json"
    keys = {"node": "n", "rules": ["rules"], "endpoints": "endpoints.json", "secrets": "secrets"}
    path.write_text(json.dumps(keys))
    return path


def in_force(node: Path) -> policy.NodePolicy:
    """Read and compile."""
    settings = config.load(node)
    return reload.read(settings).compile(settings, (), 1)


def flow_of(revision: policy.NodePolicy, recorded: Recorded) -> tuple[Http1Flow, Recorder]:
    """A flow to the endpoint from anywhere, told of by a real observer."""
    judges = revision.endpoint("hr", "jobs").ingress.http(revision.world.number, 80)
    wire = Recorder()
    observer = recorded.observer.flow([INGRESS])
    return Http1Flow(wire, judges.judge, observer, HttpOptions(), Clock()), wire


def test_rules_use_the_secret(node: Path) -> None:
    """FAIL compares with it, ADD sends it on, and the log names the edit."""
    recorded = Recorded()
    flow, wire = flow_of(in_force(node), recorded)
    flow.downstream_data(to_bytes("GET /add HTTP/1.1¶Host: a¶¶"))
    assert bytes(wire.upstream).endswith(f"\r\nx-token: {VALUE}\r\n\r\n".encode())
    flow.upstream_data(to_bytes("{ok}"))
    assert recorded.last().edits == ("add x-token",)
    flow.downstream_data(to_bytes("GET /fail HTTP/1.1¶Host: a¶X-Token: wrong¶¶"))
    assert recorded.last().verdict == "deny"
    flow.downstream_data(to_bytes(f"GET /fail HTTP/1.1¶Host: a¶X-Token: {VALUE}¶¶"))
    flow.upstream_data(to_bytes("{ok}"))
    assert (recorded.last().verdict, recorded.last().edits) == ("allow", ())


def test_a_missing_secret_closes_its_rules(node: Path, folder: Path) -> None:
    """And a warning names it; the node starts, and other rules hold."""
    (folder / "hr/token").unlink()
    revision = in_force(node)
    flow, wire = flow_of(revision, recorded := Recorded())
    for path in ("/add", "/fail", "/log"):
        flow.downstream_data(to_bytes(f"GET {path} HTTP/1.1¶Host: a¶X-Token: x¶¶"))
        assert recorded.last().verdict == "deny"
    assert not wire.upstream
    warnings = [str(problem(one)) for one in revision.warnings]
    assert sum("there is no secret hr/token" in one for one in warnings) == 3


def test_a_bad_secret_is_a_mistake_like_one_in_a_rule(node: Path, folder: Path) -> None:
    """All of what was read stays out of force, and the mistake names the file."""
    write(folder / "hr/token", f"{VALUE}\nX-Role: admin\n")
    with pytest.raises(FileError) as refused:
        in_force(node)
    assert [one.file for one in refused.value.problems] == [str(folder / "hr/token")]
    assert "s3cret" not in f"{refused.value!r} {refused.value}"


Output = pytest.CaptureFixture[str]


def test_no_value_is_ever_shown(node: Path, caplog: pytest.LogCaptureFixture, capsys: Output) -> None:
    """Not in a log line, a repr, a metric, a refusal, a warning, nor by the commands, whatever a client sends."""
    caplog.set_level(logging.DEBUG)
    recorded = Recorded()
    settings = config.load(node)
    wanted = reload.read(settings)
    revision = wanted.compile(settings, (), 1)
    judges = revision.endpoint("hr", "jobs").ingress.http(revision.world.number, 80)
    shown = [repr(wanted), repr(revision), repr(judges), repr(vars(wanted.secrets)), repr(wanted.rules)]
    for path in ("add", "fail", "log", "replace"):
        for fields in ("", "X-Token: x¶", f"X-Token: {VALUE}¶", "X_Token: x¶", "Connection: x-token¶"):
            flow, wire = flow_of(revision, recorded)
            request = to_bytes(f"GET /{path} HTTP/1.1¶Host: a¶{fields}¶")
            flow.downstream_data(request)
            flow.upstream_data(to_bytes("{ok}"))
            shown.append(bytes(wire.downstream).decode())
            try:
                head = request_head.read_request_head(request, Limits())
            except ValueError:
                continue
            shown.append(repr(judges.judge(head)))
            asked = policy.explain(
                revision, policy.party(revision, "9.9.9.9"), policy.party(revision, "hr/jobs"), 80, head
            )
            shown += [repr(asked), msgspec.json.encode(asked).decode()]
    for arguments in (["check", "--config", str(node)], ["check", "--json", str(node.parent / "rules")]):
        main(arguments)
    shown += [caplog.text, *capsys.readouterr(), b"".join(recorded.lines).decode(), repr(recorded.metrics)]
    assert any("add x-token" in one for one in shown)
    assert [one for one in shown if "s3cret" in one] == []


def test_an_error_within_shows_no_value(node: Path) -> None:
    """An exception out of judging or editing is told in the log: it holds no value."""
    revision = in_force(node)
    recorded = Recorded()
    judges = revision.endpoint("hr", "jobs").ingress.http(revision.world.number, 80)

    def broken(head: RequestHead) -> policy.Judgement:
        raise RuntimeError(f"broke over {judges.judge(head)!r}")

    wire = Recorder()
    flow = Http1Flow(wire, broken, recorded.observer.flow([INGRESS]), HttpOptions(), Clock())
    flow.downstream_data(to_bytes("GET /add HTTP/1.1¶Host: a¶¶"))
    assert recorded.last().reason == "internal_error"
    assert b"s3cret" not in b"".join(recorded.lines)
