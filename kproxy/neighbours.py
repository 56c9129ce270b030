"""The other network namespaces of this node: the host's, and those of pods that are under no policy.

A connection to or from such a pod can be spliced as any other, if kproxy can see how much its socket holds unread.
That takes a sock_diag socket in its namespace; and a socket keeps a namespace alive. So namespaces are known by
path and cookie, and one is entered only while connections of it are spliced.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from sockmap.diag import SockDiag
from sockmap.errors import NamespaceError
from sockmap.netns import NetworkNamespace
from sockmap.sockets import SocketMarks

# A namespace that nobody asked about for this long is let go: its pod may be gone, and its owner waits for that.
IDLE_S = 2.0

# More namespaces than this are not looked at; the kernel's map of them has that size.
MOST = 4096


class Neighbours:
    """Namespaces of this node, by cookie.

    Args:
        marks: tells the programs in which namespaces they may splice.
    """

    def __init__(self, marks: SocketMarks) -> None:
        self._marks = marks
        self._paths: dict[int, str] = {}
        self._seen: dict[tuple[int, int], int] = {}
        self._diags: dict[int, tuple[SockDiag, float]] = {}

    def look(self) -> None:
        """Find the namespaces that there are now."""
        paths = dict(_namespaces())
        for inode in self._seen.keys() - paths.keys():
            self._forget(self._seen.pop(inode))
        for inode, path in list(paths.items())[:MOST]:
            cookie = self._seen.get(inode) or self._meet(inode, path)
            if cookie:
                self._paths[cookie] = path

    def diag(self, cookie: int) -> SockDiag | None:
        """Return sock_diag of a namespace, entering it if need be; None where it is gone."""
        found = self._diags.get(cookie)
        diag = found[0] if found else self._open(cookie)
        if diag is not None:
            self._diags[cookie] = (diag, time.monotonic())
        return diag

    def let_go(self) -> None:
        """Close what nobody has asked about for a while."""
        now = time.monotonic()
        for cookie, (diag, used) in list(self._diags.items()):
            if now - used > IDLE_S:
                diag.close()
                del self._diags[cookie]

    def close(self) -> None:
        """Let go of all."""
        for diag, _used in self._diags.values():
            diag.close()
        self._diags.clear()

    def _meet(self, inode: tuple[int, int], path: str) -> int | None:
        try:
            namespace = NetworkNamespace(path)
        except NamespaceError:
            return None  # its last process ended meanwhile
        namespace.close()
        self._seen[inode] = namespace.cookie
        self._marks.add_neighbour(namespace.cookie)
        return namespace.cookie

    def _open(self, cookie: int) -> SockDiag | None:
        path = self._paths.get(cookie)
        if path is None:
            return None
        try:
            namespace = NetworkNamespace(path)
        except NamespaceError:
            return None
        try:
            # The path may lead elsewhere by now: a process id is used again.
            return SockDiag(namespace) if namespace.cookie == cookie else None
        finally:
            namespace.close()

    def _forget(self, cookie: int) -> None:
        self._marks.remove_neighbour(cookie)
        self._paths.pop(cookie, None)
        found = self._diags.pop(cookie, None)
        if found:
            found[0].close()


def _namespaces() -> Iterator[tuple[tuple[int, int], str]]:
    """Yield (device, inode) and a path of each network namespace; later ones for one namespace win."""
    for path in (*Path("/proc").glob("[0-9]*/ns/net"), *Path("/run/netns").glob("*")):
        try:
            status = os.stat(path)
        except OSError:
            continue
        yield (status.st_dev, status.st_ino), str(path)
