"""Interrupts take effect at checkpoints, once, and nowhere else."""

from __future__ import annotations

import signal
from contextlib import ExitStack

import pytest

from kproxy.demo.interrupt import SIGNALS, Interrupted, checkpoint, noted_interrupts


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_waits_for_the_next_checkpoint(number: signal.Signals) -> None:
    """Between checkpoints nothing happens; at the next one it is raised, with the shell's exit code."""
    reached = False
    with noted_interrupts():
        signal.raise_signal(number)
        reached = True
        with pytest.raises(Interrupted, match=number.name) as raised:
            checkpoint()
    assert reached
    assert raised.value.exit_code == 128 + number


def test_undoing_is_not_interrupted_again() -> None:
    """A second Ctrl-C while things are being undone changes nothing."""
    undone = []
    with noted_interrupts():
        signal.raise_signal(signal.SIGINT)
        with ExitStack() as stack:
            stack.callback(undone.append, "all")
            stack.callback(signal.raise_signal, signal.SIGINT)
            stack.enter_context(pytest.raises(Interrupted))
            checkpoint()
    assert undone == ["all"]
    checkpoint()


def test_handlers_are_as_before_afterwards() -> None:
    """Outside the block Ctrl-C is Python's own again."""
    before = [signal.getsignal(number) for number in SIGNALS]
    with noted_interrupts():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_without_a_signal_a_checkpoint_does_nothing() -> None:
    """Also outside of the block."""
    checkpoint()
    with noted_interrupts():
        checkpoint()
