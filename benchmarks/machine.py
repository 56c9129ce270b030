"""What the machine is, and what it has spent: CPU time and memory, read from /proc."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_TICK_US = 1_000_000 / os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
# A socket, its inode, dentry and file, who waits for it, what it holds, and (kmalloc) what BPF keeps of it.
_CONNECTION_SLABS = re.compile(r"TCP|sock_inode_cache|dentry|filp|eventpoll|ep_item|skbuff|kmalloc")
_ROOT = Path(__file__).parents[1]


def busy_us() -> float:
    """CPU time that all cores together have been busy since boot, in microseconds, in steps of a tick.

    proc_stat(5): user, nice, system, then idle and iowait, which are left out, then irq and softirq. What a
    hypervisor took (steal) is not this machine's work; guest time stands in user already.
    """
    user, nice, system, _idle, _iowait, irq, softirq = _cpu_ticks()
    return (user + nice + system + irq + softirq) * _TICK_US


def _cpu_ticks() -> list[int]:
    first = Path("/proc/stat").read_text().split("\n", 1)[0]
    return [int(field) for field in first.split()[1:8]]


def resident_bytes(pids: Iterable[int]) -> int:
    """Resident memory of these processes (VmRSS of proc_pid_status(5))."""
    return sum(_field(Path(f"/proc/{pid}/status"), "VmRSS") for pid in pids)


def kernel_bytes() -> int:
    """Kernel memory in use, machine-wide, of the kinds that connections are made of.

    That is objects in use of the slabs named below (slabinfo(5)) and TCP's buffer pages (/proc/net/sockstat).
    """
    objects = sum(
        int(used) * int(size)
        for name, used, _, size, *_ in map(str.split, Path("/proc/slabinfo").read_text().splitlines()[2:])
        if _CONNECTION_SLABS.match(name)
    )
    buffered = re.search(r"^TCP: .* mem ([0-9]+)", Path("/proc/net/sockstat").read_text(), re.MULTILINE)
    return objects + (int(buffered[1]) if buffered else 0) * _PAGE


def _field(path: Path, name: str) -> int:
    """A field that /proc gives in kB, in bytes."""
    found = re.search(rf"^{name}:\s+([0-9]+) kB", path.read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def others_share(seconds: float = 1.0) -> float:
    """How busy the machine is with other things, 0 to 1 of all its cores, over this time."""
    before = busy_us()
    time.sleep(seconds)
    return (busy_us() - before) / (seconds * 1e6 * (os.cpu_count() or 1))


def describe() -> dict[str, Any]:
    """What a reader must know to place the figures."""
    model = re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = _field(Path("/proc/meminfo"), "MemTotal")
    return {
        "machine": f"{model[1] if model else platform.machine()}, {os.cpu_count()} cores, {memory >> 30} GiB",
        "kernel": platform.release(),
        "commit": _commit(),
        "python": platform.python_version(),
    }


def _commit() -> str:
    """The checkout's commit, with `-dirty` where files differ from it; empty outside a checkout."""
    command = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
