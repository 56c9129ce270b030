"""What one HTTP/1 message may have, and how much of it.

Every buffer that a peer can fill is bounded by one of these. The figures are those that common
servers and proxies use, so that what passes here passes behind us too.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

# The longest method token taken. The longest registered one (UPDATEREDIRECTREF) has 17 letters;
# a method is also a word in logs and metrics, so it stays short.
MAX_METHOD = 32

# The most digits of a Content-Length: 10**18 - 1 is below 2**63, so no server's counter wraps.
MAX_LENGTH_DIGITS = 18

# The most hexadecimal digits of a chunk size, and its greatest value (2 GiB - 1). Nobody sends larger
# chunks, and a server that keeps the size in 32 bits would read another length.
MAX_CHUNK_DIGITS = 8
MAX_CHUNK = 2**31 - 1

# Below these nothing useful could be read, and the parsers' own constants would not fit.
_LEAST = {"max_request_line": 64, "max_head": 256, "max_fields": 4, "max_chunk_line": 16}


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one message, in bytes unless said otherwise.

    Raises ValueError when a bound is too small to read any message with.
    """

    # nginx and Apache take 8 KiB; path rules are bounded by it: pattern size times path length is time.
    max_request_line: int = 8 * 1024
    # Request line (or status line), fields and empty line. nginx takes 32 KiB, Node 16, Envoy 60.
    # An incomplete head is held in memory: 10,000 connections that never finish one hold 320 MiB.
    max_head: int = 32 * 1024
    # Header fields in a head. Apache and Envoy take 100.
    max_fields: int = 100
    # One chunk-size line with its extensions. Real clients send no extensions at all.
    max_chunk_line: int = 256
    # Chunk-size lines of one body may have this much beyond 16 bytes a chunk: without it a sender
    # makes the proxy read 256 bytes of extensions for each byte of content (as CVE-2023-39326).
    max_chunk_overhead: int = 16 * 1024
    # The trailer section, held until it is complete.
    max_trailers: int = 8 * 1024
    # Trailer fields.
    max_trailer_fields: int = 32
    # Whether GET and OPTIONS may have a body, as searches in Elasticsearch do. Servers that expect none
    # (Python's http.server is one) read it as the next request, which nobody has judged.
    bodies_on_get: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            least = _LEAST.get(field.name, 0)
            value = getattr(self, field.name)
            if value < least:
                raise ValueError(f"http1 limit {field.name} is {value}; it must be at least {least}")
