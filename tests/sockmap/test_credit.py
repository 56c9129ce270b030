"""The arithmetic of credit: whatever sender and reader do while user space looks, no grant outruns the reading."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sockmap.credit import BUDGET, FIRST_GRANT, MESSAGE_COST, STEADY_LOOKS, Account, tagged

ENDS = 16  # message ends that a slot remembers


@dataclass
class Direction:
    """A direction as the kernel has it: what `kproxy_splice` writes into the slot, and the reader's queue."""

    granted: int = FIRST_GRANT
    sent: int = 0
    messages: int = 0
    settled: tuple[int, int] = (0, 0)
    ends: list[int] = field(default_factory=lambda: [0] * ENDS)
    queue: deque[int] = field(default_factory=deque)
    read: int = 0
    read_messages: int = 0
    peak: int = 0

    @property
    def unread(self) -> int:
        """Bytes charged to the reader."""
        return sum(self.queue)

    @property
    def cost_read(self) -> int:
        """The cost that the reader has really given back."""
        return self.read + MESSAGE_COST * self.read_messages

    def send(self, size: int) -> None:
        """One send(): counted, then moved to the reader's queue; out of credit it goes by TCP, not shown here."""
        self.settled = self.sent, self.messages
        if self.sent + size + MESSAGE_COST * (self.messages + 1) > self.granted:
            return
        self.sent, self.messages = self.sent + size, self.messages + 1
        self.ends[self.messages % ENDS] = self.sent
        self.queue.append(size)
        held = self.sent + MESSAGE_COST * self.messages - self.cost_read
        self.peak = max(self.peak, held)

    def take(self, size: int) -> None:
        """One recv() of up to so many bytes."""
        while size and self.queue:
            taken = min(size, self.queue[0])
            self.read, size = self.read + taken, size - taken
            self.queue[0] -= taken
            if not self.queue[0]:
                self.queue.popleft()
                self.read_messages += 1


Step = Callable[[Direction], None]
SENDS = st.integers(1, 70_000).map(lambda size: lambda direction: direction.send(size))
BURSTS = st.tuples(st.integers(1, 60), st.integers(1, 3000)).map(
    lambda burst: lambda direction: [direction.send(burst[1]) for _ in range(burst[0])] and None
)
READS = st.integers(1, 200_000).map(lambda size: lambda direction: direction.take(size))
MEANWHILE = st.lists(st.one_of(SENDS, BURSTS, READS), max_size=4)
# What happens before a look, and between its four reads: counters, their bytes, the queue, the message ends.
LOOKS = st.lists(st.tuples(MEANWHILE, MEANWHILE, MEANWHILE, MEANWHILE, MEANWHILE), min_size=1, max_size=25)


def look(direction: Direction, account: Account, steps: tuple[list[Step], ...]) -> int:
    """One look of the splicer, torn apart by what sender and reader do between its reads."""

    def meanwhile(which: int) -> None:
        for step in steps[which]:
            step(direction)

    meanwhile(0)
    messages = direction.settled[1]
    meanwhile(1)
    sent = direction.settled[0]
    meanwhile(2)
    unread = direction.unread
    meanwhile(3)
    ends = list(direction.ends)
    meanwhile(4)
    return account.look(sent, messages, unread, ends)


@given(LOOKS)
def test_a_grant_is_never_more_than_what_was_read_and_the_budget(looks: list[tuple[list[Step], ...]]) -> None:
    """Sends, bursts that wrap the ring of message ends, and reads fall between any two reads of a look."""
    direction, account = Direction(), Account(1)
    for steps in looks:
        before = account.granted
        granted = look(direction, account, steps)
        cost = direction.cost_read
        assert granted >= before, "a grant never shrinks"
        assert granted <= cost + min(BUDGET, max(FIRST_GRANT, cost)) or granted == FIRST_GRANT
        direction.granted = granted
        assert direction.peak <= BUDGET


