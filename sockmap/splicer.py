"""Refills the credit of spliced directions, and brings directions back from TCP: the shell around the arithmetic.

The slots that the kernel side writes are mapped into this process; every field is read with one aligned 64-bit
load. A ring-buffer event says which slot asks; a timer retries directions that went by TCP.
"""

from __future__ import annotations

import ctypes as ct
import fcntl
import functools
import mmap
import socket
import termios
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from sockmap.credit import BUDGET, FIRST_GRANT, GRANT_MASK, MESSAGE_COST, OWN_BUDGET, Account, tagged
from sockmap.diag import BYTES_RECEIVED, Connection, Name, Progress, SockDiag
from sockmap.layout import NO_SLOT, Event, EventKind, Pair, Slot, SlotMode, SocketState
from sockmap.syscall import map_delete, map_insert, map_lookup, map_update

_WORDS = 8  # bytes in one; all offsets below count words
_BYTES, _MESSAGES = Slot.bytes.offset // _WORDS, Slot.messages.offset // _WORDS
_SETTLED_BYTES = Slot.settled_bytes.offset // _WORDS
_SETTLED_MESSAGES = Slot.settled_messages.offset // _WORDS
_TCP_BYTES, _MODE = Slot.tcp_bytes.offset // _WORDS, Slot.mode_generation.offset // _WORDS
_COOKIE, _PEER_COOKIE = Slot.cookie.offset // _WORDS, Slot.peer_cookie.offset // _WORDS
_PEER_SLOT, _NETNS = Slot.peer_slot.offset // _WORDS, Slot.netns.offset // _WORDS
_IN_MAP = Slot.in_map.offset // _WORDS
_ENDS = Slot.message_end.offset // _WORDS
_GRANTED, _REOPEN = Slot.granted.offset // _WORDS, Slot.reopen.offset // _WORDS
_STRIDE = ct.sizeof(Slot) // _WORDS

_SO_MEMINFO = 55  # include/uapi/asm-generic/socket.h
_MEMINFO_BYTES = 36
_SO_COOKIE = 57
_TCP_INFO_BYTES = 136  # up to and with tcpi_bytes_received

# A direction that went by TCP is looked at again after this long; each look in vain doubles it, because a bulk
# stream outruns any reader and would be looked at for ever.
FIRST_RETRY_S = 0.002
LAST_RETRY_S = 1.0


# What kproxy keeps of a grant in reserve: a write that the kernel takes in parts counts as so many messages.
WRITE_MARGIN = 16 * MESSAGE_COST


@dataclass(slots=True)
class _Retry:
    generation: int
    due: float
    wait: float


class _Own(NamedTuple):
    socket: socket.socket
    cookie: int


class Allowance:
    """What kproxy may still write through one spliced socket of its own. Asked at every write: plain numbers.

    The kernel side counts the same, and would leave to TCP what exceeds the grant; this is for not letting it come
    to that.
    """

    __slots__ = ("_refresh", "cost", "limit")

    def __init__(self, refresh: Callable[[], None]) -> None:
        self._refresh = refresh
        self.cost, self.limit = 0, FIRST_GRANT - WRITE_MARGIN

    def spend(self, size: int) -> bool:
        """Account for one write of ``size`` bytes; false, and nothing spent, where it exceeds the credit."""
        cost = self.cost + size + MESSAGE_COST
        if cost > self.limit:
            return False
        self.cost = cost
        return True

    def room(self) -> int:
        """How many bytes one write may have now; none where it is not positive."""
        return self.limit - self.cost - MESSAGE_COST

    def refresh(self) -> None:
        """Look at the reader, and grant what it has read."""
        self._refresh()


