"""From L4 to least privilege on the command line: learn what was seen, compare it with what is in force."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from small_node import HTTP, jobs_policy, line, write

from kproxy import cli
from kproxy.cli.schema import schema

Output = pytest.CaptureFixture[str]

SEEN = "".join(line(path=f"/jobs/{n}") for n in (331, 332, 333, 333)) + line(path="/healthz")


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A node whose policy is in audit mode, and its access log."""
    (tmp_path / "access.jsonl").write_text(SEEN)
    return write(tmp_path, jobs_policy(*HTTP, kproxy={"mode": "audit"}))


def test_the_whole_way(node: Path, capsys: Output) -> None:
    """Audit, learn, check, compare, enforce: what was seen passes, and nothing else does."""
    folder = node.parent
    assert cli.main(["policy", "learn", "--config", str(node)]) == 0
    learned, told = capsys.readouterr()
    assert "1 policy from 5 requests" in told
    (folder / "learned.json").write_text(learned)
    assert (
        cli.main(["check", str(folder / "learned.json"), "--endpoints", str(folder / "endpoints.json")]) == 0
    )
    assert capsys.readouterr().out == "0 errors, 0 warnings\n"

    rules = [str(folder / "rules"), str(folder / "learned.json")]
    log = ["--log", str(folder / "access.jsonl")]
    assert cli.main(["policy", "diff", *rules, "--config", str(node), *log]) == 1
    out = capsys.readouterr().out
    assert "DENY" not in out
    assert "audit -> allow" in out

    (folder / "rules" / "0.json").write_text(learned)
    asked = ["explain", "--config", str(node), "--from", "turtletweets", "--to", "jobs-api", "--port", "80"]
    assert cli.main([*asked, "--path", "/jobs/77"]) == 0
    assert cli.main([*asked, "--path", "/admin"]) == 1
    assert cli.main(["policy", "diff", str(folder / "rules"), rules[1], "--config", str(node), *log]) == 0