@given(LOOKS)
def test_messages_taken_are_never_overrated(looks: list[tuple[list[Step], ...]]) -> None:
    """The lower bound on messages read holds although the ring of their ends is overwritten while it is read."""
    direction, account = Direction(), Account(1)
    for steps in looks:
        direction.granted = look(direction, account, steps)
        assert account.taken <= direction.read
        _sent, messages = direction.settled
        assert account._messages_taken(messages, direction.unread, direction.ends) <= direction.read_messages


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=400))
def test_who_reads_everything_never_runs_out(sizes: list[int]) -> None:
    """A request, its answer, a look: the grant keeps pace for ever, so the direction stays spliced."""
    direction, account = Direction(), Account(1)
    for size in sizes:
        moved = direction.sent
        direction.send(size)
        assert direction.sent == moved + size
        direction.take(size)
        direction.settled = direction.sent, direction.messages  # as the next send() will find it
        direction.granted = account.look(*direction.settled, direction.unread, direction.ends)


@pytest.mark.parametrize("size", [1, 200, 65536])
def test_who_reads_nothing_is_left_with_the_first_grant(size: int) -> None:
    """However often it is looked at, and whatever the sends, an unread direction stays within FIRST_GRANT."""
    direction, account = Direction(), Account(1)
    for _ in range(200):
        direction.send(size)
        direction.granted = account.look(*direction.settled, direction.unread, direction.ends)
    assert direction.granted == FIRST_GRANT
    assert direction.peak <= FIRST_GRANT


def test_one_byte_messages_are_charged_for_their_objects() -> None:
    """Counted by bytes alone, 64 KiB of one-byte sends would pin 64 MiB of kernel objects."""
    direction = Direction()
    for _ in range(FIRST_GRANT):
        direction.send(1)
    assert direction.messages == FIRST_GRANT // (MESSAGE_COST + 1)


@given(LOOKS, st.integers(0, 2 * BUDGET))
def test_settling_forgets_no_cost_and_trusts_by_what_was_read(
    looks: list[tuple[list[Step], ...]], by_tcp: int
) -> None:
    """A reader that has read all, by TCP too, is trusted with as much as it read; looks go on soundly."""
    direction, account = Direction(), Account(1)
    for steps in looks:
        direction.granted = look(direction, account, steps)
    direction.take(direction.unread)
    before = account.granted
    settled = account.settle(direction.sent, direction.messages, by_tcp)
    assert account.taken == direction.read
    trust = min(BUDGET, max(FIRST_GRANT, direction.cost_read + by_tcp))
    assert settled == max(before, direction.cost_read + trust)
    direction.granted = settled
    direction.send(1)
    after = account.look(direction.sent, direction.messages, direction.unread, direction.ends)
    assert after == settled, "nothing was read since, so nothing more is granted"


def test_one_small_reading_does_not_buy_the_whole_budget() -> None:
    """Out of credit, drained once, and back: who has read 64 KiB may hold as much, not a MiB."""
    account = Account(1)
    assert account.settle(0, 0, 100) == FIRST_GRANT
    assert account.settle(0, 0, 2 * BUDGET) == BUDGET


def test_an_exact_count_is_whole() -> None:
    """Nothing was missed: the direction may reopen at the first look."""
    assert Account(1).counts_are_whole(5000, 5000)


def test_a_count_that_is_off_must_be_off_by_the_same_while_it_moves() -> None:
    """Looks at a direction that stands still prove nothing; each that finds another drift begins anew."""
    account = Account(1)
    assert not account.counts_are_whole(5000, 4000)
    for _ in range(10):
        assert not account.counts_are_whole(5000, 4000), "nothing was counted since"
    for look in range(1, STEADY_LOOKS):
        assert account.counts_are_whole(5000 + look, 4000 + look) == (look == STEADY_LOOKS - 1)
    assert not account.counts_are_whole(7000, 5000), "another message was cut short"
    assert account.counts_are_whole(7000, 7000), "its rest went uncounted: exact again"


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**48 - 1))
def test_a_tagged_word_keeps_its_value_and_sixteen_bits_of_the_generation(
    generation: int, value: int
) -> None:
    """The kernel side compares the upper 16 bits with its slot's generation and takes the lower 48."""
    word = tagged(generation, value)
    assert word < 2**64
    assert (word >> 48, word & (1 << 48) - 1) == (generation & 0xFFFF, value)
