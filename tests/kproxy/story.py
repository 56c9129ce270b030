"""Flows told as stories: what happens to the core, and every effect that it must have, line by line.

    client  GET / HTTP/1.1¶Host: a¶¶        bytes from the client (¶ is CRLF)
    >server GET / HTTP/1.1¶Host: a¶¶        the core sends them to the server
    server  {ok}                            a named text, see TEXTS
    >client {ok}
    log     allow 200 /                     the observer is told
    client  EOF                             and EOF, slow, fast, reset; tick SECONDS, drain, fail
    close                                   further effects: >server END, >client END, abort WHY, pause and
                                            resume WHOM, refused WHY STATUS

A line `... …` matches any text that begins so. After each happening all of its effects must follow, and
no other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kproxy.http1 import Http1Flow, HttpOptions
from parsers.http1 import RequestHead

SECOND = 1_000_000_000

TEXTS = {
    "get": "GET /jobs/1 HTTP/1.1¶Host: a¶¶",
    "get2": "GET /jobs/2 HTTP/1.1¶Host: a¶¶",
    "ok": "HTTP/1.1 200 OK¶Content-Length: 2¶¶ok",
    "bad": "GET /secret HTTP/1.1¶Host: a¶¶",
    "403": "HTTP/1.1 403 Forbidden¶Content-Type: text/plain¶Content-Length: 15¶¶Access denied¶",
    "403 keep": "HTTP/1.1 403 Forbidden¶Content-Type: text/plain¶Content-Length: 15¶Connection: keep-alive¶¶"
    "Access denied¶",
    "400 both": "HTTP/1.1 400 Bad Request¶Content-Type: text/plain¶Content-Length: 33¶Connection: close¶¶"
    "Bad Request: length_and_chunked¶",
    "403 close": "HTTP/1.1 403 Forbidden¶Content-Type: text/plain¶Content-Length: 15¶Connection: close¶¶"
    "Access denied¶",
    "expect": "PUT /jobs/1 HTTP/1.1¶Host: a¶Expect: 100-continue¶Content-Length: 4¶¶",
    "post": "POST /jobs/1 HTTP/1.1¶Host: a¶Content-Length: 4¶¶",
    "chunked": "POST /jobs/1 HTTP/1.1¶Host: a¶Transfer-Encoding: chunked¶¶",
    "100": "HTTP/1.1 100 Continue¶¶",
    "101": "HTTP/1.1 101 Switching Protocols¶Upgrade: websocket¶Connection: upgrade¶¶",
    "40k": "x" * 40_000,
    "many": "GET /jobs/2 HTTP/1.1¶Host: a¶¶" * 700,
    "ws": "GET /jobs/ws HTTP/1.1¶Host: a¶Connection: Upgrade¶Upgrade: websocket¶¶",
}
HAPPENINGS = ("client", "server", "tick", "drain", "fail")


def to_bytes(text: str) -> bytes:
    """The bytes of a story's text: names replaced, ¶ as CRLF, Python escapes."""
    for name, value in TEXTS.items():
        text = text.replace("{" + name + "}", value)
    return text.replace("¶", "\r\n").encode("latin-1").decode("unicode_escape").encode("latin-1")


@dataclass
class Verdict:
    """A judgement as the policy gives it."""

    verdict: str = "allow"
    allowed: bool = True
    rule: str = "hr/jobs#ingress[0]"
    reason: str = ""
    path_judged: bool = False
    edits: Sequence[Any] = ()
    guarded: frozenset[bytes] = frozenset()
    path_tried: bool = False


ALLOW = Verdict()
DENY = Verdict("deny", False, "hr/jobs#ingress[1]", "no rule allows it")
AUDIT = Verdict("audit", True)


def by_path(head: RequestHead) -> Verdict:
    """Allow /jobs, audit /audit, deny the rest; paths under /judged have a path rule in force."""
    if head.path.startswith(b"/judged"):
        return Verdict(path_judged=True)
    if head.path.startswith(b"/audit"):
        return AUDIT
    if head.path.startswith(b"/raise"):
        raise RuntimeError("the policy broke")
    return ALLOW if head.path.startswith(b"/jobs") else DENY


