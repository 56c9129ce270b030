"""What the core of an HTTP/1.1 flow needs from outside: a wire to act on, and someone to tell."""

from __future__ import annotations

from typing import Protocol

from kproxy.judgement import Judgement
from parsers.http1 import RequestHead


class Wire(Protocol):
    """The effects of the core; the shell performs them in order, tests record them."""

    def send_upstream(self, data: bytes) -> None:
        """Write towards the server."""

    def send_downstream(self, data: bytes) -> None:
        """Write towards the client."""

    def end_upstream(self) -> None:
        """Half-close towards the server, after what was written."""

    def end_downstream(self) -> None:
        """Half-close towards the client, after what was written."""

    def close(self) -> None:
        """End both sides in good order, after what was written; nothing is read any more."""

    def abort(self, reason: str) -> None:
        """Reset both sides; `reason` is a short word for the log and the metrics."""

    def pause_downstream(self) -> None:
        """Read no more from the client for now."""

    def resume_downstream(self) -> None:
        """Read from the client again."""

    def pause_upstream(self) -> None:
        """Read no more from the server for now."""

    def resume_upstream(self) -> None:
        """Read from the server again."""


class FlowObserver(Protocol):
    """Who is told of what happened, once for each request that ended or could not be read."""

    def request(
        self,
        head: RequestHead | None,
        judgement: Judgement,
        status: int,
        bytes_in: int,
        bytes_out: int,
        proxy_ns: int,
        upstream_ns: int,
        /,
    ) -> None:
        """Tell of a judged request; status 0 means that no final response came."""

    def refused(self, reason: str, detail: str, head: RequestHead | None, status: int, /) -> None:
        """Tell of bytes that were not read with certainty, or broke a bound; status 0 means a reset."""
