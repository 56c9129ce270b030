"""Finds the cgroup v2 hierarchy, to whose root the socket hooks are attached."""

from __future__ import annotations

from pathlib import Path

from sockmap.errors import CgroupError


def mount_point(mountinfo: str) -> Path | None:
    """Return where cgroup v2 is mounted, from the text of ``/proc/self/mountinfo`` (proc(5)).

    On a host with both versions it is not ``/sys/fs/cgroup`` but, usually, ``/sys/fs/cgroup/unified``.
    """
    for line in mountinfo.splitlines():
        before, separator, after = line.partition(" - ")
        if separator and after.split(" ", 1)[0] == "cgroup2":
            return Path(before.split(" ")[4].encode().decode("unicode_escape"))
    return None


def root() -> Path:
    """Return the mounted cgroup v2 root.

    Raises:
        CgroupError: none is mounted.
    """
    found = mount_point(Path("/proc/self/mountinfo").read_text())
    if found is None:
        raise CgroupError(
            "no cgroup v2 hierarchy is mounted",
            "mount one: mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified",
        )
    return found
