"""Lines into a file without ever waiting for it: a bounded queue in memory and one thread that writes.

Whoever produces a line (the event loop, on the request path) appends it to a list and goes on.  The writer
thread takes what is there, a batch at a time, and is the only one that a slow disk, a full disk or a FIFO
without a reader can hold up.  What does not fit the queue meanwhile is lost and counted.

The list is one object for life and is changed by single list operations only (append here, slice and del
there), each of which CPython does whole; counters have one writing thread each.  So the path of a line
takes no lock.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable

from kproxy.errors import OutputError

BATCH_SECONDS = 0.05
"""How long the writer lets lines gather: 20 writes a second at most, and no one tailing the file notices."""

RETRY_SECONDS = 1.0
"""How long the writer waits after an error such as a full disk before it tries the same bytes again."""

STDOUT = "-"
"""The path that means standard output."""

MODE = 0o640
"""Permissions of a file that is made: paths and query strings may hold secrets, so others may not read it."""


class Sink:
    """The file behind a writer, opened again when its path came to name another file.

    A path of None means a descriptor that stays another's, such as standard output.
    """

    def __init__(self, path: str | None, fd: int) -> None:
        self.path = path
        self.fd = fd

    @classmethod
    def open(cls, path: str) -> Sink:
        """Open a file for appending, or standard output as "-"; raises OutputError where that cannot be."""
        if path == STDOUT:
            return cls(None, 1)
        try:
            return cls(path, _open(path))
        except OSError as error:
            told = f"{path} cannot be opened for writing: {error.strerror}"
            raise OutputError(told, "check that its folder exists and may be written") from error

    def moved(self) -> bool:
        """Tell whether the path names another file than the open one: log rotation by rename."""
        if self.path is None:
            return False
        try:
            named = os.stat(self.path)
        except FileNotFoundError:
            return True
        mine = os.fstat(self.fd)
        return (named.st_dev, named.st_ino) != (mine.st_dev, mine.st_ino)

    def reopen(self) -> None:
        """Open the path anew; raises OSError and keeps the old file where that fails."""
        if self.path is not None:
            fd = _open(self.path)
            os.close(self.fd)
            self.fd = fd

    def close(self) -> None:
        """Close what was opened here."""
        if self.path is not None:
            os.close(self.fd)

    def __str__(self) -> str:
        """Name it for messages."""
        return self.path or f"descriptor {self.fd}"


def _open(path: str) -> int:
    """Open for appending; a FIFO for reading too, as an open for writing alone would wait for a reader."""
    fifo = os.path.exists(path) and stat.S_ISFIFO(os.stat(path).st_mode)
    return os.open(path, os.O_RDWR if fifo else os.O_WRONLY | os.O_APPEND | os.O_CREAT, MODE)


class LineWriter:
    """A bounded queue of lines and the thread that empties it into a sink.

    `queue_bytes` bounds what waits in memory; `report` hears, on the writer's thread, a sentence for each new
    trouble with the file.
    """

    def __init__(self, sink: Sink, queue_bytes: int, report: Callable[[str], None]) -> None:
        self._sink = sink
        self._bound = queue_bytes
        self._report = report
        self._lines: list[bytes] = []
        self._queued_bytes = 0
        self._taken_bytes = 0
        self.queued = 0
        self.written = 0
        self.lost_queue = 0
        self.lost_write = 0
        self.trouble = ""
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._closing = threading.Event()
        self._rotate = False
        self._thread = threading.Thread(target=self._run, name="kproxy-lines", daemon=True)
        self._thread.start()

    def write(self, line: bytes) -> None:
        """Queue one line, which ends with a newline, or count it as lost where the queue is full."""
        size = len(line)
        if self._queued_bytes - self._taken_bytes + size > self._bound:
            self.lost_queue += 1
            return
        self._queued_bytes += size
        self.queued += 1
        lines = self._lines
        lines.append(line)
        if len(lines) == 1:
            self._wake.set()

    @property
    def lost(self) -> int:
        """Lines lost so far, for whatever reason."""
        return self.lost_queue + self.lost_write

    def reopen(self) -> None:
        """Open the path anew before the next batch: for SIGHUP."""
        self._rotate = True
        self._wake.set()

    def flush(self, seconds: float) -> bool:
        """Wait until all that was queued is written; False where that took longer than `seconds`.

        It blocks: call it from a thread or when traffic has ended.
        """
        end = time.monotonic() + seconds
        target = self.queued
        self._hurry.set()
        while self.written + self.lost_write < target and time.monotonic() < end:
            time.sleep(0.002)
        self._hurry.clear()
        return self.written + self.lost_write >= target

    def close(self, seconds: float) -> bool:
        """Write what is queued, end the thread and close the file; False where `seconds` did not do."""
        self._closing.set()
        self._hurry.set()
        self._wake.set()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._closing.is_set() or self._lines:
            self._wake.wait()
            self._wake.clear()
            if self._rotate and not self._lines:
                self._rotate_idle()
            while self._lines:
                self._hurry.wait(BATCH_SECONDS)
                self._batch()
        self._sink.close()

    def _rotate_idle(self) -> None:
        """Let go of the old file at once, so that who rotated it may compress it."""
        try:
            self._rotated()
        except OSError as error:
            self._troubled(error)

    def _batch(self) -> None:
        lines = self._lines
        count = len(lines)
        data = b"".join(lines[:count])
        del lines[:count]
        lost = self._write_all(data)
        self.lost_write += lost
        self.written += count - lost
        self._taken_bytes += len(data)

    def _write_all(self, data: bytes) -> int:
        """Write a batch, and wait out errors; give the number of lines lost."""
        done = lost = 0
        while done < len(data):
            try:
                if self._rotated() and data[done - 1 : done] not in (b"", b"\n"):
                    # The line's first part is in the old file: no half line may begin the new one.
                    done = data.index(b"\n", done) + 1
                    lost += 1
                done += os.write(self._sink.fd, memoryview(data)[done:])
                self.trouble = ""
            except OSError as error:
                self._troubled(error)
                if self._closing.wait(RETRY_SECONDS):
                    return lost + data.count(b"\n", done)
        return lost

    def _rotated(self) -> bool:
        """Reopen the sink where it was asked for or where its path names another file."""
        if not self._rotate and not self._sink.moved():
            return False
        self._rotate = False
        self._sink.reopen()
        return True

    def _troubled(self, error: OSError) -> None:
        told = f"{self._sink} cannot be written: {error.strerror}"
        if told != self.trouble:
            self._report(told)
        self.trouble = told
