"""One connect() through io_uring, by the bare system calls (io_uring_setup(2), io_uring_enter(2))."""

from __future__ import annotations

import ctypes as ct
import mmap
import os
import socket
import struct

_SETUP, _ENTER = 425, 426  # the same numbers on every architecture
_OFF_SQ_RING, _OFF_CQ_RING, _OFF_SQES = 0, 0x8000000, 0x10000000
_OP_CONNECT, _GETEVENTS = 16, 1
_PARAMS_BYTES = 120


def connect(descriptor: int, address: tuple[str, int]) -> int:
    """Connect an IPv4 socket; return the result, a negative error number.

    Raises OSError: the kernel has no io_uring, or does not let us.
    """
    libc = ct.CDLL(None, use_errno=True)
    params = ct.create_string_buffer(_PARAMS_BYTES)
    ring = libc.syscall(_SETUP, 1, params)
    if ring < 0:
        raise OSError(ct.get_errno(), os.strerror(ct.get_errno()))
    try:
        return _submit(libc, ring, params.raw, descriptor, address)
    finally:
        os.close(ring)


def _submit(libc: ct.CDLL, ring: int, params: bytes, descriptor: int, address: tuple[str, int]) -> int:
    sq_entries, cq_entries = struct.unpack_from("II", params)
    sq = struct.unpack_from("10I", params, 40)  # head, tail, mask, entries, flags, dropped, array …
    cq = struct.unpack_from("10I", params, 80)  # head, tail, mask, entries, overflow, cqes …
    name = ct.create_string_buffer(
        struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", address[1], socket.inet_aton(address[0]))
    )
    with (
        mmap.mmap(ring, sq[6] + 4 * sq_entries, offset=_OFF_SQ_RING) as submissions,
        mmap.mmap(ring, cq[5] + 16 * cq_entries, offset=_OFF_CQ_RING) as completions,
        mmap.mmap(ring, 64 * sq_entries, offset=_OFF_SQES) as entries,
    ):
        entries[:48] = struct.pack(
            "=BBHiQQIIQQ", _OP_CONNECT, 0, 0, descriptor, 16, ct.addressof(name), 0, 0, 7, 0
        )
        struct.pack_into("I", submissions, sq[6], 0)
        struct.pack_into("I", submissions, sq[1], 1)
        if libc.syscall(_ENTER, ring, 1, 1, _GETEVENTS, None, 0) < 0:
            raise OSError(ct.get_errno(), os.strerror(ct.get_errno()))
        user_data, result = struct.unpack_from("=Qi", completions, cq[5])
        assert user_data == 7
        return int(result)
