"""HTTP servers and clients in other languages, for tests that must not mistake one stack's habits for HTTP.

Each server, on every address of both families:

    GET  /whoami       what it believes both addresses of the connection to be: {"remote", "local"}
    GET  /bytes/N      N bytes of `pattern`, with a Content-Length
    GET  /chunked/N    the same in chunks
    POST /digest       what arrived: {"bytes", "sha256"}

Each client makes requests on a keep-alive connection and reports what it saw (`Report`).
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from kproxy.demo.errors import ProcessError
from kproxy.demo.network import Pod
from kproxy.demo.process import Process

_HERE = Path(__file__).parent
_PERIOD = 251  # a prime, so that no block of the body looks like its neighbour
_TIMEOUT_S = 120.0


class Report(NamedTuple):
    """What a client saw: per request the status and its socket's addresses; over all, the bodies.

    `connections` counts those it opened; `sha256` is of all response bodies, one after the other.
    """

    statuses: list[int]
    local: list[str]
    remote: list[str]
    connections: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Peer:
    """One language's program, which is both server and client."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)

    def serve(self, pod: Pod, port: int) -> AbstractContextManager[Process]:
        """The server, in the pod, listening from when the block begins."""
        return pod.start([*self.argv, "serve", str(port)], listening=port, env=self.env)

    def call(self, pod: Pod, urls: Sequence[str], *, count: int = 1, upload: int = 0) -> Report:
        """Ask for all URLs in turn, `count` times over, from the pod; POST `upload` bytes of pattern if any.

        Raises ProcessError if a request fails; a status of any kind is no failure.
        """
        done = pod.run([*self.argv, "call", str(count), str(upload), *urls], timeout=_TIMEOUT_S)
        if done.returncode:
            raise ProcessError(f"the {self.name} client failed: {done.stderr.strip()}")
        return Report(**json.loads(done.stdout))


def plain(pair: str) -> str:
    """Undo the form of IPv4 on an IPv6 socket: [::ffff:10.0.0.1]:80 is 10.0.0.1:80."""
    host, _, port = pair.rpartition(":")
    return f"{host[8:-1]}:{port}" if host.startswith("[::ffff:") else pair


def pattern(size: int) -> bytes:
    """The body that every peer sends: byte i is i modulo 251."""
    block = bytes(range(_PERIOD))
    return (block * (size // _PERIOD + 1))[:size]


def digest(*bodies: bytes) -> str:
    """SHA-256 of these bodies, one after the other, in hexadecimal."""
    return hashlib.sha256(b"".join(bodies)).hexdigest()


def node() -> Peer:
    """Node: its listener on :: sees IPv4 callers as IPv4-mapped addresses."""
    return Peer("node", ("node", str(_HERE / "node/peer.js")))


def go(folder: Path) -> Peer:
    """Go, built into the folder: IPv4-mapped as well, and MPTCP listeners where Go is 1.24 or newer.

    (The module says go 1.19, for which newer compilers keep that off: hence GODEBUG.)
    Raises CalledProcessError if it does not build.
    """
    binary = folder / "peer"
    offline = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOPROXY": "off", "GOFLAGS": "-buildvcs=false"}
    subprocess.run(
        ["go", "build", "-o", str(binary), "."], cwd=_HERE / "go", env={**os.environ, **offline}, check=True
    )
    return Peer("go", (str(binary),), {"GODEBUG": "multipathtcp=2"})
