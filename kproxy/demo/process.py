"""One program run for a while: started, waited for until it is ready, stopped by its pid, its output kept.

Programs get a process group of their own, so that Ctrl-C in a terminal reaches the caller alone, which
then stops them in order; and they are told to end should the caller die without a word (SIGKILL).
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from kproxy.demo.errors import ProcessError
from kproxy.demo.inside import listening_ports
from kproxy.demo.interrupt import checkpoint

READY_TIMEOUT_S = 30.0  # bcc compiles in under a second; a loaded machine takes several times that
STOP_TIMEOUT_S = 15.0  # longer than kproxy's drain, after which the program is killed
COMMAND_TIMEOUT_S = 60.0  # of a short command: a curl, a look at a table
_POLL_S = 0.01
_TAIL_LINES = 15  # of a program's output, in an error

# setpriv (util-linux): the kernel sends SIGTERM when the thread that started the program dies. It asks for that
# about a millisecond after the fork; a caller that is killed within it leaves the program running.
_DIES_WITH_US = ("setpriv", "--pdeathsig", "TERM", "--")


class Process:
    """A program that was started: by `running`, which also ends it."""

    def __init__(self, argv: Sequence[str], popen: subprocess.Popen[bytes], output: IO[bytes]) -> None:
        """`output` is the file that its stdout and stderr go to."""
        self.argv = tuple(argv)
        self._popen = popen
        self._output = output
        self._kept = ""

    @property
    def pid(self) -> int:
        """The program's own pid: what stands before it in the command line only execs."""
        return self._popen.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._popen.poll() is None

    def output(self) -> str:
        """What it has written to stdout and stderr so far; still there after the end."""
        if self._output.closed:
            return self._kept
        size = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), size, 0).decode(errors="replace")

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout: float = STOP_TIMEOUT_S) -> int:
        """End it with this signal, with SIGKILL if it does not; its exit code (negative: the signal)."""
        if self.running:
            self._popen.send_signal(number)
            try:
                self._popen.wait(timeout)
            except subprocess.TimeoutExpired:
                os.killpg(self.pid, signal.SIGKILL)
        return self._popen.wait()

    def wait(self, timeout: float) -> int:
        """Wait for its own end; its exit code. Raises ProcessError if it takes longer."""
        deadline = time.monotonic() + timeout
        while self.running:
            if time.monotonic() > deadline:
                raise ProcessError(self._story(f"did not end within {timeout:.0f} s"))
            checkpoint()
            time.sleep(_POLL_S)
        return self._popen.wait()

    def await_ready(self, ready: Callable[[Process], bool]) -> None:
        """Return once `ready` holds. Raises ProcessError if it ends before, or takes too long."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not ready(self):
            if not self.running:
                raise ProcessError(self._story(f"ended with {self._popen.returncode} before it was ready"))
            if time.monotonic() > deadline:
                raise ProcessError(self._story(f"was not ready within {READY_TIMEOUT_S:.0f} s"))
            checkpoint()
            time.sleep(_POLL_S)

    def close(self) -> None:
        """Stop it, if it runs, and let go of its output file (`output()` still answers)."""
        self.stop()
        self._kept = self.output()
        self._output.close()

    def _story(self, what: str) -> str:
        tail = self.output().strip().splitlines()[-_TAIL_LINES:]
        return "\n  ".join([f"{' '.join(self.argv)}: {what}", *tail])


@contextmanager
def running(
    argv: Sequence[str],
    *,
    netns: Path | None = None,
    ready: Callable[[Process], bool] = lambda _: True,
    env: Mapping[str, str] | None = None,
) -> Iterator[Process]:
    """A program that runs while the block does, which begins when `ready` holds.

    It runs in the namespace at `netns` (the caller's own without), with `env` added to our environment.
    Raises ProcessError if it does not become ready.
    """
    output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by Process.close
    popen = subprocess.Popen(
        [*_DIES_WITH_US, *entering(netns), *argv],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env={**os.environ, **(env or {})},
        process_group=0,
    )
    process = Process(argv, popen, output)
    try:
        process.await_ready(ready)
        yield process
    finally:
        process.close()


def run(
    argv: Sequence[str], *, netns: Path | None = None, timeout: float = COMMAND_TIMEOUT_S
) -> subprocess.CompletedProcess[str]:
    """Run a short command to its end, in the namespace at `netns` (our own without); it may fail.

    stdout and stderr are in the result. Ctrl-C in a terminal does not reach it.
    """
    return subprocess.run(
        [*entering(netns), *argv],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        process_group=0,
    )


def entering(netns: Path | None) -> tuple[str, ...]:
    """What to put before a command for it to run in a namespace.

    nsenter only calls setns and execs: the pid stays, and unlike `ip netns exec` it leaves /sys as it is.
    """
    return () if netns is None else ("nsenter", f"--net={netns}", "--")


def listens(netns: Path, port: int) -> Callable[[Process], bool]:
    """Ready once something in the namespace listens on the port; see `kproxy.demo.inside`."""
    return lambda _: port in listening_ports(netns)
