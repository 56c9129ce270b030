"""The line writer: nothing waits for the file, what is lost is counted, and rotation cuts no line."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kproxy import lines
from kproxy.errors import OutputError
from kproxy.lines import LineWriter, Sink

WAIT = 20.0
"""How long a test waits for what must happen; it is never measured."""

Make = Callable[..., LineWriter]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let batches and retries come quickly."""
    monkeypatch.setattr(lines, "BATCH_SECONDS", 0.005)
    monkeypatch.setattr(lines, "RETRY_SECONDS", 0.005)


@pytest.fixture
def make() -> Iterator[Make]:
    """Make writers that are closed when the test ends."""
    made: list[LineWriter] = []

    def writer(sink: Sink, queue_bytes: int = 1 << 20, report: Callable[[str], None] = print) -> LineWriter:
        made.append(LineWriter(sink, queue_bytes, report))
        return made[-1]

    yield writer
    for one in made:
        one.close(WAIT)


def numbered(count: int) -> list[bytes]:
    """Give lines that can be told apart."""
    return [b"%d\n" % number for number in range(count)]


def test_lines_arrive_whole_and_in_order(make: Make, tmp_path: Path) -> None:
    """What is queued stands in the file, in order, once flushed."""
    writer = make(Sink.open(str(tmp_path / "log")))
    for line in numbered(1000):
        writer.write(line)
    assert writer.flush(WAIT)
    assert (tmp_path / "log").read_bytes() == b"".join(numbered(1000))
    assert (writer.queued, writer.written, writer.lost) == (1000, 1000, 0)


def test_close_writes_what_is_queued(make: Make, tmp_path: Path) -> None:
    """A writer that is closed at once loses nothing."""
    writer = make(Sink.open(str(tmp_path / "log")))
    for line in numbered(100):
        writer.write(line)
    assert writer.close(WAIT)
    assert (tmp_path / "log").read_bytes() == b"".join(numbered(100))


def test_file_is_not_for_others(make: Make, tmp_path: Path) -> None:
    """Paths may hold secrets: a new file cannot be read by everyone."""
    make(Sink.open(str(tmp_path / "log")))
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o640 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_existing_file_is_continued(make: Make, tmp_path: Path) -> None:
    """A restart appends."""
    (tmp_path / "log").write_bytes(b"before\n")
    writer = make(Sink.open(str(tmp_path / "log")))
    writer.write(b"after\n")
    assert writer.flush(WAIT)
    assert (tmp_path / "log").read_bytes() == b"before\nafter\n"


def test_unwritable_path_is_told_at_the_start(tmp_path: Path) -> None:
    """A folder that is not there is one clear error before anything runs."""
    with pytest.raises(OutputError, match="cannot be opened for writing") as caught:
        Sink.open(str(tmp_path / "none" / "log"))
    assert caught.value.mend


def test_rotation_by_rename(make: Make, tmp_path: Path) -> None:
    """After a rename the next lines go to a new file of the old name, with no signal needed."""
    writer = make(Sink.open(str(tmp_path / "log")))
    writer.write(b"old\n")
    assert writer.flush(WAIT)
    (tmp_path / "log").rename(tmp_path / "log.1")
    writer.write(b"new\n")
    assert writer.flush(WAIT)
    assert (tmp_path / "log.1").read_bytes() == b"old\n"
    assert (tmp_path / "log").read_bytes() == b"new\n"


def test_reopen_lets_go_of_the_old_file(make: Make, tmp_path: Path) -> None:
    """SIGHUP makes the new file even when no line comes, so that the old one may be compressed."""
    writer = make(Sink.open(str(tmp_path / "log")))
    (tmp_path / "log").rename(tmp_path / "log.1")
    writer.reopen()
    _until((tmp_path / "log").exists)
    assert (tmp_path / "log").read_bytes() == b""


def test_truncation_in_place(make: Make, tmp_path: Path) -> None:
    """`copytruncate` leaves no hole of NULs: every write appends."""
    writer = make(Sink.open(str(tmp_path / "log")))
    writer.write(b"old\n")
    assert writer.flush(WAIT)
    os.truncate(tmp_path / "log", 0)
    writer.write(b"new\n")
    assert writer.flush(WAIT)
    assert (tmp_path / "log").read_bytes() == b"new\n"


