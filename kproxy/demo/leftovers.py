"""What a run of kproxy holds in the kernel, and what of that is still there after it.

BPF objects are taken from the run's own file descriptors (/proc/PID/fdinfo names their ids, which the
kernel does not give out again soon), so that those of other programs on the machine are never counted.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kproxy.demo.process import run
from sockmap.cgroup import root

KINDS = ("prog", "map", "link")
# Freed programs and maps go after an RCU grace period, on a workqueue: at once in human terms.
SETTLE_S = 5.0
_POLL_S = 0.05
_ID = re.compile(r"^(prog|map|link)_id:\s+([0-9]+)$", re.MULTILINE)


@dataclass(frozen=True)
class Holdings:
    """Ids of BPF objects by kind, and control groups that a run of kproxy made."""

    bpf: frozenset[tuple[str, int]]
    cgroups: frozenset[Path]

    def __str__(self) -> str:
        counts = {kind: sum(held == kind for held, _ in self.bpf) for kind in KINDS}
        told = [f"{count} BPF {kind}s" for kind, count in counts.items()]
        return ", ".join([*told, f"{len(self.cgroups)} cgroups"])


def holdings(pid: int, cgroups_before: frozenset[Path]) -> Holdings:
    """What the process holds now; `cgroups_before` are those that were there before it started."""
    made = {path for path in cgroups() - cgroups_before if "kproxy" in path.name}
    return Holdings(frozenset(held_by(pid)), frozenset(made))


def left_of(held: Holdings) -> list[str]:
    """What of it is still there once the kernel had time to let go; empty when all is undone."""
    deadline = time.monotonic() + SETTLE_S
    while (left := _left_now(held)) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return left


def cgroups() -> frozenset[Path]:
    """Every control group of the cgroup v2 hierarchy, wherever it is mounted."""
    return frozenset(path for path in root().rglob("*") if path.is_dir())


def held_by(pid: int) -> Iterator[tuple[str, int]]:
    """Kind and id of every BPF object that the process has open; none if it has ended."""
    for entry in Path(f"/proc/{pid}/fdinfo").glob("*"):
        try:
            text = entry.read_text()
        except OSError:  # closed since it was listed
            continue
        yield from ((kind, int(number)) for kind, number in _ID.findall(text))


def _left_now(held: Holdings) -> list[str]:
    there = {(kind, item["id"]) for kind in KINDS for item in json.loads(run(["bpftool", "-j", kind]).stdout)}
    objects = [f"BPF {kind} {number}" for kind, number in sorted(held.bpf & there)]
    return objects + [f"cgroup {path}" for path in sorted(held.cgroups) if path.exists()]
