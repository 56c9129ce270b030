"""The core of a flow whose bytes are not judged: L3/L4 policy allows it whole."""

from __future__ import annotations

from typing import Protocol


class Wire(Protocol):
    """The effects that this core has."""

    def send_downstream(self, data: bytes) -> None:
        """Write towards the client."""

    def send_upstream(self, data: bytes) -> None:
        """Write towards the server."""

    def end_downstream(self) -> None:
        """Half-close towards the client."""

    def end_upstream(self) -> None:
        """Half-close towards the server."""

    def pause_downstream(self) -> None:
        """Stop reading from the client."""

    def resume_downstream(self) -> None:
        """Read from the client again."""

    def pause_upstream(self) -> None:
        """Stop reading from the server."""

    def resume_upstream(self) -> None:
        """Read from the server again."""

    def close(self) -> None:
        """End both sides in good order."""

    def abort(self, reason: str) -> None:
        """Reset both sides."""


class OpaqueFlow:
    """Passes bytes both ways, with back-pressure and half-close."""

    __slots__ = ("_downstream_ended", "_upstream_ended", "_wire")

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._downstream_ended = self._upstream_ended = False

    def downstream_data(self, data: bytes) -> None:
        """Pass it on."""
        self._wire.send_upstream(data)

    def upstream_data(self, data: bytes) -> None:
        """Pass it on."""
        self._wire.send_downstream(data)

    def downstream_eof(self) -> None:
        """Pass the half-close on; after both, the flow ends."""
        self._downstream_ended = True
        self._wire.end_upstream()
        self._end()

    def upstream_eof(self) -> None:
        """Pass the half-close on; after both, the flow ends."""
        self._upstream_ended = True
        self._wire.end_downstream()
        self._end()

    def downstream_writable(self, writable: bool) -> None:
        """Read from the server only while the client takes it."""
        (self._wire.resume_upstream if writable else self._wire.pause_upstream)()

    def upstream_writable(self, writable: bool) -> None:
        """Read from the client only while the server takes it."""
        (self._wire.resume_downstream if writable else self._wire.pause_downstream)()

    def tick(self, now_ns: int) -> None:
        """An allowed connection may be idle for as long as its ends like."""

    def drain(self) -> None:
        """There is no message to wait for."""
        self._wire.close()

    def lost(self) -> None:
        """There is nothing to tell but the bytes, which the relay has counted."""

    def fail(self, error: Exception) -> None:
        """End it."""
        self._wire.abort("internal_error")

    def _end(self) -> None:
        if self._downstream_ended and self._upstream_ended:
            self._wire.close()
