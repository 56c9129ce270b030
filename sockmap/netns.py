"""Network namespaces: opening them, and making sockets inside them from outside.

A socket belongs to the namespace of the thread that made it; afterwards it can be used from anywhere. So kproxy
enters a namespace for the length of one socket() call and comes back.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sockmap.errors import NamespaceError
from sockmap.syscall import set_network_namespace

_SO_NETNS_COOKIE = 71  # include/uapi/asm-generic/socket.h


class NetworkNamespace:
    """An open network namespace; close it, or it stays alive after its owner is gone.

    Attributes:
        path: where it was opened.
        cookie: the kernel's number for it, which the BPF programs see too.
        inode: (device, inode) of the namespace: equal for two paths to one namespace.
    """

    _here = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def __init__(self, path: str) -> None:
        """Open the namespace at ``path`` (``/run/netns/NAME`` or ``/proc/PID/ns/net``).

        Raises:
            NamespaceError: there is none, or it cannot be entered.
        """
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise NamespaceError(
                f"network namespace {path} cannot be opened: {error.strerror}",
                "is the workload running? `ip netns list` and `lsns -t net` show what is there",
            ) from error
        status = os.fstat(self._fd)
        self.inode = (status.st_dev, status.st_ino)
        try:
            with self.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                self.cookie = int.from_bytes(
                    probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), "little"
                )
        except OSError as error:
            os.close(self._fd)
            raise NamespaceError(
                f"{path} cannot be entered as a network namespace: {error.strerror}",
                "give the path of a network namespace, and run kproxy as root",
            ) from error

    @property
    def fd(self) -> int:
        """The descriptor, for attaching programs."""
        return self._fd

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Be inside for the length of the block (this thread only; never across an await)."""
        set_network_namespace(self._fd)
        try:
            yield
        finally:
            set_network_namespace(self._here)

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Make a socket inside."""
        set_network_namespace(self._fd)
        try:
            return socket.socket(family, kind, protocol)
        finally:
            set_network_namespace(self._here)

    def is_current(self) -> bool:
        """Whether the path still leads to this namespace: false once it was deleted or made anew."""
        try:
            status = os.stat(self.path)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self.inode

    def close(self) -> None:
        """Let it go."""
        os.close(self._fd)


def is_host(path: str) -> bool:
    """Whether a path leads to the namespace that this process lives in."""
    try:
        return Path(path).stat().st_ino == Path("/proc/self/ns/net").stat().st_ino
    except OSError:
        return False
