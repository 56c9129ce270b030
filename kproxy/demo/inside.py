"""Standing in another network namespace: the calling thread goes there and comes back.

setns(2) moves one thread, so what is opened inside belongs to that namespace for good while the rest
of the process never leaves home. Nothing here connects to anything: what listens in a namespace is
read from /proc, so that looking does not disturb (or meet) a policy under test.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sockmap.syscall import set_network_namespace

# The state column of /proc/net/tcp in hexadecimal: TCP_LISTEN of include/net/tcp_states.h.
_TCP_LISTEN = "0A"


@contextmanager
def inside(netns: Path) -> Iterator[None]:
    """The calling thread is in the namespace at this path until the block ends.

    Raises OSError where the path is no network namespace or the caller is not root.
    """
    with Path("/proc/thread-self/ns/net").open("rb") as home, netns.open("rb") as there:
        set_network_namespace(there.fileno())
        try:
            yield
        finally:
            set_network_namespace(home.fileno())


def listening_ports(netns: Path) -> frozenset[int]:
    """The TCP ports, IPv4 and IPv6, that some socket of this namespace listens on."""
    with inside(netns):
        tables = [Path(f"/proc/thread-self/net/{name}").read_text() for name in ("tcp", "tcp6")]
    return frozenset(port for table in tables for port in _listeners(table))


def _listeners(table: str) -> Iterator[int]:
    """Ports in LISTEN of one table (proc_pid_net(5): second column address:port, fourth the state)."""
    for line in table.splitlines()[1:]:
        _, local, _, state, *_ = line.split()
        if state == _TCP_LISTEN:
            yield int(local.rpartition(":")[2], 16)


def processes_in(netns: Path) -> frozenset[int]:
    """The processes whose main thread is in the namespace, by pid."""
    there = netns.stat()
    return frozenset(
        int(proc.name) for proc in Path("/proc").glob("[0-9]*") if _in(proc, there.st_dev, there.st_ino)
    )


def _in(proc: Path, device: int, inode: int) -> bool:
    try:
        seen = (proc / "ns/net").stat()
    except OSError:  # ended while we looked
        return False
    return (seen.st_dev, seen.st_ino) == (device, inode)