class Recorder:
    """Wire and observer in one: writes down every effect, joining writes to one side."""

    def __init__(self) -> None:
        self.effects: list[tuple[str, str, bytes]] = []
        self.upstream = bytearray()
        self.downstream = bytearray()

    def _add(self, kind: str, what: str = "", data: bytes = b"") -> None:
        if data and self.effects and self.effects[-1][:2] == (kind, what):
            data = self.effects.pop()[2] + data
        self.effects.append((kind, what, data))

    def send_upstream(self, data: bytes) -> None:
        """Bytes towards the server."""
        assert data, "an empty write"
        self.upstream += data
        self._add(">server", data=data)

    def send_downstream(self, data: bytes) -> None:
        """Bytes towards the client."""
        assert data, "an empty write"
        self.downstream += data
        self._add(">client", data=data)

    def end_upstream(self) -> None:
        """Half-close towards the server."""
        self._add(">server", "END")

    def end_downstream(self) -> None:
        """Half-close towards the client."""
        self._add(">client", "END")

    def close(self) -> None:
        """The orderly end."""
        self._add("close")

    def abort(self, reason: str) -> None:
        """The reset."""
        self._add("abort", reason)

    def pause_downstream(self) -> None:
        """The client is not read."""
        self._add("pause", "client")

    def resume_downstream(self) -> None:
        """The client is read again."""
        self._add("resume", "client")

    def pause_upstream(self) -> None:
        """The server is not read."""
        self._add("pause", "server")

    def resume_upstream(self) -> None:
        """The server is read again."""
        self._add("resume", "server")

    def request(
        self,
        head: RequestHead | None,
        judgement: Verdict,
        status: int,
        bytes_in: int,
        bytes_out: int,
        proxy_ns: int,
        upstream_ns: int,
    ) -> None:
        """A judged request that ended."""
        assert head is not None
        assert proxy_ns >= 0
        assert upstream_ns >= 0
        self._add("log", f"{judgement.verdict} {status} {head.path.decode()}")
        self.bytes_in, self.bytes_out = bytes_in, bytes_out
        self.proxy_ns, self.upstream_ns = proxy_ns, upstream_ns
        self.judgement = judgement

    def refused(self, reason: str, detail: str, head: RequestHead | None, status: int) -> None:
        """What could not be read."""
        assert detail
        self.refused_head = head
        self._add("refused", f"{reason} {status}")


class Clock:
    """Nanoseconds that pass by one at each look, and by seconds when told."""

    def __init__(self) -> None:
        self.now = 1
        self.looks = 0

    def __call__(self) -> int:
        """A look at the clock."""
        self.now += 1
        self.looks += 1
        return self.now


class Story:
    """A flow whose surroundings are the test."""

    def __init__(
        self,
        judge: Callable[[RequestHead], Verdict] = by_path,
        options: HttpOptions | None = None,
    ) -> None:
        self.wire = Recorder()
        self.clock = Clock()
        self.flow = Http1Flow(self.wire, judge, self.wire, options or HttpOptions(), self.clock)

    def tell(self, text: str) -> None:
        """Play a story: assert that each happening has exactly the effects that are told after it."""
        lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
        told: list[str] = []
        for line in [*lines, "client NOTHING"]:
            word, _, rest = line.partition(" ")
            if word in HAPPENINGS:
                self._expect(told)
                told = []
                self._happen(word, rest.strip())
            else:
                told.append(line)

    def _happen(self, word: str, rest: str) -> None:
        flow = self.flow
        if rest == "NOTHING":
            return
        if word == "tick":
            self.clock.now += int(float(rest) * SECOND)
            flow.tick(self.clock.now)
        elif word == "drain":
            flow.drain()
        elif word == "fail":
            flow.fail(RuntimeError(rest))
        elif rest == "EOF":
            (flow.downstream_eof if word == "client" else flow.upstream_eof)()
        elif rest == "reset":
            flow.lost()
        elif rest in ("slow", "fast"):
            (flow.downstream_writable if word == "client" else flow.upstream_writable)(rest == "fast")
        else:
            (flow.downstream_data if word == "client" else flow.upstream_data)(to_bytes(rest))

    def _expect(self, told: list[str]) -> None:
        effects = self.wire.effects
        self.wire.effects = []
        assert len(effects) == len(told), f"told {told}, happened {effects}"
        for line, (kind, what, data) in zip(told, effects, strict=True):
            word, _, rest = line.partition(" ")
            rest = rest.strip()
            assert word == kind, f"told {line!r}, happened {(kind, what, data)}"
            if not data:
                assert re.sub(r"\s+", " ", rest) == what
            elif rest.endswith("…"):
                assert data.startswith(to_bytes(rest[:-1]))
            else:
                assert data == to_bytes(rest)