class Splicer:
    """Credit for all slots.

    Args:
        memory: the mapped ``slots`` array.
        map_fd: returns the descriptor of a map by name.

    Attributes:
        diags: finds the sock_diag socket of a network namespace, by the namespace's cookie; None where there
            is none, so that such a direction keeps its first grant and then goes by TCP.
        looks: how often a reader's queue was looked at.
    """

    def __init__(self, memory: mmap.mmap, map_fd: Callable[[str], int]) -> None:
        self._memory, self._map_fd = memory, map_fd
        self._words = memoryview(memory).cast("Q")
        self.diags: Callable[[int], SockDiag | None] = lambda _cookie: None
        self._own: dict[int, _Own] = {}
        self._accounts: dict[int, Account] = {}
        self._by_tcp: dict[int, _Retry] = {}
        self._asking: set[int] = set()
        self._allowances: dict[int, Allowance] = {}
        self.looks = 0

    def adopt(self, slot: int, own: socket.socket) -> None:
        """Remember kproxy's own socket behind a slot: its queue is read without sock_diag."""
        self._own[slot] = _Own(own, int.from_bytes(_cookie(own), "little"))
        self._allowances[slot] = Allowance(functools.partial(self._refresh, slot))

    def allowance(self, slot: int) -> Allowance:
        """Return what may be written through an own socket. Raises KeyError: it was not adopted."""
        return self._allowances[slot]

    def join(self, own: socket.socket) -> int:
        """Put a connected upstream socket of ours into the map if its server is there; return its slot.

        NO_SLOT where the server is elsewhere, or not established yet (TCP_DEFER_ACCEPT): this is decided once,
        and the server's socket does not enter the map later.

        Raises:
            OSError: the server's socket is in the map and ours cannot follow: the connection must end.
        """
        cookie, pair = ct.c_uint64.from_buffer_copy(_cookie(own)), Pair()
        pairs = self._map_fd("pairs")
        if not map_lookup(pairs, cookie, pair) and (
            self._decline(own, cookie) or not map_lookup(pairs, cookie, pair)
        ):
            return NO_SLOT
        if pair.slot == NO_SLOT:
            return NO_SLOT
        map_update(self._map_fd("spliced"), cookie, ct.c_uint32(own.fileno()))
        self._words[pair.slot * _STRIDE + _IN_MAP] = 1
        self.adopt(pair.slot, own)
        return int(pair.slot)

    def _decline(self, own: socket.socket, cookie: ct.c_uint64) -> bool:
        """Take the pair's place, so that the server's socket stays out of the map; false: it was faster."""
        pairs = self._map_fd("pairs")
        if not self._offers(own):
            return True
        if not map_insert(pairs, cookie, Pair(0, NO_SLOT, 0)):
            return False
        if not self._offers(own):  # closed meanwhile: perhaps before there was an element to delete
            map_delete(pairs, cookie)
        return True

    def _offers(self, own: socket.socket) -> bool:
        """Whether an upstream socket is open and has offered its server to splice."""
        state = SocketState()
        return map_lookup(self._map_fd("sockets"), ct.c_int(own.fileno()), state) and bool(
            state.handshake and state.splice
        )

    def release(self, slot: int) -> None:
        """Forget an own socket, best before it is closed."""
        own = self._own.pop(slot, None)
        if own is not None and self._words[slot * _STRIDE + _COOKIE] == own.cookie:
            self._accounts.pop(slot, None)
            self._by_tcp.pop(slot, None)
        self._allowances.pop(slot, None)

    @property
    def retrying(self) -> bool:
        """Whether :meth:`retry` has anything to do."""
        return bool(self._by_tcp)

    def event(self, event: Event, now: float) -> None:
        """Note one record of the ring buffer; :meth:`refill` does the work for all of them."""
        slot = event.slot_or_endpoint
        if event.kind == EventKind.ASK:
            self._asking.add(slot)
        elif event.kind == EventKind.TO_TCP:
            self._by_tcp[slot] = _Retry(event.generation_or_direction, now + FIRST_RETRY_S, FIRST_RETRY_S)

    def refill(self) -> None:
        """Look at the reader of every slot that asked, and raise its grant."""
        asking, self._asking = self._asking, set()
        for slot in asking:
            self._look(slot)

    def retry(self, now: float) -> None:
        """Bring back the directions whose reader is seen to have read all that went by TCP."""
        for slot, retry in list(self._by_tcp.items()):
            if now < retry.due:
                continue
            if self._reopen(slot, retry.generation):
                del self._by_tcp[slot]
            else:
                retry.wait = min(retry.wait * 2, LAST_RETRY_S)
                retry.due = now + retry.wait

    def close(self) -> None:
        """Let go of the mapping."""
        self._words.release()
        self._memory.close()

    def mode(self, slot: int, generation: int) -> SlotMode:
        """How a direction travels now; CLOSED too where the slot has another owner."""
        word = self._words[slot * _STRIDE + _MODE]
        return SlotMode(word >> 32) if word & 0xFFFFFFFF == generation else SlotMode.CLOSED

    def peer(self, slot: int) -> int:
        """The slot at the other end, or NO_SLOT where there is none, or it has another owner by now."""
        words, at = self._words, slot * _STRIDE
        reader = words[at + _PEER_SLOT]
        if reader == NO_SLOT or words[reader * _STRIDE + _COOKIE] != words[at + _PEER_COOKIE]:
            return NO_SLOT
        return reader

    def snapshot(self, slot: int) -> Slot:
        """A copy of a slot, for tests and diagnosis."""
        size = _STRIDE * _WORDS
        return Slot.from_buffer_copy(self._memory[slot * size : (slot + 1) * size])

    def _look(self, slot: int) -> None:
        words, at = self._words, slot * _STRIDE
        mode, generation = divmod(words[at + _MODE], 1 << 32)
        if mode == SlotMode.CLOSED:
            return  # what is there is the last owner's, and the generation the next one's
        # In this order: what was sent is read before what is unread. A message that is being sent may be counted
        # and not be in the queue yet, so it does not count here; our own sockets send in this thread, so none is.
        own = self._own_at(slot) is not None
        messages = words[at + (_MESSAGES if own else _SETTLED_MESSAGES)]
        sent = words[at + (_BYTES if own else _SETTLED_BYTES)]
        unread = self._unread(slot)
        ends = words[at + _ENDS : at + _ENDS + 16]
        if unread is None or self.mode(slot, generation) == SlotMode.CLOSED:
            return
        account = self._account(slot, generation)
        before = account.granted
        granted = account.look(sent, messages, unread, ends)
        if granted > before:
            words[at + _GRANTED] = tagged(generation, granted)
        allowance = self._allowances.get(slot)
        if allowance is not None:
            allowance.limit = granted - WRITE_MARGIN
            allowance.cost = max(allowance.cost, words[at + _BYTES] + MESSAGE_COST * words[at + _MESSAGES])

    def _refresh(self, slot: int) -> None:
        """Look for one of our own writers; where nothing can be seen, or it went by TCP, let the kernel decide."""
        word = self._words[slot * _STRIDE + _MODE]
        if word >> 32 == SlotMode.SPLICING and self._unread(slot) is not None:
            self._look(slot)
        else:
            self._allowances[slot].limit = GRANT_MASK

    def _reopen(self, slot: int, generation: int) -> bool:
        """Try to; true where there is nothing left to do."""
        words, at = self._words, slot * _STRIDE
        by_tcp, sent, messages = words[at + _TCP_BYTES], words[at + _BYTES], words[at + _MESSAGES]
        if self.mode(slot, generation) != SlotMode.BY_TCP:
            return True
        read = self._all_read(slot)
        if read is None:
            return False
        account = self._account(slot, generation)
        if not account.counts_are_whole(by_tcp, read):
            return False
        words[at + _GRANTED] = tagged(generation, account.settle(sent, messages, by_tcp))
        words[at + _REOPEN] = tagged(generation, sent + by_tcp)
        return False

    def _all_read(self, slot: int) -> int | None:
        """Return how many bytes ever went by TCP, if the reader has read them all by now; else None.

        First the sender: what is acknowledged is in the reader's queue or was read. Then that queue.
        """
        if self._unacknowledged(slot) != 0:
            return None
        reader = self._progress(slot)
        if reader is None or reader.tcp_unread or reader.unread:
            return None
        return reader.received_by_tcp

    def _account(self, slot: int, generation: int) -> Account:
        account = self._accounts.get(slot)
        if account is None or account.generation != generation:
            budget = BUDGET if self._own_at(slot) is None else OWN_BUDGET
            account = self._accounts[slot] = Account(generation, budget=budget)
        return account

    def _unacknowledged(self, slot: int) -> int | None:
        own = self._own_at(slot)
        if own is not None:
            return int.from_bytes(fcntl.ioctl(own, termios.TIOCOUTQ, bytes(4)), "little")
        found = self._diag(slot)
        return None if found is None else found[0].unacknowledged(found[1])

    def _own_at(self, slot: int) -> socket.socket | None:
        """Our own socket at a slot, while the slot is that socket's."""
        own = self._own.get(slot)
        if own is None or own.cookie != self._words[slot * _STRIDE + _COOKIE] or own.socket.fileno() < 0:
            return None
        return own.socket

    def _diag(self, slot: int) -> tuple[SockDiag, Connection] | None:
        """What sees the socket at a slot from inside its namespace, and what it is called there."""
        view = self.snapshot(slot)
        diag = self.diags(view.netns)
        if diag is None:
            return None
        local, remote = bytes(view.local.bytes), bytes(view.remote.bytes)
        name = Name(local, view.local_port, remote, view.remote_port)
        return diag, Connection(name, int(view.cookie).to_bytes(8, "little"), view.device)

    def _unread(self, slot: int) -> int | None:
        reader = self.peer(slot)
        if reader == NO_SLOT:
            return None
        self.looks += 1
        own = self._own_at(reader)
        if own is not None:
            return _own_memory(own)
        found = self._diag(reader)
        return None if found is None else found[0].unread(found[1])

    def _progress(self, slot: int) -> Progress | None:
        reader = self.peer(slot)
        if reader == NO_SLOT:
            return None
        self.looks += 1
        own = self._own_at(reader)
        if own is not None:
            info = own.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
            received = int.from_bytes(info[BYTES_RECEIVED : BYTES_RECEIVED + 8], "little")
            return Progress(received, 0, _own_memory(own))
        found = self._diag(reader)
        return None if found is None else found[0].progress(found[1])


def _cookie(own: socket.socket) -> bytes:
    return own.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8)


def _own_memory(own: socket.socket) -> int:
    """The receive queue's memory of a socket of this process (SO_MEMINFO: the first u32 is rmem_alloc)."""
    return int.from_bytes(own.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO_BYTES)[:4], "little")
