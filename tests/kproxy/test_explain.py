"""`kproxy explain` from files: verdicts, exit codes, what is printed for people, and the published JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from small_node import FROM_TWEETS, HTTP, jobs_policy, write
from story import Story

from kproxy import cli, parties
from kproxy.cli import asking
from kproxy.cli.schema import schema
from kproxy.cli.text import printable
from kproxy.parties import EndpointName
from sockmap.layout import Direction

Output = pytest.CaptureFixture[str]
Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """The small node's configuration."""
    return write(tmp_path)


@pytest.fixture
def ask(node: Path, capsys: Output) -> Ask:
    """Ask in the words of a shell; gives the JSON answer, which has the published form and the exit code."""

    def asked(*argv: str) -> dict[str, Any]:
        code = cli.main(["explain", "--config", str(node), "--json", *argv])
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        jsonschema.validate(answer, schema("explain" if "verdict" in answer else "reach"))
        assert code == (1 if answer.get("verdict") == "deny" else 0)
        return answer

    return asked


TWEETS = ("--from", "turtletweets", "--to", "jobs-api", "--port", "80")


@pytest.mark.parametrize(
    ("argv", "verdict", "rule", "reason"),
    [
        ((*TWEETS, "--path", "/jobs/1"), "allow", "hr/jobs#ingress[0].toPorts[0].http[0]", "allowed by rule"),
        ((*TWEETS, "--path", "/jobs/x"), "deny", "hr/jobs#ingress[0].toPorts[0]", "did not match"),
        ((*TWEETS, "--method", "POST"), "deny", "hr/jobs#ingress[0].toPorts[0]", "did not match"),
        (
            (*TWEETS, "--method", "POST", "--path", "/jobs", "--header", "X-Role: admin"),
            "allow",
            "hr/jobs#ingress[0].toPorts[0].http[1]",
            "",
        ),
        (
            (
                *TWEETS,
                "--method",
                "POST",
                "--path",
                "/jobs",
                "--header",
                "X-Role: admin",
                "--header",
                "X-Role: me",
            ),
            "deny",
            "hr/jobs#ingress[0].toPorts[0]",
            "",
        ),
        ((*TWEETS, "--method", "get"), "deny", "", "method_case: "),
        ((*TWEETS, "--path", "/jobs/1\r\nX"), "deny", "", "request_line: "),
        ((*TWEETS, "--path", "/jobs/1 "), "deny", "", "request_line: "),
        ((*TWEETS,), "allow", "hr/jobs#ingress[0].toPorts[0]", "its requests are judged"),
        (
            ("--from", "10.0.0.3", "--to", "10.0.0.2", "--port", "81"),
            "deny",
            "hr/jobs#ingress",
            "hr/turtletweets",
        ),
        (
            ("--from", "batch", "--to", "jobs-api", "--port", "80"),
            "deny",
            "hr/jobs#ingress",
            "ops/batch on 80/TCP",
        ),
        (("--from", "9.1.1.1", "--to", "jobs-api", "--port", "80"), "allow", "hr/jobs#ingress[1]", ""),
        (("--from", "host", "--to", "jobs-api", "--port", "9"), "allow", "allowLocalhost", ""),
        (("--from", "10.0.0.1", "--to", "jobs-api", "--port", "9"), "allow", "allowLocalhost", ""),
        (("--from", "world", "--to", "jobs-api", "--port", "9"), "deny", "hr/jobs#ingress", "world on 9/TCP"),
        (
            ("--from", "world", "--to", "jobs-api", "--port", "9", "--protocol", "udp"),
            "deny",
            "hr/jobs#ingress",
            "9/UDP",
        ),
        (("--from", "batch", "--to", "world", "--port", "9"), "allow", "", "neither end is enforced"),
        (("--from", "jobs-api", "--to", "10.0.0.2", "--port", "9"), "allow", "", "inside one workload"),
    ],
)
def test_answers(ask: Ask, argv: tuple[str, ...], verdict: str, rule: str, reason: str) -> None:
    """The verdict, the rule that decided, and why."""
    answer = ask(*argv)
    assert (answer["verdict"], answer["rule"]) == (verdict, rule)
    assert reason in answer["reason"]
    assert (answer["node"], answer["revision"]) == ("n1", None)


