"""Interrupts that take effect only where nothing can be left behind.

A signal that raises wherever the program happens to be can strike between making a thing and noting that
it was made, or in the middle of the undoing. So SIGINT, SIGTERM and SIGHUP are only noted here, and
`checkpoint()` raises for them at places that are chosen: between steps and while waiting. Whatever waits in
between is bounded. Once one has been raised the undoing runs to its end, however often Ctrl-C is pressed.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# Signals act on a whole process, and so does this. Only the main thread writes it (signal(7), Python's own).
_noted: list[int] = []


class Interrupted(BaseException):
    """The user or the system asked for the end; like KeyboardInterrupt no ordinary error."""

    def __init__(self, number: int) -> None:
        """`number` is the signal's."""
        super().__init__(signal.Signals(number).name)
        self.number = number

    @property
    def exit_code(self) -> int:
        """128 and the signal's number, as shells report it."""
        return 128 + self.number


def checkpoint() -> None:
    """Raise Interrupted if a signal has come within `noted_interrupts`; otherwise nothing."""
    if _noted:
        number = _noted[0]
        _noted.clear()
        raise Interrupted(number)


@contextmanager
def noted_interrupts() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP take effect at checkpoints only, until the block ends.

    Call it in the main thread, as signal(2) handlers demand.
    """
    former = {number: signal.signal(number, _note) for number in SIGNALS}
    try:
        yield
    finally:
        _noted.clear()
        for number, handler in former.items():
            signal.signal(number, handler)


def _note(number: int, _frame: FrameType | None) -> None:
    _noted.append(number)
