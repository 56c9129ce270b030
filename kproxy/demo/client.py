"""curl as the client: one process, one connection, as many requests as asked, and what it saw."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import NamedTuple

from kproxy.demo.errors import ProcessError
from kproxy.demo.process import run

TIMEOUT_S = 10  # of one request, connecting included


class Call(NamedTuple):
    """One request to make; a POST carries a body."""

    method: str
    path: str
    body: str = ""

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class Reply(NamedTuple):
    """What curl saw of one request: status 0 where there was no answer, and then `error` says why.

    `local` and `remote` are its socket's addresses (getsockname and getpeername), `host:port`;
    `connects` counts the connections it had to open, 0 for a request on an open one.
    """

    status: int
    body: str
    local: str
    remote: str
    connects: int
    error: str


def curl(
    calls: Sequence[Call], address: IPv4Address | IPv6Address, port: int = 80, *, netns: Path | None = None
) -> list[Reply]:
    """Make all calls, in order, with one curl in the namespace (our own without).

    Raises ProcessError if curl does not report on each of them.
    """
    host = f"[{address}]" if address.version == 6 else str(address)
    with tempfile.TemporaryDirectory(prefix="kproxy-curl-") as folder:
        bodies = [Path(folder, str(number)) for number in range(len(calls))]
        argv = ["curl"]
        for call, body in zip(calls, bodies, strict=True):
            argv += [*_options(call, body), f"http://{host}:{port}{call.path}", "--next"]
        done = run(argv[:-1], netns=netns, timeout=TIMEOUT_S * len(calls) + 5)
        reports = [json.loads(line) for line in done.stdout.splitlines()]
        if len(reports) != len(calls):
            raise ProcessError(f"curl made {len(reports)} of {len(calls)} requests: {done.stderr.strip()}")
        return [_reply(report, body) for report, body in zip(reports, bodies, strict=True)]


def _options(call: Call, body: Path) -> list[str]:
    """Options of one request; curl resets them at each --next."""
    options = ["-sS", "--globoff", "--path-as-is", "--max-time", str(TIMEOUT_S), "-o", str(body)]
    options += ["-w", "%{json}\\n", "-X", call.method]
    if call.body:
        options += ["-H", "Content-Type: application/json", "--data-raw", call.body]
    return options


def _reply(report: dict[str, object], body: Path) -> Reply:
    return Reply(
        status=int(str(report["response_code"])),
        body=body.read_text(errors="replace") if body.exists() else "",
        local=_pair(report, "local"),
        remote=_pair(report, "remote"),
        connects=int(str(report["num_connects"])),
        error=str(report["errormsg"] or ""),
    )


def _pair(report: dict[str, object], side: str) -> str:
    host, port = str(report[f"{side}_ip"]), report[f"{side}_port"]
    if not host:
        return ""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