def test_files_of_no_node(node: Path, ask: Ask) -> None:
    """Where no endpoint is enforced on this node, the rules are asked as they stand; ambiguous paths included."""
    file = node.parent / "endpoints.json"
    peers = [
        {key: one[key] for key in one if key != "netns"} for one in json.loads(file.read_text())["endpoints"]
    ]
    file.write_text(json.dumps({"endpoints": peers}))
    for path, verdict in (("/jobs/1", "allow"), ("/jobs/x", "deny"), ("/jobs/../x", "deny")):
        answer = ask(*TWEETS, "--path", path)
        assert (answer["verdict"], answer["judged"]) == (verdict, True)
        assert answer["rule"].startswith("hr/jobs#ingress[0].toPorts[0]")
        assert any("no endpoint is enforced on this node" in note for note in answer["notes"])
    assert ask("--from", "world", "--to", "9.9.9.9", "--port", "9")["reason"].startswith("neither end is")


REQUESTS = [
    (),
    ("--path", "/jobs/1"),
    ("--path", "/jobs/1?full=1"),
    ("--path", "/jobs/x"),
    ("--path", "/jobs/1/../../admin"),
    ("--path", "/any//thing"),
    ("--path", "/any/%2e"),
    ("--path", "/any/thing"),
    ("--path", "/\x00"),
    ("--path", "*"),
    ("--path", "http://a/jobs/1", "--host", "a"),
    ("--path", "http://a/jobs/1", "--host", "b"),
    ("--method", "CONNECT", "--path", "a:1"),
    ("--method", "OPTIONS", "--path", "*"),
    ("--method", "PATCH", "--path", "/jobs/1", "--header", "Content-Length: 0"),
    ("--header", "Content-Length: 3"),
    ("--method", "POST", "--header", "Transfer-Encoding: gzip"),
]
POLICIES = [
    jobs_policy(*HTTP, {"path": "/any.*"}),
    jobs_policy({"method": "GET|PATCH"}),
    jobs_policy({"path": "/any.*"}, kproxy={"mode": "audit"}),
]


@pytest.mark.parametrize("rules", POLICIES, ids=["paths", "methods", "audit"])
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("request_argv", REQUESTS, ids=" ".join)
def test_the_answer_is_the_proxy_s(
    tmp_path: Path, capsys: Output, rules: dict[str, Any], strict: bool, request_argv: tuple[str, ...]
) -> None:
    """The flow core, given the bytes that a client would send, does what explain says."""
    config = write(tmp_path, rules, refuseAmbiguousPaths=strict)
    argv = [*TWEETS, *(request_argv or ("--path", "/"))]
    code = cli.main(["explain", "--config", str(config), "--json", *argv])
    answer = json.loads(capsys.readouterr().out)

    known = asking.knowledge(str(config))
    ingress = known.policy.endpoint("hr", "jobs-api").ingress
    judge = ingress.http(known.policy.identity_of("hr", "turtletweets").number, 80).judge
    story = Story(judge, known.options)  # type: ignore[arg-type]
    story.flow.downstream_data(_bytes(cli.parser().parse_args(["explain", *argv])))
    sent = bytes(story.wire.downstream)
    assert bool(story.wire.upstream) == (code == 0)
    assert (int(sent.split()[1]) if sent else None) == answer["status"]


def _bytes(arguments: Any) -> bytes:
    """The request as a client writes it, put together without the code that is tested."""
    method, path = arguments.method or "GET", arguments.path or "/"
    headers = [f"Host: {arguments.host or 'jobs-api'}", *arguments.header, "", ""]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *headers]).encode()


