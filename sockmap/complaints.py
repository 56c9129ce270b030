"""Catches what a C library writes to standard error, and finds the line in it that says what is wrong."""

from __future__ import annotations

import os
import re
import tempfile
from types import TracebackType

_STDERR = 2
_MOST_BYTES = 1 << 20  # a verifier's log can be longer; its end is what counts

# Lines of a verifier's log that trace instructions and states rather than say what is wrong.
_TRACE = re.compile(r"(\d+: |; |processed \d+ insns|from \d+ to \d+|\s*$)")
_COMPILER = re.compile(r":\d+:\d+: (fatal )?error: ")


class Complaints:
    """Standard error of the whole process, in a file, while the block runs. Not for several threads at once."""

    def __enter__(self) -> Complaints:
        self._file = tempfile.TemporaryFile()
        self._before = os.dup(_STDERR)
        os.dup2(self._file.fileno(), _STDERR)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.dup2(self._before, _STDERR)
        os.close(self._before)
        self._file.close()

    def text(self) -> str:
        """Return what was written so far; of much, the end."""
        size = os.fstat(self._file.fileno()).st_size
        start = max(0, size - _MOST_BYTES)
        return os.pread(self._file.fileno(), size - start, start).decode(errors="replace")


def last_useful_line(text: str) -> str:
    """Return the last line that is no trace of instructions and states; empty where there is none.

    A compiler shows the source below its message: where there is a message, the first says what is wrong.
    """
    useful = [line.strip() for line in text.splitlines() if not _TRACE.match(line)]
    errors = [line for line in useful if _COMPILER.search(line)]
    if errors:
        return errors[0]
    return useful[-1] if useful else ""
