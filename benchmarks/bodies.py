"""A client for one large body, up or down, that does as little as can be done beside moving bytes.

    python -m benchmarks.bodies get|post ADDRESS PORT PATH BYTES

It prints one JSON object: seconds from before connect() until the answer is there, and bytes moved.
"""

from __future__ import annotations

import json
import socket
import sys
import time

_CHUNK = 64 << 10  # what applications write at a time: io.copy, sendfile loops and curl use 16 to 128 KiB
_OK = b"HTTP/1.1 200 "


def get(connection: socket.socket, path: str, size: int) -> int:
    """Ask for the path and read `size` bytes of body; how many came. Raises OSError if it is not a 200."""
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: server\r\n\r\n".encode())
    moved = len(_answer(connection))
    buffer = bytearray(1 << 20)
    while moved < size and (got := connection.recv_into(buffer)):
        moved += got
    return moved


def post(connection: socket.socket, path: str, size: int) -> int:
    """Send a body of `size` bytes and wait for the answer. Raises OSError if it is not a 200."""
    connection.sendall(f"POST {path} HTTP/1.1\r\nHost: server\r\nContent-Length: {size}\r\n\r\n".encode())
    chunk = memoryview(bytes(_CHUNK))
    left = size
    while left:
        left -= connection.send(chunk[: min(left, _CHUNK)])
    _answer(connection)
    return size


def _answer(connection: socket.socket) -> bytes:
    """Read the head of a 200; what came of its body with it."""
    head = b""
    while b"\r\n\r\n" not in head and (more := connection.recv(65536)):
        head += more
    if not head.startswith(_OK):
        raise OSError(f"answered {head[:80]!r}")
    return head.partition(b"\r\n\r\n")[2]


def main() -> None:
    """Move one body as the command line says."""
    way, address, port, path, size = sys.argv[1:]
    begun = time.perf_counter()
    with socket.create_connection((address, int(port)), timeout=60) as connection:
        moved = {"get": get, "post": post}[way](connection, path, int(size))
    print(json.dumps({"seconds": time.perf_counter() - begun, "bytes": moved}))


if __name__ == "__main__":
    main()