def side(name: str, selects: str, direction: str, kind: str) -> list[dict[str, Any]]:
    """One side's policy: none, all of the port, nothing, some requests, or some requests in audit mode."""
    port: dict[str, Any] = {"ports": [{"port": "80", "protocol": "TCP"}]}
    if kind in ("judged", "audited"):
        port["rules"] = {"http": [{"method": "GET", "path": "/(jobs|a//b)"}]}
    rules = [] if kind == "open" else [{} if kind == "shut" else {"toPorts": [port]}]
    spec = {"endpointSelector": {"matchLabels": {"app": selects}}, direction: rules}
    spec |= {"kproxy": {"mode": "audit"}} if kind == "audited" else {}
    meta = {"name": name, "namespace": "hr"}
    one = {"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": meta, "spec": spec}
    return [one] if rules else []


KINDS = ("open", "wide", "shut", "judged", "audited")


@pytest.mark.parametrize("egress", KINDS)
@pytest.mark.parametrize("ingress", KINDS)
def test_two_policies_are_combined_as_the_flow_combines_them(
    tmp_path: Path, capsys: Output, egress: str, ingress: str
) -> None:
    """For each pair of policies and each request: what passes, and the rule that the log would name."""
    policies = side("out", "turtletweets", "egress", egress) + side("in", "jobs-api", "ingress", ingress)
    config = write(tmp_path, *(policies or side("other", "nobody", "ingress", "shut")))
    known = asking.knowledge(str(config))
    client, server = ip_address("10.0.0.3"), ip_address("10.0.0.2")
    names = EndpointName("hr", "turtletweets"), EndpointName("hr", "jobs-api")
    ends = (names[0], client, 40000, server, 80, client, False, names[1], 1, 1)
    ruling = parties.rule(known.policy, parties.Parties(Direction.EGRESS, *ends))
    for path in ("/jobs", "/x", "/a//b"):
        code = cli.main(["explain", "--config", str(config), "--json", *TWEETS, "--path", path])
        answer = json.loads(capsys.readouterr().out)
        assert code == (answer["verdict"] == "deny")
        if ruling.rules is None:
            whole = ruling.whole.judge(None)
            assert answer["verdict"] == whole.verdict
            # Of two that allow, the one with a rule is told here, and the client's in the log.
            assert answer["rule"] == whole.rule or answer["verdict"] == "allow"
            continue
        story = Story(ruling.rules.judge, known.options)  # type: ignore[arg-type]
        story.flow.downstream_data(f"GET {path} HTTP/1.1\r\nHost: jobs-api\r\n\r\n".encode())
        assert bool(story.wire.upstream) == (answer["verdict"] != "deny")
        if not story.wire.upstream:
            assert story.wire.judgement.rule == answer["rule"]


