"""How the demonstration looks: plain where no terminal is, and nothing of the result left out."""

from __future__ import annotations

import io
import json

import pytest

from kproxy.demo.result import Judged, Result, Row, SceneResult, Seen
from kproxy.demo.show import show

ALLOWED = Seen(200, "10.0.0.3:41", "10.0.0.2:80", "10.0.0.3:41", "10.0.0.3:41", 1)
DENIED = Seen(403, "10.0.0.3:42", "10.0.0.2:80", "", "", 0)
REFUSED = Seen(0, "", "", "", "", 0)
IPV6 = Seen(200, "[fd00::3]:1", "[fd00::2]:80", "[fd00::3]:1", "[fd00::3]:1", 1)
RULE = "hr/jobs-api#ingress[0].toPorts[0].http[0]"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Yes."""
        return True


def result(*failures: str) -> Result:
    """One scene with one row of every kind."""
    rows = [
        Row("a", "turtletweets", "GET /jobs/1", ALLOWED, ALLOWED, Judged("allow", RULE, "matched")),
        Row("b", "turtletweets", "GET /healthz", ALLOWED, DENIED, Judged("deny", "", "no rule allows it")),
        Row("c", "stranger", "GET /jobs/2", ALLOWED, REFUSED, Judged()),
        Row("d", "host", "GET /jobs/3", IPV6, IPV6, Judged()),
    ]
    scene = SceneResult(
        name="ingress",
        title="ingress policy",
        policy='{"kind": "CiliumNetworkPolicy"}',
        rows=rows,
        bytes_spliced=3000,
        bytes_tcp=1000,
        counted={"allow": 1, "deny": 1},
        held="7 BPF progs",
        access_log=[{"verdict": "allow", "path": "/jobs/1"}],
        metrics={
            'kproxy_requests_total{verdict="allow"}': 1.0,
            "kproxy_request_proxy_seconds_bucket": 5.0,
            "kproxy_limits_total": 0.0,
        },
    )
    return Result([scene], list(failures))


def shown(found: Result, stream: io.StringIO | None = None) -> str:
    """What is printed."""
    stream = stream or io.StringIO()
    show(found, stream)
    return stream.getvalue()


def test_everything_a_person_wants_to_see_is_there() -> None:
    """Policy, requests before and after, rules, addresses, bytes, access log, metrics, and the end."""
    text = shown(result())
    for piece in (
        "CiliumNetworkPolicy",
        "GET /jobs/1",
        "403",
        "refused",
        RULE,
        "no rule allows it",
        "10.0.0.2:80",
        "↳ GET /healthz",
        "GET /jobs/3 (IPv6)",
        "3,000 bytes spliced, 1,000 through TCP (75 % spliced)",
        json.dumps({"verdict": "allow", "path": "/jobs/1"}),
        'kproxy_requests_total{verdict="allow"} 1',
        "All as it should be",
    ):
        assert piece in text
    assert "bucket" not in text
    assert "kproxy_limits_total" not in text


def test_failures_stand_at_the_end_instead() -> None:
    """Each failure is a line of its own, and nothing says that all is well."""
    text = shown(result("ingress: no byte was spliced", "left behind: link x"))
    assert text.rstrip().splitlines()[-2:] == [
        "not as it should be: ingress: no byte was spliced",
        "not as it should be: left behind: link x",
    ]
    assert "All as it should be" not in text


def test_columns_line_up_with_and_without_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal gets colours, a pipe and NO_COLOR get none, and the table is the same."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    plain, coloured = shown(result()), shown(result(), Terminal())
    assert "\x1b[" not in plain
    assert "\x1b[" in coloured
    heading, *rows = [line for line in plain.splitlines() if "turtletweets" in line or "decided by" in line]
    assert all(line.index("200") == heading.index("before") for line in rows)
    monkeypatch.setenv("NO_COLOR", "1")
    assert shown(result(), Terminal()) == plain
