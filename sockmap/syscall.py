"""bpf(2) and setns(2): the few calls that neither bcc's bindings nor the standard library have.

Numbers and layouts are those of ``include/uapi/linux/bpf.h`` (enum bpf_cmd, union bpf_attr).
"""

from __future__ import annotations

import ctypes as ct
import errno
import os
import platform
import struct

_BPF_SYSCALL = {"x86_64": 321, "aarch64": 280}
_CLONE_NEWNET = 0x40000000

_MAP_LOOKUP_ELEM, _MAP_UPDATE_ELEM, _MAP_DELETE_ELEM = 1, 2, 3
_MAP_UPDATE_BATCH, _MAP_DELETE_BATCH = 26, 27
_PROG_GET_FD_BY_ID, _OBJ_GET_INFO_BY_FD, _PROG_QUERY = 13, 15, 16
_PROG_LOAD, _PROG_ATTACH, _LINK_CREATE = 5, 8, 28

_ANY, _NOEXIST = 0, 1  # BPF_ANY, BPF_NOEXIST

_libc = ct.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ct.c_long


def _number() -> int:
    machine = platform.machine()
    if machine not in _BPF_SYSCALL:
        raise OSError(errno.ENOSYS, f"the number of bpf(2) on {machine} is not known here")
    return _BPF_SYSCALL[machine]


_BPF = _number()


def _raise() -> None:
    code = ct.get_errno()
    raise OSError(code, os.strerror(code))


def _bpf(command: int, attributes: bytes | ct.Array[ct.c_char]) -> int:
    result: int = _syscall(_BPF, command, attributes, len(attributes))
    if result < 0:
        _raise()
    return result


def map_update(map_fd: int, key: ct._CData, value: ct._CData) -> None:
    """Write one element.

    Raises:
        OSError: E2BIG the map is full, EINVAL a wrong size.
    """
    _bpf(_MAP_UPDATE_ELEM, struct.pack("=IxxxxQQQ", map_fd, ct.addressof(key), ct.addressof(value), _ANY))


def map_insert(map_fd: int, key: ct._CData, value: ct._CData) -> bool:
    """Write an element that is not there; false where it is.

    Raises:
        OSError: E2BIG the map is full.
    """
    attributes = struct.pack("=IxxxxQQQ", map_fd, ct.addressof(key), ct.addressof(value), _NOEXIST)
    try:
        _bpf(_MAP_UPDATE_ELEM, attributes)
    except OSError as error:
        if error.errno == errno.EEXIST:
            return False
        raise
    return True


def queue_push(map_fd: int, value: ct._CData) -> None:
    """Append to a BPF queue, which has no keys. Raises OSError: E2BIG it is full."""
    _bpf(_MAP_UPDATE_ELEM, struct.pack("=IxxxxQQQ", map_fd, 0, ct.addressof(value), _ANY))


def map_lookup(map_fd: int, key: ct._CData, value: ct._CData) -> bool:
    """Read one element into ``value``; false where there is none."""
    attributes = struct.pack("=IxxxxQQQ", map_fd, ct.addressof(key), ct.addressof(value), 0)
    if _syscall(_BPF, _MAP_LOOKUP_ELEM, attributes, 32) < 0:
        if ct.get_errno() == errno.ENOENT:
            return False
        _raise()
    return True


def map_delete(map_fd: int, key: ct._CData) -> bool:
    """Delete one element; false where there was none."""
    try:
        _bpf(_MAP_DELETE_ELEM, struct.pack("=IxxxxQQQ", map_fd, ct.addressof(key), 0, 0))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return False
        raise
    return True


def map_update_batch(map_fd: int, keys: bytes, values: bytes, count: int) -> int:
    """Write ``count`` elements, packed one behind the other, in one call; return how many were written.

    They are fewer than ``count`` where one could not be: the map is full. Then errno says why.
    """
    key_buffer, value_buffer = ct.create_string_buffer(keys), ct.create_string_buffer(values)
    return _batch(_MAP_UPDATE_BATCH, map_fd, ct.addressof(key_buffer), ct.addressof(value_buffer), count)


