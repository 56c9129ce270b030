"""A new revision comes into force while calls are being answered: no answer is a mixture of two.

In the kernel an answer takes some hundred nanoseconds, and user space some microseconds for each element that it
deletes, so the two would hardly ever meet. Here the programs wait between the tables, long enough for whole
revisions to come and go meanwhile.
"""

from __future__ import annotations

import errno
import mmap
import os
import socket
from collections.abc import Callable, Iterator

import pytest
from kernel_rig import DENY, EGRESS, PASS, UDP, Rig, Rule

from kproxy.demo.network import Network
from sockmap import program
from sockmap.hooks import Hooks

pytestmark = pytest.mark.bpf

# In `ask`, after the default was read and before the address and the entry are.
PLACE = "    v.by_policy = true;\n"
WAIT = "    for (int wait = 0; wait < 500; wait++)\n        bpf_ktime_get_ns();\n"


@pytest.fixture(scope="module")
def module_rig(network: Network) -> Iterator[Rig]:
    """A node whose programs take their time."""
    text = program.source()
    assert text.count(PLACE) == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "source", lambda: text.replace(PLACE, PLACE + WAIT))
        with Hooks(slots=64) as hooks:
            rig = Rig(network, hooks)
            try:
                rig.enforce(network["client"])
                yield rig
            finally:
                rig.close()


CHILDREN, SWAPS = 3, 1000
ADDRESS = "198.51.100.1"  # documentation range, RFC 5737: nobody is there


def call_meanwhile(rig: Rig, swap: Callable[[int], None]) -> tuple[int, int]:
    """Swap revisions while processes of the client's pod call; how many were refused, and how many not."""
    shared = mmap.mmap(-1, 4096)
    words = memoryview(shared).cast("Q")
    children = [fork_caller(rig, words, number) for number in range(CHILDREN)]
    try:
        for number in range(SWAPS):
            swap(number)
    finally:
        words[0] = 1
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes == [0] * CHILDREN
    refused, allowed = sum(words[1 : 1 + CHILDREN]), sum(words[1 + CHILDREN : 1 + 2 * CHILDREN])
    words.release()
    shared.close()
    return refused, allowed


def fork_caller(rig: Rig, words: memoryview, number: int) -> int:
    """Start a process that calls until the first word is set, and counts in its own two."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        while not words[0]:
            # A new socket each time: what a datagram was once allowed, its answers are for a while.
            with rig.namespace("client").socket(socket.AF_INET, socket.SOCK_DGRAM) as caller:
                refused = caller.connect_ex((ADDRESS, 9)) == errno.EPERM
            words[1 + number + (0 if refused else CHILDREN)] += 1
        code = 0
    finally:
        os._exit(code)


def test_a_thousand_swaps_never_show_a_mixture(rig: Rig) -> None:
    """Two revisions, each of which denies the call in its own way; what is not both is never let through.

    The first denies by default, and allows an identity that the address does not have. The second allows by
    default, and denies that identity, which the address has there. Any mixture, such as the second's default
    without its entry, or its identity under the first's entries, would let the call through.
    """
    first = Rule("client", EGRESS, PASS, peer=51, protocol=UDP)
    second = Rule("client", EGRESS, DENY, peer=51, protocol=UDP)

    def swap(number: int) -> None:
        if number % 2:
            rig.policy(first, defaults={"client": (PASS, DENY)}, prefixes=[(f"{ADDRESS}/32", 52)])
        else:
            rig.policy(second, defaults={"client": (PASS, PASS)}, prefixes=[(f"{ADDRESS}/32", 51)])

    swap(1)
    refused, allowed = call_meanwhile(rig, swap)
    assert allowed == 0
    assert refused > SWAPS


def test_what_both_revisions_allow_is_never_refused(rig: Rig) -> None:
    """A call that finds its revision deleted under it asks the next one; it is not refused."""

    def swap(number: int) -> None:
        identity = 51 + number % 2
        rule = Rule("client", EGRESS, PASS, peer=identity, protocol=UDP, ports=(1, 100 + number % 2))
        rig.policy(rule, defaults={"client": (PASS, DENY)}, prefixes=[(f"{ADDRESS}/32", identity)])

    swap(1)
    refused, allowed = call_meanwhile(rig, swap)
    assert refused == 0
    assert allowed > SWAPS
