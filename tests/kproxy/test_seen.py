"""Access logs as they are on disks: broken, interrupted, compressed, endless, hostile."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import pytest
from small_node import line

from kproxy import seen
from kproxy.errors import FileError
from policy import Records


def read(folder: Path, data: bytes, *, name: str = "access.jsonl", by_address: bool = False) -> Records:
    """The records of a log with these bytes."""
    (folder / name).write_bytes(data)
    return seen.records([str(folder / name)], by_address=by_address)


def test_equal_requests_share_a_record(tmp_path: Path) -> None:
    """A long log of few requests takes the memory of few."""
    found = read(tmp_path, line(path="/a").encode() * 10_000 + line(path="/b").encode())
    assert len(found.records) == 10_001
    assert len({id(record) for record in found.records}) == 2


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"{nope\n", "not a JSON object"),
        (b"[1]\n", "not a JSON object"),
        (b'"text"\n', "not a JSON object"),
        (b"\xff\xfe\n", "not a JSON object"),
        (b'{"a": "\xff"}\n', "not a JSON object"),
        (b"[" * 100_000 + b"\n", "not a JSON object"),
        (b'{"time": "2026', "the last line is not complete"),
        (b"x" * (seen.MAX_LINE_BYTES * 3) + b"\n", f"a line longer than {seen.MAX_LINE_BYTES} bytes"),
        (b'{"verdict": "allow"}\n', "no endpoint"),
        (
            b'{"endpoint": {}, "direction": 1, "peer": null, "protocol": [], "verdict": 7}\n',
            "neither TCP nor UDP",
        ),
    ],
)
def test_what_is_no_record_is_counted(tmp_path: Path, raw: bytes, why: str) -> None:
    """Each bad line is one, and the good ones around it are read."""
    good = line(path="/a").encode()
    found = read(tmp_path, good + raw if not raw.endswith(b"\n") else good + raw + good)
    assert (len(found.records), found.left_out) == (1 + raw.endswith(b"\n"), {why: 1})


def test_empty_lines_and_carriage_returns(tmp_path: Path) -> None:
    """A file that an editor saved is read as well."""
    found = read(tmp_path, b"\r\n\n" + line().encode().replace(b"\n", b"\r\n") + b"\n")
    assert (len(found.records), found.left_out) == (1, {})


def test_compressed(tmp_path: Path) -> None:
    """A rotated log is read as it is; one that was cut is an error that names it."""
    data = gzip.compress(line().encode() * 3)
    assert len(read(tmp_path, data, name="a.gz").records) == 3
    for broken in (data[:-12], b"no gzip", data[:10] + b"\x00" * 20):
        with pytest.raises(FileError, match=r"b\.gz: cannot be read: "):
            read(tmp_path, broken, name="b.gz")


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dash is what a pipe sends."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(line().encode())))
    assert len(seen.records(["-"]).records) == 1


def test_a_log_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file and a folder are errors with the path and a mend."""
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(FileError, match=r"cannot be read: .*check the path"):
            seen.records([str(path)])


def test_different_requests_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that never asks for the same twice cannot fill the memory; what is left out is counted."""
    monkeypatch.setattr(seen, "MAX_DIFFERENT", 3)
    data = "".join(line(path=f"/{n}") for n in (1, 2, 3, 4, 1, 5)).encode()
    found = read(tmp_path, data)
    assert [record.path for record in found.records] == [b"/1", b"/2", b"/3", b"/1"]
    assert found.left_out == {"more than 3 different requests": 2}


def test_the_other_policy_of_a_request_is_asked_too(tmp_path: Path) -> None:
    """A request between two endpoints has one line; where both had a rule, it is one record of each."""
    told = {"endpoint": "hr/turtletweets", "direction": "egress", "peer": "hr/jobs-api"}
    also = {
        "endpoint": "hr/jobs-api",
        "direction": "ingress",
        "verdict": "audit",
        "rule": "hr/jobs#ingress[0]",
    }
    silent = also | {"rule": ""}
    data = line(**told, also=also) + line(**told, also=silent) + line(**told, also="x") + line(**told)
    found = read(tmp_path, data.encode())
    other = [
        (one.endpoint, one.direction, one.peer, one.port, one.verdict)
        for one in found.records
        if one.direction == "ingress"
    ]
    assert (len(found.records), other) == (5, [("hr/jobs-api", "ingress", "hr/turtletweets", 80, "audit")])


@pytest.mark.parametrize(
    ("peer", "address", "by_address"),
    [
        ("world", "9.1.1.1:4000", "9.1.1.1"),
        ("cidr:9.0.0.0/8", "9.1.1.1", "9.1.1.1"),
        ("world", "[2001:db8::1]:4000", "2001:db8::1"),
        ("world", "2001:db8::1", "2001:db8::1"),
        ("world", "nonsense", "world"),
        ("host", "10.0.0.1:4000", "host"),
        ("hr/turtletweets", "10.0.0.3:4000", "hr/turtletweets"),
    ],
)
def test_peers_by_address(tmp_path: Path, peer: str, address: str, by_address: str) -> None:
    """Who is known by no name of its own may be asked about by address."""
    data = json.dumps(json.loads(line(peer=peer, peer_address=address))).encode()
    assert read(tmp_path, data, by_address=True).records[0].peer == by_address
    assert read(tmp_path, data).records[0].peer == peer
