"""Who else has programs where ours go: another kproxy in a namespace, another agent that uses sockmaps."""

from __future__ import annotations

import ctypes as ct
import os

from sockmap.syscall import attached_programs, program_by_id, program_info

_MOST = 64  # programs on one hook; the kernel's own limit for a cgroup is BPF_CGROUP_MAX_PROGS, 64
_INFO_BYTES = 128
_NAME = slice(64, 80)  # bpf_prog_info.name, include/uapi/linux/bpf.h


def programs_at(target_fd: int, attach_type: int) -> list[str]:
    """Return the names of the programs that are attached to a cgroup or a network namespace, in their order.

    A name is cut by the kernel to 15 characters, and empty where its loader gave none.

    Raises:
        OSError: the kernel does not say.
    """
    ids = (ct.c_uint32 * _MOST)()
    count = attached_programs(target_fd, attach_type, ids)
    return [_name(ids[index]) for index in range(count)]


def _name(program: int) -> str:
    try:
        fd = program_by_id(program)
    except OSError:
        return ""  # detached and freed since it was listed
    try:
        info = program_info(fd, _INFO_BYTES)
        return info[_NAME].split(b"\0", 1)[0].decode(errors="replace")
    finally:
        os.close(fd)
