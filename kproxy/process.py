"""What kproxy asks of its own process."""

from __future__ import annotations

import resource

from kproxy.logs import logger

_log = logger(__name__)

PER_FLOW = 2  # P and U
BESIDE = 4096  # listeners, namespaces, netlink, log, admin connections, and flows that are being opened


def raise_descriptor_limit(flows: int) -> None:
    """Allow as many open files as this many flows need, or as near as can be; say so where it is less."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = flows * PER_FLOW + BESIDE
    if soft >= wanted:
        return
    for limits in ((wanted, max(hard, wanted)), (hard, hard)):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        except (ValueError, OSError):
            continue  # above fs.nr_open, or not permitted
        break
    given = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if given < wanted:
        mend = f"raise the limit of open files to {wanted}, or lower limits.connections"
        _log.warning("fewer open files than flows may need", allowed=given, wanted=wanted, mend=mend)