def test_ambiguity(tmp_path: Path, capsys: Output) -> None:
    """The reason says what is ambiguous; the rule is the one that would have allowed it."""
    config = write(tmp_path, jobs_policy({"path": "/.*"}))
    assert cli.main(["explain", "--config", str(config), *TWEETS, "--path", "/a//b", "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["reason"] == "ambiguous_path: two slashes in a row, which many servers merge"
    assert (answer["rule"], answer["status"]) == ("hr/jobs#ingress[0].toPorts[0].http[0]", 403)
    loose = write(tmp_path, jobs_policy({"path": "/.*"}), refuseAmbiguousPaths=False)
    assert cli.main(["explain", "--config", str(loose), *TWEETS, "--path", "/a//b"]) == 0


def test_what_could_undo_an_edit_is_refused(tmp_path: Path, capsys: Output) -> None:
    """As by the proxy: where a rule edits a header, its look-alikes, its naming in Connection, and TRACE."""
    match = {"name": "X-Token", "mismatch": "REPLACE", "value": "v4lue"}
    config = write(tmp_path, jobs_policy({"path": "/.*", "headerMatches": [match]}))
    for argv, reason in (
        (("--method", "TRACE"), "edit_trace"),
        (("--header", "X_Token: 1"), "edit_look_alike"),
        (("--header", "Connection: x-token"), "connection_option"),
        (("--header", "X-Token: 1"), ""),
    ):
        code = cli.main(["explain", "--config", str(config), *TWEETS, *argv, "--json"])
        answer = json.loads(capsys.readouterr().out)
        assert (code, answer["status"]) == ((1, 400) if reason else (0, None))
        assert not reason or answer["reason"].startswith(f"{reason}: ")
        assert "v4lue" not in str(answer)


def test_ambiguity_where_a_policy_is_audited(tmp_path: Path, capsys: Output) -> None:
    """Paths that only an audited policy looks at pass, as audit; an enforced one's are refused all the same."""
    enforced, tried = jobs_policy({"path": "/.*"}), jobs_policy({"path": "/.*"}, kproxy={"mode": "audit"})
    tried["metadata"] = {"name": "tried", "namespace": "hr"}
    for policies, code, verdict in (([tried], 0, "audit"), ([tried, enforced], 1, "deny")):
        config = write(tmp_path, *policies)
        assert cli.main(["explain", "--config", str(config), *TWEETS, "--path", "/a//b", "--json"]) == code
        answer = json.loads(capsys.readouterr().out)
        assert answer["verdict"] == verdict
        assert "ambiguous_path: two slashes" in answer["reason"]


def test_audit_passes(tmp_path: Path, capsys: Output) -> None:
    """What a policy in audit mode would deny is exit code 0, and told as audit."""
    config = write(tmp_path, jobs_policy(*HTTP, kproxy={"mode": "audit"}))
    assert cli.main(["explain", "--config", str(config), *TWEETS, "--path", "/x"]) == 0
    assert capsys.readouterr().out.startswith("AUDIT: hr/turtletweets -> hr/jobs-api port 80 GET /x")


DENIED = """\
DENY: hr/turtletweets -> hr/jobs-api port 80 GET /jobs/x (Host: jobs-api)
  why:  default deny: the 2 rules allowing requests here did not match (answered with 403)
  rule: hr/jobs#ingress[0].toPorts[0]
  from: the files of n1, as they are now

egress of hr/turtletweets to hr/jobs-api: allow
  no policy brings default deny for egress

ingress of hr/jobs-api from hr/turtletweets: deny
  default deny: the 2 rules allowing requests here did not match
  rule                                   kind    this request
  -------------------------------------  ------  -----------------------------------------------
  hr/jobs#ingress[0].toPorts[0].http[0]  allow   path: /jobs/x is not /jobs/[0-9]+
  hr/jobs#ingress[0].toPorts[0].http[1]  allow   method: GET is not POST
                                                 path: /jobs/x is not /jobs
                                                 header: there is no x-role with the value admin
  hr/jobs#ingress[1]                     allow   peer: hr/turtletweets is not 9.0.0.0/8

note: no host was given: jobs-api is assumed, as a client would send it
"""


def test_for_people(node: Path, capsys: Output) -> None:
    """The verdict first, in one line; then why; then each side with its rules, nearest first."""
    assert cli.main(["explain", "--config", str(node), *TWEETS, "--path", "/jobs/x"]) == 1
    assert capsys.readouterr().out == DENIED


def test_descriptions_are_told(tmp_path: Path, capsys: Output) -> None:
    """What a rule says of itself stands with the verdict."""
    own = {"kproxy": {"http": [{"pathPrefix": "/jobs", "description": "jobs are public"}]}}
    ports = [{"ports": [{"port": "80", "protocol": "TCP"}], "rules": own}]
    config = write(tmp_path, jobs_policy(ingress=[FROM_TWEETS | {"toPorts": ports}]))
    assert cli.main(["explain", "--config", str(config), *TWEETS, "--path", "/jobs/1"]) == 0
    assert "jobs are public" in capsys.readouterr().out.split("egress of")[0]


def test_a_peer_elsewhere_is_told_and_decides_nothing(tmp_path: Path, capsys: Output) -> None:
    """The rules of a workload on another node are shown, with a note; where it has none, it is not named."""
    shut = jobs_policy(endpointSelector={}, ingress=[{}]) | {"metadata": {"name": "shut", "namespace": "ops"}}
    argv = ["--from", "jobs-api", "--to", "batch", "--port", "80"]
    for rules, told in (((jobs_policy(*HTTP),), False), ((jobs_policy(*HTTP), shut), True)):
        config = write(tmp_path, *rules)
        assert cli.main(["explain", "--config", str(config), *argv]) == 0
        out = capsys.readouterr().out
        assert ("ingress of ops/batch from hr/jobs-api: deny (not enforced on this node)" in out) == told
        assert ("note: ingress of ops/batch is not enforced on this node" in out) == told


def test_many_rules_are_bounded(tmp_path: Path, capsys: Output) -> None:
    """Of two hundred candidates ten are printed and the others counted."""
    config = write(tmp_path, jobs_policy(*({"path": f"/{n}"} for n in range(200))))
    assert cli.main(["explain", "--config", str(config), *TWEETS, "--path", "/x"]) == 1
    out = capsys.readouterr().out
    assert "and 191 rules further away" in out
    assert len(out.splitlines()) < 30
    assert cli.main(["explain", "--config", str(config), "jobs-api"]) == 0
    assert "and 180 rules more" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (("--from", "turtletweet", "--to", "jobs-api"), "did you mean hr/turtletweets?"),
        (
            ("--from", "nobody-at-all", "--to", "jobs-api"),
            "neither a known workload, host, world, nor an address",
        ),
        (("--from", "127.0.0.1", "--to", "jobs-api", "--port", "80"), "is loopback"),
        ((*TWEETS, "--port", "http"), "'http' is not a port"),
        ((*TWEETS, "--header", "nope"), "the header 'nope' has no colon; write it as 'Name: value'"),
        (("--path", "/"), "a request goes to a port"),
        (("jobs-api", "--port", "80"), "jobs-api beside a question"),
        (("host",), "host has no policy of its own"),
        (("--from", "a\x1b[31m", "--to", "jobs-api"), r"a\x1b[31m is neither"),
    ],
)
def test_wrong_usage(node: Path, capsys: Output, argv: tuple[str, ...], told: str) -> None:
    """Exit code 2 and one line that says what is wrong, and what to write instead."""
    assert cli.main(["explain", "--config", str(node), *argv]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert told in err


def test_ambiguous_names(tmp_path: Path, capsys: Output) -> None:
    """A name that two workloads have is not guessed."""
    config = write(tmp_path)
    found = json.loads((tmp_path / "endpoints.json").read_text())
    found["endpoints"].append({"name": "jobs-api", "namespace": "ops", "addresses": ["10.0.0.9"]})
    (tmp_path / "endpoints.json").write_text(json.dumps(found))
    assert cli.main(["explain", "--config", str(config), "jobs-api"]) == 2
    assert "jobs-api is ambiguous; did you mean hr/jobs-api or ops/jobs-api?" in capsys.readouterr().err
    assert cli.main(["explain", "--config", str(config), "ops/jobs-api"]) == 0


def test_mistakes_in_the_files(node: Path, capsys: Output) -> None:
    """Every mistake is told with its place, as check does, and there is no answer."""
    (node.parent / "rules" / "b.json").write_text('[\n {"endpointSelector": {}, "egres": []}\n]')
    (node.parent / "rules" / "c.json").write_text("[{}]")
    assert cli.main(["explain", "--config", str(node), *TWEETS]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n") >= 2) == ("", True)
    assert f"{node.parent}/rules/b.json:2: /0/egres: " in err


DRAWN = """\
from the files of n1, as they are now

hr/jobs-api: who may call it (ingress)
  from             port       action                            by
  ---------------  ---------  --------------------------------  -----------------------------
  cidr:9.0.0.0/8   any        allow                             hr/jobs#ingress[1]
  host             any        allow                             allowLocalhost
  hr/turtletweets  80/TCP     judged                            hr/jobs#ingress[0].toPorts[0]
                              - GET /jobs/[0-9]+                .http[0]
                              - POST /jobs header x-role=admin  .http[1]
  everyone else    any other  DENY                              hr/jobs#ingress

hr/jobs-api: whom it may call (egress)
  to        port    action    by
  --------  ------  --------  ----------------------------------------
  everyone  any     allow     no policy brings default deny for egress
"""


def test_who_may_talk_to_an_endpoint(node: Path, capsys: Output) -> None:
    """Both directions, with the requests that may pass, and the default at the end."""
    for argv in (["jobs-api"], ["--to", "jobs-api"], ["--from", "10.0.0.2"]):
        assert cli.main(["explain", "--config", str(node), *argv]) == 0
        assert capsys.readouterr().out == DRAWN


def test_who_may_talk_to_whom(ask: Ask) -> None:
    """With neither end, every endpoint that is enforced here; with both, what is between them."""
    assert [one["endpoint"] for one in ask()["endpoints"]] == ["hr/jobs-api", "hr/turtletweets"]
    between = ask("--from", "batch", "--to", "jobs-api")
    assert [(one["endpoint"], one["enforced"]) for one in between["endpoints"]] == [
        ("ops/batch", False),
        ("hr/jobs-api", True),
    ]
    ways = [(line["direction"], line["action"]) for one in between["endpoints"] for line in one["lines"]]
    assert ways == [("egress", "allow"), ("ingress", "deny")]


def test_rules_cannot_paint_the_terminal(tmp_path: Path, capsys: Output) -> None:
    """Control characters of descriptions are escaped wherever people read them."""
    config = write(tmp_path, jobs_policy(*HTTP, description="\x1b[2Jgone"))
    cli.main(["explain", "--config", str(config), *TWEETS, "--path", "/jobs/1"])
    cli.main(["explain", "--config", str(config)])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert r"\x1b[2Jgone" in out


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31m", r"a\x1b[31m"),
        ("\u202e", r"\u202e"),
        ("a\nb\t", r"a\nb\t"),
        ("ü", "ü"),
        ("\x9b", r"\x9b"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    """What is not printable is escaped, the rest stays."""
    assert printable(text) == shown


def test_long_texts_are_cut(node: Path, capsys: Output) -> None:
    """A path of kilobytes does not push the answer off the screen; JSON has all of it."""
    argv = ["explain", "--config", str(node), *TWEETS, "--path", "/" + "a" * 5000]
    assert cli.main(argv) == 1
    out = capsys.readouterr().out
    assert "… (5001 characters)" in out
    assert max(map(len, out.splitlines())) < 300
    assert cli.main([*argv, "--json"]) == 1
    assert len(json.loads(capsys.readouterr().out)["asked"]["path"]) == 5001


def test_through_a_shell(node: Path) -> None:
    """As a program: exit code, and a terminal that knows no UTF-8, and a reader that goes away."""
    argv = [sys.executable, "-m", "kproxy.cli", "explain", "--config", str(node), *TWEETS]
    run = subprocess.run(
        [*argv, "--path", b"/caf\xc3\xa9\xff"],
        capture_output=True,
        env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        check=False,
    )
    assert (run.returncode, run.stderr) == (1, b"")
    assert run.stdout.startswith(b"DENY: ")
    gone = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{' '.join(argv)} | head -c 1"], capture_output=True, check=False
    )
    assert (gone.returncode, gone.stderr) == (0, b"")
