"""How much a direction of a spliced pair may hold unread: the arithmetic, without a socket.

A redirect has no back-pressure: bytes go straight into the reader's queue, whatever its size. So each direction
has a grant, a cost up to which the kernel side may redirect, and user space raises it by what the reader is seen
to have taken. The cost of a message is its bytes plus :data:`MESSAGE_COST`: an unread message holds a kernel
object that no counter shows, and counted by bytes alone, one-byte sends pin a thousand times their budget.

Soundness: let ``s`` be the bytes sent before the reader's queue was looked at, and ``r`` what the queue then
held. At least ``s - r`` has been read. ``r`` may count bytes sent later, which only makes the estimate smaller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

MESSAGE_COST = 1024  # an unread message pins an object of the kernel's kmalloc-1k cache

# The first grant: a sender can also pin a page fragment of 32 KiB per message, so trust grows with what is read.
FIRST_GRANT = 64 * 1024

# The most that one direction may ever hold unread. A reader of ordinary TCP holds up to tcp_rmem[2], 6 MiB.
BUDGET = 1024 * 1024

STEADY_LOOKS = 4

# The same where kproxy itself is the writer: it waits when the grant is used up, and looks at the reader once a
# millisecond, so this is what moves in a millisecond: 4 GB/s.
OWN_BUDGET = 4 * 1024 * 1024

_MARKS = 8  # looks remembered: each tells how many messages the bytes up to it were
GRANT_BITS = 48
GRANT_MASK = (1 << GRANT_BITS) - 1


def tagged(generation: int, value: int) -> int:
    """Return a word that is valid for one owner of a slot: the generation's low 16 bits over 48 of value."""
    return (generation & 0xFFFF) << GRANT_BITS | (value & GRANT_MASK)


@dataclass(slots=True)
class Account:
    """What is known of one direction's reader.

    Attributes:
        generation: the owner of the slot that this account is about.
        taken: bytes that the reader has certainly read.
        marks: (bytes, messages) sent at former looks, oldest first; the first is at or below ``taken``.
        granted: the cost granted last.
        budget: the most that may be held unread.
        by_tcp: bytes that it has read by TCP: they cost nothing here, but show that it reads.
    """

    generation: int
    taken: int = 0
    by_tcp: int = 0
    marks: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0)])
    granted: int = FIRST_GRANT
    budget: int = BUDGET
    drift: int = 0
    drift_at: int = 0
    steady: int = 0

    def counts_are_whole(self, counted: int, read: int) -> bool:
        """Whether the kernel side's count of a direction's TCP bytes can be trusted from here on.

        The program that counts is not run for the message after one that failed for want of buffer space
        (EAGAIN), and counts that one whole though only a part was sent (net/ipv4/tcp_bpf.c,
        tcp_bpf_send_verdict). So a count may be off, and if that was the last message, the next goes uncounted.
        A count that is exact has seen every message: it would have to be off by two that cancel each other out.
        One that is off has, too, where it is off by the same at each of :data:`STEADY_LOOKS` looks and moved
        between them: a sender found waiting for buffer space each time, with the same rest, would look alike,
        but not so often.

        Args:
            counted: what the kernel side counted, looked up before the rest.
            read: what really went by TCP; the reader has read all of it.
        """
        drift = read - counted
        if drift == 0:
            return True
        if drift != self.drift:
            self.drift, self.drift_at, self.steady = drift, counted, 1
        elif counted != self.drift_at:
            self.drift_at, self.steady = counted, self.steady + 1
        return self.steady >= STEADY_LOOKS

    def look(self, sent: int, messages: int, unread: int, ends: Sequence[int]) -> int:
        """Account for one look at the reader's queue and return the grant, which never shrinks.

        Args:
            sent: bytes redirected before the look.
            messages: messages redirected before the look.
            unread: bytes in the reader's queue, read after ``sent``.
            ends: ``ends[m % 16]`` is ``sent`` after message ``m``, for the last 16 messages.
        """
        self.taken = max(self.taken, sent - unread)
        cost = self.taken + MESSAGE_COST * self._messages_taken(messages, unread, ends)
        self._remember(sent, messages)
        return self._grant(cost)

    def settle(self, sent: int, messages: int, by_tcp: int) -> int:
        """Account for a reader that has read everything, ``by_tcp`` bytes of it by TCP; return the grant."""
        self.taken, self.by_tcp = sent, by_tcp
        self.marks = [(sent, messages)]
        return self._grant(sent + MESSAGE_COST * messages)

    def _grant(self, cost: int) -> int:
        # Who wants to hold much unread must have read as much before.
        trust = min(self.budget, max(FIRST_GRANT, cost + self.by_tcp))
        self.granted = max(self.granted, cost + trust)
        return self.granted

    def _messages_taken(self, messages: int, unread: int, ends: Sequence[int]) -> int:
        # Each unread message has at least a byte; each former look and each remembered end is a lower bound too.
        known = max(messages - unread, self._mark_below()[1])
        for message in range(messages, max(0, messages - len(ends)), -1):
            if ends[message % len(ends)] <= self.taken:
                return max(known, message)
        return known

    def _mark_below(self) -> tuple[int, int]:
        return next(mark for mark in reversed(self.marks) if mark[0] <= self.taken)

    def _remember(self, sent: int, messages: int) -> None:
        below = self._mark_below()
        above = [mark for mark in self.marks if mark[0] > below[0]]
        self.marks = [below, *above[-(_MARKS - 2) :], (sent, messages)]
