"""Probes what the kernel can do, by doing it: never by comparing versions."""

from __future__ import annotations

import contextlib
import ctypes as ct
import fcntl
import mmap
import select
import socket
import struct
import termios
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sockmap.credit import BUDGET, GRANT_MASK
from sockmap.layout import Role, Slot, SlotMode, SocketState
from sockmap.syscall import map_update

_SO_MEMINFO = 55
_SO_COOKIE = 57
_PATIENCE_MS = 1000  # loopback delivers within microseconds; a loaded machine may take longer
_SENT, _READ = 1000, 400


@dataclass(frozen=True, slots=True)
class Feature:
    """Something the kernel was asked for.

    Attributes:
        name: what.
        found: whether it works here.
        cost: what is missing without it; empty where found.
    """

    name: str
    found: bool
    cost: str = ""


def probe_splice(memory: mmap.mmap, map_fd: Callable[[str], int]) -> tuple[Feature, ...]:
    """Splice bytes between two sockets of this process and look at what the kernel says of them.

    Uses slots 0 and 1, so it runs before slots are given out and before any hook is attached.
    """
    with _spliced_pair(memory, map_fd) as (sender, reader, slot):
        moved = _moves(sender, reader, slot)
        charged = moved and _charges(reader)
        counts = moved and _counts(sender, reader)
    return (
        _feature("sk_msg redirect", moved, "no splice: every byte goes through TCP"),
        _feature(
            "redirected bytes are charged to their reader",
            charged,
            "no splice: a reader that does not read could hold any amount of memory",
        ),
        _feature(
            "FIONREAD counts redirected bytes",
            counts,
            "no splice: nginx, Java and .NET would wait for bytes that are there",
        ),
    )


def _feature(name: str, found: bool, cost: str) -> Feature:
    return Feature(name, found, "" if found else cost)


@contextlib.contextmanager
def _spliced_pair(
    memory: mmap.mmap, map_fd: Callable[[str], int]
) -> Iterator[tuple[socket.socket, socket.socket, Slot]]:
    with contextlib.ExitStack() as undo:
        server = undo.enter_context(socket.create_server(("127.0.0.1", 0)))
        sender = undo.enter_context(socket.create_connection(server.getsockname()))
        reader = undo.enter_context(server.accept()[0])
        cookies = [one.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8) for one in (sender, reader)]
        slots = [Slot.from_buffer(memory, index * ct.sizeof(Slot)) for index in (0, 1)]
        for index, (one, slot) in enumerate(zip((sender, reader), slots, strict=True)):
            slot.cookie, slot.peer_cookie = (int.from_bytes(cookies[i], "little") for i in (index, 1 - index))
            slot.peer_slot, slot.in_map = 1 - index, 1
            slot.granted, slot.reopen, slot.role = BUDGET, GRANT_MASK, Role.CLIENT
            state = SocketState(slot=index, slot_generation=0, role=Role.CLIENT)
            map_update(map_fd("sockets"), ct.c_int(one.fileno()), state)
            cookie = ct.c_uint64.from_buffer_copy(cookies[index])
            map_update(map_fd("spliced"), cookie, ct.c_uint32(one.fileno()))
        try:
            yield sender, reader, slots[0]
        finally:
            for slot in slots:
                ct.memset(ct.addressof(slot), 0, ct.sizeof(slot))
                slot.mode_generation = SlotMode.CLOSED << 32 | 1  # nobody's, and not generation 0's
            slots.clear()
            del slot


def _moves(sender: socket.socket, reader: socket.socket, slot: Slot) -> bool:
    sender.sendall(bytes(_SENT))
    return _readable(reader) and slot.bytes == _SENT and slot.tcp_bytes == 0


def _charges(reader: socket.socket) -> bool:
    before = _memory(reader)
    reader.recv(_READ)
    after = _memory(reader)
    reader.recv(_SENT)
    return (before, after) == (_SENT, _SENT - _READ)


def _counts(sender: socket.socket, reader: socket.socket) -> bool:
    sender.sendall(bytes(_SENT))
    if not _readable(reader):
        return False
    waiting = fcntl.ioctl(reader, termios.FIONREAD, bytes(4))
    return int(struct.unpack("i", waiting)[0]) == _SENT


def _readable(reader: socket.socket) -> bool:
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    return bool(poll.poll(_PATIENCE_MS))


def _memory(reader: socket.socket) -> int:
    return int.from_bytes(reader.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 36)[:4], "little")
