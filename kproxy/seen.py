"""What was seen: access logs, read line by line into records, whatever their length and whatever is in them.

A log that is being written ends in the middle of a line; one that a full disk cut has broken lines inside.
Both are counted and told, and never an error.
"""

from __future__ import annotations

import gzip
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from ipaddress import ip_address
from itertools import islice
from typing import Any, Protocol

import msgspec

import policy
from kproxy.errors import FileError, Problem
from policy import Record, Records

STDIN = "-"

MAX_LINE_BYTES = 1 << 20
"""Longest line that is read; kproxy's own are 10 KB at most unless accessLogFieldBytes was raised."""

MAX_DIFFERENT = 200_000
"""Most different requests that are kept: at 700 bytes each, 140 MB. A client that never sends a path twice
must not exhaust the memory of whoever reads the log."""

_LINES_AT_ONCE = 4096

_decode = msgspec.json.Decoder(dict[str, Any]).decode


def records(paths: Iterable[str], *, by_address: bool = False) -> Records:
    """Read access logs: files, files ending in .gz, and - for standard input.

    Equal requests share one record, so that memory follows the different ones and not the length of the log.
    `by_address`: peers in the world and in networks are given by their addresses, as other rules may know
    these by other names.

    Raises:
        FileError: one of them cannot be read.
    """
    left_out: Counter[str] = Counter()
    found: list[Record] = []
    different: dict[Record, Record] = {}
    lines = (line for path in paths for line in _lines(path, left_out))
    while batch := list(islice(lines, _LINES_AT_ONCE)):
        read = policy.read_records(map(_addressed, batch) if by_address else batch)
        left_out.update(read.left_out)
        for record in read.records:
            if record in different or len(different) < MAX_DIFFERENT:
                found.append(different.setdefault(record, record))
            else:
                left_out[f"more than {MAX_DIFFERENT} different requests"] += 1
    return Records(tuple(found), left_out)


def _lines(path: str, left_out: Counter[str]) -> Iterator[Mapping[str, Any]]:
    """Yield the objects of one log, and for a request that two policies let pass, one for each of them."""
    for raw in _raw(path):
        line = _object(raw)
        if isinstance(line, str):
            left_out[line] += 1
        elif line:
            yield line
            yield from _also(line)


def _raw(path: str) -> Iterator[bytes]:
    """Yield the lines of one log as bytes, cut a little past `MAX_LINE_BYTES`."""
    try:
        with _open(path) as file:
            while piece := file.readline(MAX_LINE_BYTES + 1):
                yield piece
                while len(piece) > MAX_LINE_BYTES and not piece.endswith(b"\n"):
                    piece = file.readline(MAX_LINE_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        told = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        raise FileError([Problem(path, 0, "", told, "check the path and its permissions")]) from error


class _Lines(Protocol):
    """A file that is read line by line."""

    def readline(self, size: int, /) -> bytes:
        """The next line, or as much of it."""


def _open(path: str) -> AbstractContextManager[_Lines]:
    if path == STDIN:
        return nullcontext(sys.stdin.buffer)
    return gzip.GzipFile(path, "rb") if path.endswith(".gz") else open(path, "rb")


def _object(raw: bytes) -> Mapping[str, Any] | str:
    """The object that a line holds (nothing of an empty line), or why there is none."""
    if len(raw) > MAX_LINE_BYTES:
        return f"a line longer than {MAX_LINE_BYTES} bytes"
    if not raw.strip():
        return {}
    try:
        return _decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return "not a JSON object" if raw.endswith(b"\n") else "the last line is not complete"


def _also(line: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the same request as the other policy saw it, from the other end.

    One line tells of a request that both the client's and the server's policy let pass. Where no rule of the
    other policy spoke, there is nothing to say of it.
    """
    other = line.get("also")
    if isinstance(other, dict) and other.get("rule") and {"endpoint", "direction", "verdict"} <= other.keys():
        seen = {key: value for key, value in line.items() if key not in ("also", "peer_address")}
        yield seen | {
            "verdict": other["verdict"],
            "endpoint": other["endpoint"],
            "direction": other["direction"],
            "peer": line.get("endpoint"),
            "port": line.get("port", _server_port(line)),
        }


def _addressed(line: Mapping[str, Any]) -> Mapping[str, Any]:
    """A line whose peer has no name of its own, under the peer's address."""
    peer, written = str(line.get("peer")), str(line.get("peer_address", ""))
    if peer != "world" and not peer.startswith("cidr:"):
        return line
    for text in (written, written.rpartition(":")[0].strip("[]")):
        try:
            return {**line, "peer": str(ip_address(text))}
        except ValueError:
            continue
    return line


def _server_port(line: Mapping[str, Any]) -> str | None:
    """The port of a server that a client's line tells of by its address."""
    if line.get("direction") != "egress":
        return None
    return str(line.get("peer_address", "")).rpartition(":")[2]
