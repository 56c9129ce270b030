"""The examples of docs/policy.md, and the verdicts that stand under them."""

from __future__ import annotations

import json
import re
from ipaddress import ip_address
from pathlib import Path

import pytest
from rules_world import Request

import policy
from policy import TCP, UDP, Node, Workload

TEXT = (Path(__file__).parents[2] / "docs" / "policy.md").read_text()
BLOCKS = re.findall(r"```yaml\n(.*?)```\n\n```verdicts\n(.*?)```", TEXT, re.DOTALL)
LINE = re.compile(
    r"(?P<client>\S+) -> (?P<server>\S+):(?P<port>\d+)(?P<udp>/udp)?(?: (?P<method>[A-Z]+) (?P<path>/\S*))?"
    r"(?P<headers>(?: \[[^]]*\])*) => (?P<verdict>allow|deny|audit)(?: (?P<rule>\S+))?"
)


def workloads() -> list[Workload]:
    """The endpoints that the page speaks of."""
    written = re.search(r"```json endpoints\n(.*?)```", TEXT, re.DOTALL)
    assert written is not None
    return [
        Workload(
            one["name"],
            one.get("namespace", ""),
            one["labels"],
            tuple(map(ip_address, one["addresses"])),
            one.get("ports", {}),
            local="namespace" in one,
        )
        for one in json.loads(written[1])["endpoints"]
    ]


def request_of(found: re.Match[str]) -> Request | None:
    """The request of a line, if it has one."""
    if found["method"] is None:
        return None
    headers = [one.split(": ", 1) for one in re.findall(r"\[([^]]*)\]", found["headers"])]
    host = next((value for name, value in headers if name == "Host"), "jobs").lower()
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers]
    return Request(found["method"].encode(), found["path"].encode(), host.encode(), pairs)


def test_the_page_has_its_examples() -> None:
    """Every example of rules has verdicts under it."""
    assert len(BLOCKS) == TEXT.count("```yaml") == TEXT.count("```verdicts") == 7


@pytest.mark.parametrize(("rules", "verdicts"), BLOCKS)
def test_example(rules: str, verdicts: str) -> None:
    """The example loads without errors, and each line is true."""
    loaded = policy.load([("example.yaml", rules)])
    assert not loaded.errors
    revision = policy.compile(loaded.rules, workloads(), Node((ip_address("10.0.0.1"),)), 1)
    for line in verdicts.splitlines():
        found = LINE.fullmatch(line)
        assert found is not None, line
        parties = (policy.party(revision, found["client"]), policy.party(revision, found["server"]))
        protocol = UDP if found["udp"] else TCP
        answer = policy.explain(revision, *parties, int(found["port"]), request_of(found), protocol)
        assert answer.verdict == found["verdict"], line
        if found["rule"]:
            assert found["rule"] in [side.rule for side in answer.sides], line
