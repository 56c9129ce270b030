"""The bounds that an operator may move, each with the reason for its default.

Every buffer, queue, table and wait of kproxy has a bound.  Those of protocol parsers stand with the parsers;
here are the keys of the configuration's `limits` object.  A bound that bites is counted in
`kproxy_limits_total` under the key's name.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class HttpLimits(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Bounds on one HTTP/1.1 connection."""

    request_line_bytes: Annotated[
        int, Meta(ge=256, le=1 << 16, description="Longest request line; nginx and Apache take 8 KiB.")
    ] = 8 * 1024
    head_bytes: Annotated[
        int,
        Meta(
            ge=1024,
            le=1 << 20,
            description="Longest message head. It is held until it is whole: 10,000 connections that each "
            "keep back the last byte hold 320 MiB.",
        ),
    ] = 32 * 1024
    head_fields: Annotated[
        int, Meta(ge=8, le=10_000, description="Most fields in one head; Apache and Envoy take 100.")
    ] = 100
    chunk_line_bytes: Annotated[
        int, Meta(ge=16, le=1 << 16, description="Longest chunk-size line, extensions included.")
    ] = 256
    chunk_overhead_bytes: Annotated[
        int,
        Meta(
            ge=256,
            le=1 << 24,
            description="What the chunk-size lines of one body may have beyond 16 bytes a chunk: without a "
            "bound a sender makes the proxy read 256 bytes of extensions for each byte of content.",
        ),
    ] = 16 * 1024
    trailer_bytes: Annotated[
        int, Meta(ge=0, le=1 << 20, description="Longest trailer section; it is held until it is whole.")
    ] = 8 * 1024
    trailer_fields: Annotated[
        int, Meta(ge=0, le=10_000, description="Most fields in one trailer section.")
    ] = 32
    head_seconds: Annotated[
        float,
        Meta(
            gt=0,
            le=86400,
            description="Longest wait from the first byte of a head to its end: a client that sends a byte "
            "a minute (slowloris) holds a connection no longer.",
        ),
    ] = 10.0
    idle_seconds: Annotated[
        float, Meta(gt=0, le=86400, description="Longest time with no byte either way.")
    ] = 3600.0
    drain_bytes: Annotated[
        int,
        Meta(
            ge=0,
            le=1 << 30,
            description="Most of a denied request's body that is read and dropped so that the connection "
            "can be kept; past it the connection closes.",
        ),
    ] = 64 * 1024


class Limits(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Bounds on the node service."""

    http: Annotated[HttpLimits, Meta(description="Bounds on one HTTP/1.1 connection.")] = HttpLimits()
    connections: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="Most flows at once on this node. Each holds two descriptors, a few KB when idle, "
            "and up to about 5 MB of socket memory when its readers never read.",
        ),
    ] = 20_000
    endpoint_connections: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="Most flows at once of one endpoint, so that one workload cannot take every place of "
            "the node.",
        ),
    ] = 10_000
    connect_seconds: Annotated[
        float,
        Meta(gt=0, le=600, description="Longest wait for the upstream's answer to a connect."),
    ] = 10.0
    dead_peer_seconds: Annotated[
        float,
        Meta(
            gt=0,
            le=86400,
            description="TCP_USER_TIMEOUT and keepalive of both proxy sockets: a peer that stops answering "
            "is given up after this.",
        ),
    ] = 60.0
    drain_seconds: Annotated[
        float, Meta(ge=0, le=3600, description="Longest wait for requests under way after SIGTERM.")
    ] = 10.0
    access_log_queue_bytes: Annotated[
        int,
        Meta(
            ge=4096,
            le=1 << 30,
            description="Most access log bytes in memory while the disk or the reader is slow. At 30,000 "
            "requests a second and 400 bytes a line, 8 MiB bridge 0.7 s; what does not fit is lost and "
            "counted.",
        ),
    ] = 8 * 1024 * 1024
    access_log_field_bytes: Annotated[
        int,
        Meta(
            ge=64,
            le=1 << 20,
            description="Longest value of one access log field; longer ones are cut and the line says so. A "
            "client that sends 60 KB paths makes lines of 2 KB, not of 60.",
        ),
    ] = 2048
    metric_series: Annotated[
        int,
        Meta(
            ge=100,
            le=1_000_000,
            description="Most time series of one metric. Past it, counts go to a series whose rule is "
            '"other", so that a large policy cannot exhaust the memory of the node or of Prometheus.',
        ),
    ] = 10_000


LIMIT_REASONS = {
    "limit_request_line": "requestLineBytes",
    "limit_head": "headBytes",
    "limit_fields": "headFields",
    "limit_chunk_framing": "chunkOverheadBytes",
    "limit_trailers": "trailerBytes",
    "head_timeout": "headSeconds",
    "idle_timeout": "idleSeconds",
}
"""Reasons of refused requests and ended connections that mean that a bound bit, with the bound's key."""