def map_delete_batch(map_fd: int, keys: bytes, count: int) -> int:
    """Delete ``count`` elements, whose keys are packed; return how many, up to the first that is not there."""
    key_buffer = ct.create_string_buffer(keys)
    return _batch(_MAP_DELETE_BATCH, map_fd, ct.addressof(key_buffer), 0, count)


def _batch(command: int, map_fd: int, keys: int, values: int, count: int) -> int:
    """Run a batch command, whose attributes tell how far it came (union bpf_attr, struct batch)."""
    attributes = ct.create_string_buffer(
        struct.pack("=QQQQIIQQ", 0, 0, keys, values, count, map_fd, _ANY, 0), 56
    )
    failed = _syscall(_BPF, command, attributes, 56) < 0
    done = int.from_bytes(attributes.raw[32:36], "little")
    # What is refused before the first element (a wrong descriptor, say) leaves the count as it was.
    if failed and done == count:
        _raise()
    return done


def program_load(program_type: int, attach_type: int, instructions: bytes, name: str) -> int:
    """Load instructions whose map references are already descriptors; return the program's descriptor.

    Raises:
        OSError: EACCES/EINVAL the verifier refused it, EPERM not permitted.
    """
    code = ct.create_string_buffer(instructions, len(instructions))
    license_text = ct.create_string_buffer(b"GPL")
    attributes = struct.pack(
        "=IIQQIIQII16sII",
        program_type,
        len(instructions) // 8,
        ct.addressof(code),
        ct.addressof(license_text),
        0,
        0,
        0,
        0,
        0,
        name.encode()[:15],
        0,
        attach_type,
    )
    return _bpf(_PROG_LOAD, attributes)


def program_attach(target_fd: int, program_fd: int, attach_type: int, flags: int = 0) -> None:
    """BPF_PROG_ATTACH: to a cgroup or a map. Raises OSError: EBUSY where another one excludes it."""
    _bpf(_PROG_ATTACH, struct.pack("=IIII", target_fd, program_fd, attach_type, flags))


def attached_programs(target_fd: int, attach_type: int, ids: ct.Array[ct.c_uint32]) -> int:
    """BPF_PROG_QUERY: fill ``ids`` with what is attached to a cgroup or namespace; return how many there are.

    Raises OSError: ENOSPC there are more than fit.
    """
    attributes = ct.create_string_buffer(
        struct.pack("=IIIIQI28x", target_fd, attach_type, 0, 0, ct.addressof(ids), len(ids)), 56
    )
    _bpf(_PROG_QUERY, attributes)
    return int.from_bytes(attributes.raw[24:28], "little")


def program_by_id(program: int) -> int:
    """BPF_PROG_GET_FD_BY_ID. Raises OSError: ENOENT it is gone."""
    return _bpf(_PROG_GET_FD_BY_ID, struct.pack("=III", program, 0, 0))


def program_info(fd: int, size: int) -> bytes:
    """BPF_OBJ_GET_INFO_BY_FD: the first ``size`` bytes of struct bpf_prog_info."""
    info = ct.create_string_buffer(size)
    _bpf(_OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", fd, size, ct.addressof(info)))
    return info.raw


def link_create(program_fd: int, target_fd: int, attach_type: int) -> int:
    """BPF_LINK_CREATE; the program stays attached until the returned descriptor is closed (and not pinned)."""
    return _bpf(_LINK_CREATE, struct.pack("=IIII48x", program_fd, target_fd, attach_type, 0))


def set_network_namespace(namespace_fd: int) -> None:
    """Move the calling thread into a network namespace. Raises OSError: EINVAL it is none, EPERM."""
    if _libc.setns(namespace_fd, _CLONE_NEWNET):
        _raise()
