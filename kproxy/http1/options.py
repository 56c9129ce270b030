"""The settings of HTTP/1.1 flows, as the core wants them: bytes and nanoseconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from parsers.http1 import Limits

if TYPE_CHECKING:
    from kproxy.config import Config

_SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """Bounds and choices of one HTTP/1.1 flow; times in nanoseconds, sizes in bytes."""

    parse: Limits = field(default_factory=Limits)
    # From a head's first byte to its last. A client that sends a byte a minute holds a connection no longer.
    head_ns: int = 10 * _SECOND
    # No byte either way: longer than any keep-alive of real clients and servers, so they decide, not we.
    idle_ns: int = 3600 * _SECOND
    # After an answer that ends the connection, the client's bytes are read and dropped for this long, as
    # unread bytes would turn the close into a reset that destroys the answer (RFC 9112 section 9.6).
    linger_ns: int = 5 * _SECOND
    # Most of a denied body that is read and dropped to keep the connection, and most that lingering drops.
    drain_bytes: int = 64 * 1024
    # Pipelined requests wait for their turn in this much, and one read more; then the client is not read.
    pipelined_bytes: int = 16 * 1024
    # The field that names the rule in a denial; empty for none.
    rule_header: bytes = b""
    # Deny paths that servers read differently when a rule on paths is in force.
    refuse_ambiguous_paths: bool = True

    @classmethod
    def of(cls, config: Config) -> HttpOptions:
        """The options that a configuration file asks for."""
        limits = config.limits.http
        return cls(
            parse=Limits(
                max_request_line=limits.request_line_bytes,
                max_head=limits.head_bytes,
                max_fields=limits.head_fields,
                max_chunk_line=limits.chunk_line_bytes,
                max_chunk_overhead=limits.chunk_overhead_bytes,
                max_trailers=limits.trailer_bytes,
                max_trailer_fields=limits.trailer_fields,
            ),
            head_ns=int(limits.head_seconds * _SECOND),
            idle_ns=int(limits.idle_seconds * _SECOND),
            drain_bytes=limits.drain_bytes,
            rule_header=(config.deny_rule_header or "").encode("ascii"),
            refuse_ambiguous_paths=config.refuse_ambiguous_paths,
        )
