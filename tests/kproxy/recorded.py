"""What the tests of logs and metrics share: heads, verdicts, and an observer whose lines can be read back."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from kproxy.accesslog import AccessLine
from kproxy.metrics import Metrics
from kproxy.observer import Observer, Side

EGRESS = Side("hr/turtletweets", "egress", "hr/jobs-api", "10.0.0.2:80", 80)
INGRESS = Side("hr/jobs-api", "ingress", "hr/turtletweets", "10.0.0.3:40001", 80)

NOW_NS = 1_767_323_045_678_901_234  # 2026-01-02T03:04:05.678901Z and 234 ns


class Head(NamedTuple):
    """A request's head."""

    method: bytes = b"GET"
    path: bytes = b"/jobs/331"
    host: bytes = b"jobs-api.hr"


class Verdict(NamedTuple):
    """A verdict of one policy."""

    verdict: str = "allow"
    rule: str = "hr/tweets#egress[0].toPorts[0].http[0]"
    reason: str = "the rule matches"
    edits: tuple[Any, ...] = ()
    path_judged: bool = False
    guarded: frozenset[bytes] = frozenset()
    path_tried: bool = False

    @property
    def allowed(self) -> bool:
        """True where the request is forwarded."""
        return self.verdict != "deny"


ALLOW = Verdict()
DENY = Verdict("deny", "", "no rule matches")


class Recorded:
    """An observer at a fixed time, and the lines that it wrote."""

    def __init__(self, field_bytes: int = 2048, series: int = 1000) -> None:
        self.lines: list[bytes] = []
        self.metrics = Metrics(series)
        self.observer = Observer(self.metrics, self.lines.append, field_bytes, lambda: NOW_NS)

    def read(self) -> list[AccessLine]:
        """Decode every line strictly: one JSON object, no unknown key, one line feed, at the end."""
        return [read(line) for line in self.lines]

    def last(self) -> AccessLine:
        """Decode the last line."""
        return read(self.lines[-1])


class _StrictLine(AccessLine, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A line in which every key is a published one."""


def read(line: bytes) -> AccessLine:
    """Decode one line strictly."""
    text = line.decode("ascii")
    assert text.splitlines(keepends=True) == [text]
    assert text.endswith("}\n")
    return msgspec.json.decode(line, type=_StrictLine)
