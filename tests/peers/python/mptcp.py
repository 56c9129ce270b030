"""The Jobs API on an MPTCP listener, as Go programs since 1.24 have them without asking for it.

Such sockets cannot enter a sockhash. IPv4 callers appear IPv4-mapped, as the listener is IPv6.
"""

from __future__ import annotations

import socket
import sys

from kproxy.demo.jobs_api import JobsServer

_IPPROTO_MPTCP = 262  # include/uapi/linux/in.h; Python names it from 3.14 on


class MptcpJobsServer(JobsServer):
    """The same server on another kind of socket."""

    def server_bind(self) -> None:
        """Put an MPTCP socket in the place of the TCP socket that the base class made."""
        self.socket.close()
        self.socket = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, _IPPROTO_MPTCP)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        super().server_bind()


if __name__ == "__main__":
    with MptcpJobsServer(int(sys.argv[1])) as server:
        server.serve_forever()