def learn(node: Path, capsys: Output, *argv: str) -> dict[str, Any]:
    """What was learned, as JSON."""
    assert cli.main(["policy", "learn", "--json", "--config", str(node), *argv]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_learned_as_json(node: Path, capsys: Output) -> None:
    """Policies, what each rule stands for, and what a person should look at."""
    with open(node.parent / "access.jsonl", "a") as log:
        log.write('not json\n{"time": "in')
    found = learn(node, capsys)
    assert [one["metadata"]["name"] for one in found["policies"]] == ["learned-jobs-api"]
    assert [(one["requests"], one["examples"][0]) for one in found["evidence"]] == [
        (1, "GET /healthz"),
        (4, "GET /jobs/331"),
    ]
    assert [note for note in found["notes"] if "not a JSON object" in note]
    assert [note for note in found["notes"] if "the last line is not complete" in note]


def test_only_the_wanted_verdicts(node: Path, capsys: Output) -> None:
    """Audited requests are learned from unless others are named."""
    (node.parent / "access.jsonl").write_text(
        line(path="/a", verdict="allow") + line(path="/b", verdict="deny") + line(path="/c")
    )

    def paths(*argv: str) -> list[str]:
        rules = learn(node, capsys, *argv)["policies"][0]["spec"]["ingress"][0]["toPorts"][0]["rules"]["http"]
        return [rule["path"] for rule in rules]

    assert paths() == ["/c"]
    assert paths("--verdict", "deny", "--verdict", "audit") == ["/b", "/c"]


def test_what_is_not_there_may_be_left_out(node: Path, capsys: Output) -> None:
    """A scanner's requests become rules, with a note, unless they are to be left out."""
    (node.parent / "access.jsonl").write_text(line(path="/a") + line(path="/wp-admin", status=404))

    def notes(*argv: str) -> tuple[str, int]:
        found = learn(node, capsys, *argv)
        return " ".join(found["notes"]), len(found["evidence"])

    told, rules = notes()
    assert ("only ever answered" in told, rules) == (True, 2)
    told, rules = notes("--leave-out-refused")
    assert ("1 request left out: servers answered that nothing is there" in told, rules) == (True, 1)


def test_from_a_pipe_with_endpoints_alone(node: Path) -> None:
    """Logs of many nodes come through a pipe; no configuration is needed."""
    argv = [sys.executable, "-m", "kproxy.cli", "policy", "learn", "-", "--endpoints", "endpoints.json"]
    run = subprocess.run(argv, input=SEEN.encode(), capture_output=True, check=False, cwd=node.parent)
    assert run.returncode == 0
    assert json.loads(run.stdout)["kind"] == "List"
    assert b"1 policy from 5 requests" in run.stderr


def test_a_file_for_each_policy(node: Path, capsys: Output) -> None:
    """Files that are there are left as they are unless told otherwise; the folder is one that check accepts."""
    out = node.parent / "learned"
    argv = ["policy", "learn", "--config", str(node), "--output", str(out)]
    assert cli.main(argv) == 0
    (written,) = out.iterdir()
    assert written.name == "hr.learned-jobs-api.json"
    assert cli.main(["check", str(out)]) == 0
    written.write_text("mine")
    capsys.readouterr()
    assert cli.main(argv) == 7
    told = capsys.readouterr().err
    assert "hr.learned-jobs-api.json: already there; name another folder, or overwrite with --force" in told
    assert written.read_text() == "mine"
    assert cli.main([*argv, "--force"]) == 0
    assert json.loads(written.read_text())["kind"] == "CiliumNetworkPolicy"
    capsys.readouterr()
    assert cli.main([*argv[:-1], str(node)]) == 7
    assert "cannot be written" in capsys.readouterr().err


def test_nothing_to_learn(node: Path, capsys: Output) -> None:
    """An empty log makes an empty list, which check accepts, and says what may be wrong."""
    (node.parent / "access.jsonl").write_text("")
    assert cli.main(["policy", "learn", "--config", str(node)]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["items"] == []
    assert "nothing was learned" in err


def test_hostile_logs_cannot_paint_the_terminal(node: Path, capsys: Output) -> None:
    """Whatever stands in a log, no control character reaches the terminal, and it stays JSON."""
    bad = "/\x1b]0;owned\x07\u202e"
    told = [line(path=bad), line(path="/\x1b[2J"), line(endpoint=f"hr/{bad}"), line(peer=bad), line(host=bad)]
    (node.parent / "access.jsonl").write_text("".join(told))
    assert cli.main(["policy", "learn", "--config", str(node)]) == 0
    out, err = capsys.readouterr()
    (node.parent / "new.json").write_text(out)
    argv = [str(node.parent / "rules"), str(node.parent / "new.json"), "--config", str(node)]
    cli.main(["policy", "diff", *argv, "--log", str(node.parent / "access.jsonl")])
    out2, err2 = capsys.readouterr()
    assert all(char.isprintable() or char == "\n" for char in out + err + out2 + err2)


def changes(node: Path, capsys: Output, new: dict[str, Any], *argv: str, code: int = 1) -> dict[str, Any]:
    """What would change, as JSON in the published form."""
    (node.parent / "new.json").write_text(json.dumps(new))
    rules = [str(node.parent / "rules"), str(node.parent / "new.json")]
    assert cli.main(["policy", "diff", *rules, "--config", str(node), "--json", *argv]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    jsonschema.validate(found, schema("diff"))
    return found


REQUEST = ("--from", "turtletweets", "--to", "jobs-api", "--port", "80")


def test_described_requests(node: Path, capsys: Output) -> None:
    """A request that nobody sent yet, with its headers: both sides' policies are compared."""
    new = jobs_policy({"method": "POST", "path": "/jobs", "headers": ["X-Role: root"]})
    post = (*REQUEST, "--method", "POST", "--path", "/jobs")
    found = changes(node, capsys, new, *post, "--header", "X-Role: admin")
    (change,) = found["changes"]
    assert (change["before"]["verdict"], change["after"]["verdict"]) == ("allow", "deny")
    assert (change["count"], change["headers_unknown"], change["peers"]) == (0, False, ["hr/turtletweets"])
    assert found["unchanged"] == 1
    assert (
        changes(node, capsys, new, *post, "--header", "X-Role: root")["changes"][0]["after"]["verdict"]
        == "allow"
    )


def test_connections_and_addresses(node: Path, capsys: Output) -> None:
    """Without a request the connection is compared; an address may be known by another name afterwards."""
    new = jobs_policy(*HTTP, ingress=[{"fromCIDR": ["9.1.0.0/16"]}])
    (node.parent / "rules" / "0.json").write_text(json.dumps(jobs_policy(*HTTP)))
    asked = ("--from", "9.2.0.1", "--to", "jobs-api", "--port", "80")
    (change,) = changes(node, capsys, new, *asked)["changes"]
    assert (change["method"], change["peers"], change["after"]["verdict"]) == (None, ["9.2.0.1"], "deny")
    log = node.parent / "access.jsonl"
    log.write_text(
        "".join(
            line(peer="cidr:9.0.0.0/8", peer_address=f"9.2.0.{n}:4000", protocol="tcp", verdict="allow")
            for n in range(20)
        )
        + line(peer="cidr:9.0.0.0/8", peer_address="9.1.0.1:4000", protocol="tcp", verdict="allow")
    )
    found = changes(node, capsys, new, "--log", str(log))
    (change,) = found["changes"]
    assert (len(change["peers"]), change["more_peers"], change["count"]) == (10, 10, 20)
    assert found["unchanged"] == 1


def test_denials_come_first_for_people(node: Path, capsys: Output) -> None:
    """A table: what changes, how often it was seen, whose policy, which request, and both rules."""
    (node.parent / "new.json").write_text(json.dumps(jobs_policy({"path": "/healthz"})))
    rules = [str(node.parent / "rules"), str(node.parent / "new.json")]
    argv = ["--config", str(node), "--log", str(node.parent / "access.jsonl")]
    (node.parent / "rules" / "0.json").write_text(json.dumps(jobs_policy(*HTTP)))
    assert cli.main(["policy", "diff", *rules, *argv]) == 1
    out = capsys.readouterr().out
    rows = [row.split()[:4] for row in out.splitlines() if " -> " in row and not row.startswith(" ")]
    assert rows[:3] == [
        ["allow", "->", "DENY", "2"],
        ["allow", "->", "DENY", "1"],
        ["allow", "->", "DENY", "1"],
    ]
    assert rows[3] == ["deny", "->", "allow", "1"]
    assert "4 changes; 0 requests unchanged" in out


def test_what_could_not_be_asked(node: Path, capsys: Output) -> None:
    """Endpoints and peers that are gone, and lines that are none, are counted."""
    log = node.parent / "access.jsonl"
    log.write_text(line(endpoint="hr/gone") + line(peer="hr/gone") * 2 + "nope\n")
    found = changes(node, capsys, jobs_policy(*HTTP, kproxy={"mode": "audit"}), "--log", str(log), code=0)
    assert (found["unknown_count"], len(found["unknown"])) == (3, 2)
    assert found["left_out"] == {"not a JSON object": 1}
    rules = [str(node.parent / "rules"), str(node.parent / "new.json")]
    assert cli.main(["policy", "diff", *rules, "--config", str(node), "--log", str(log)]) == 0
    assert "note: 3 requests could not be asked:" in capsys.readouterr().out


def test_a_verdict_that_hangs_on_headers_is_marked(node: Path, capsys: Output) -> None:
    """Logs hold no headers: a change that they would decide is not sure."""
    log = node.parent / "access.jsonl"
    log.write_text(line(path="/x") + line(path="/y"))
    new = jobs_policy({"path": "/x", "headers": ["X-A"]}, {"path": "/z"})
    (node.parent / "rules" / "0.json").write_text(json.dumps(jobs_policy({"path": "/x|/y"})))
    found = changes(node, capsys, new, "--log", str(log))
    assert {one["path"]: one["headers_unknown"] for one in found["changes"]} == {"/x": True, "/y": False}
    rules = [str(node.parent / "rules"), str(node.parent / "new.json")]
    cli.main(["policy", "diff", *rules, "--config", str(node), "--log", str(log)])
    assert "note: * a rule looks at headers" in capsys.readouterr().out


def test_ambiguous_paths_are_compared_as_the_proxy_has_them(node: Path, capsys: Output) -> None:
    """Where only one policy looks at paths, a path that servers may read differently changes its verdict."""
    (node.parent / "rules" / "0.json").write_text(json.dumps(jobs_policy({"method": "GET"})))
    new = jobs_policy({"path": "/.*"})
    (change,) = changes(node, capsys, new, *REQUEST, "--path", "/a/%2e")["changes"]
    assert change["after"] == {
        "verdict": "deny",
        "rule": "hr/jobs#ingress[0].toPorts[0].http[0]",
        "reason": "ambiguous_path",
    }


@pytest.mark.parametrize(
    ("argv", "code", "told"),
    [
        (["policy"], 2, ""),
        (["policy", "learn"], 2, ""),
        (
            ["policy", "learn", "--endpoints", "E"],
            2,
            "no access log is named; name a LOG, or - for standard input",
        ),
        (
            ["policy", "learn", "none.jsonl", "--endpoints", "E"],
            2,
            "none.jsonl: cannot be read: No such file",
        ),
        (["policy", "learn", "L", "--endpoints", "none.json"], 2, "none.json: cannot be read"),
        (["policy", "diff", "R", "R", "--endpoints", "E"], 2, "nothing to compare by; name a --log"),
        (["policy", "diff", "R", "none", "--endpoints", "E", "--log", "L"], 2, "none: cannot be read"),
        (["policy", "diff", "R", "E", "--endpoints", "E", "--log", "L"], 2, "has no kind"),
        (
            [
                "policy",
                "diff",
                "R",
                "R",
                "--endpoints",
                "E",
                "--from",
                "x",
                "--to",
                "jobs-api",
                "--port",
                "80",
            ],
            2,
            "x is neither",
        ),
        (
            [
                "policy",
                "diff",
                "R",
                "R",
                "--endpoints",
                "E",
                "--from",
                "world",
                "--to",
                "host",
                "--port",
                "80",
            ],
            2,
            "neither end",
        ),
        (
            ["policy", "diff", "R", "R", "--endpoints", "E", *REQUEST, "--method", "get"],
            2,
            "refuses this request whatever",
        ),
    ],
)
def test_wrong_usage(node: Path, capsys: Output, argv: list[str], code: int, told: str) -> None:
    """Exit code 2 and what to do, never a traceback."""
    folder = node.parent
    real = {"E": "endpoints.json", "L": "access.jsonl", "R": "rules", "none": "none"}
    named = [str(folder / real[one]) if one in real else one for one in argv]
    try:
        found: object = cli.main(named)
    except SystemExit as end:
        found = end.code
    out, err = capsys.readouterr()
    assert (found, out) == (code, "")
    assert told in err
    assert "Traceback" not in err
