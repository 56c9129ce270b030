"""A server that reads each request's body to its last byte, throws it away and answers 200.

One thread a connection, big reads, no copies: it keeps up with what loopback can carry.
"""

from __future__ import annotations

import re
import socket
import sys
import threading

_BUFFER = 1 << 20
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *([0-9]+)")
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def serve(connection: socket.socket) -> None:
    """Answer requests until the client closes."""
    with connection:
        buffer = memoryview(bytearray(_BUFFER))
        while head := _head(connection):
            text, _, body = head.partition(b"\r\n\r\n")
            length = _LENGTH.search(text)
            left = (int(length[1]) if length else 0) - len(body)
            while left > 0 and (got := connection.recv_into(buffer, min(left, _BUFFER))):
                left -= got
            connection.sendall(_ANSWER)


def _head(connection: socket.socket) -> bytes:
    """A request's head and what came with it; empty once the client has closed."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return b""
        data += more
    return data


def main() -> None:
    """Listen on the port that the command line names, on every address of both families."""
    address = ("::", int(sys.argv[1]))
    with socket.create_server(address, family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main()