def test_fifo_without_reader_holds_up_no_one(make: Make, tmp_path: Path) -> None:
    """Opening and writing return at once; what exceeds pipe and queue is lost and counted; nothing is torn."""
    os.mkfifo(tmp_path / "log")
    writer = make(Sink.open(str(tmp_path / "log")), queue_bytes=128 * 1024)
    line = b"x" * 1023 + b"\n"
    for _ in range(400):
        writer.write(line)
    assert writer.lost_queue > 0
    assert writer.queued + writer.lost_queue == 400
    assert not writer.flush(0.05)
    reader = os.open(tmp_path / "log", os.O_RDONLY)
    taken = bytearray()
    drain = threading.Thread(target=_read_lines, args=(reader, taken, writer.queued * len(line)))
    drain.start()
    assert writer.flush(WAIT)
    drain.join(WAIT)
    os.close(reader)
    assert bytes(taken) == line * writer.queued


def _read_lines(fd: int, taken: bytearray, size: int) -> None:
    while len(taken) < size:
        taken += os.read(fd, 1 << 16)


def test_full_disk_is_waited_out(make: Make) -> None:
    """While /dev/full refuses, lines wait and then are lost and counted; the trouble is reported once."""
    told: list[str] = []
    writer = make(Sink.open("/dev/full"), queue_bytes=4096, report=told.append)
    for line in [b"y" * 99 + b"\n"] * 100:
        writer.write(line)
    _until(lambda: bool(writer.trouble))
    assert writer.lost_queue == 60
    assert "No space left on device" in writer.trouble
    assert writer.close(WAIT)
    assert writer.written == 0
    assert writer.lost == 100
    assert told == [writer.trouble]


@pytest.mark.parametrize("step", [1, 2, 3, 7])
def test_partial_writes_and_errors(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Writes that take a part, and fail in between, still leave every line once and whole."""
    calls = 0
    write = os.write

    def partial(fd: int, data: bytes) -> int:
        nonlocal calls
        calls += 1
        if calls % 5 == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, bytes(data[:step]))

    monkeypatch.setattr("kproxy.lines.os.write", partial)
    writer = make(Sink.open(str(tmp_path / "log")), report=lambda told: None)
    for line in numbered(20):
        writer.write(line)
    assert writer.flush(WAIT)
    assert (tmp_path / "log").read_bytes() == b"".join(numbered(20))
    assert writer.trouble == ""


def test_rotation_within_a_line(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file was rotated after half a line, the new file begins with a whole one; the loss counts."""
    write = os.write

    def half_then_rotated(fd: int, data: bytes) -> int:
        monkeypatch.setattr("kproxy.lines.os.write", write)
        (tmp_path / "log").rename(tmp_path / "log.1")
        return write(fd, bytes(data[:2]))

    monkeypatch.setattr("kproxy.lines.os.write", half_then_rotated)
    writer = make(Sink.open(str(tmp_path / "log")))
    for line in (b"first\n", b"second\n"):
        writer.write(line)
    assert writer.flush(WAIT)
    assert (tmp_path / "log.1").read_bytes() == b"fi"
    assert (tmp_path / "log").read_bytes() == b"second\n"
    assert (writer.written, writer.lost_write) == (1, 1)


def test_descriptor_stays_open(make: Make) -> None:
    """Standard output belongs to the process: closing the writer does not close it."""
    reader, out = os.pipe()
    writer = make(Sink(None, out))
    writer.write(b"hello\n")
    assert writer.close(WAIT)
    os.write(out, b"still open\n")
    assert os.read(reader, 100) == b"hello\nstill open\n"
    os.close(reader)
    os.close(out)


def test_dash_is_standard_output(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    """A path of "-" makes no file of that name."""
    writer = make(Sink.open("-"))
    writer.write(b"hello\n")
    assert writer.close(WAIT)
    assert capfd.readouterr().out == "hello\n"


def test_bursts_and_pauses(make: Make, tmp_path: Path) -> None:
    """Lines that come while the writer works on others are all written: the queue has no gap."""
    writer = make(Sink.open(str(tmp_path / "log")))
    pause = threading.Event()
    for burst in range(200):
        for line in numbered(burst % 7):
            writer.write(line)
        pause.wait(0.0005)
    assert writer.flush(WAIT)
    assert (tmp_path / "log").read_bytes() == b"".join(b"".join(numbered(b % 7)) for b in range(200))


def _until(true: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(int(WAIT / 0.01)):
        if true():
            return
        pause.wait(0.01)
    pytest.fail("it did not come to pass")
