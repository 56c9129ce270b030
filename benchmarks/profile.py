"""Where kproxy's time goes: py-spy looks at its stack, from outside, while a load runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.paths import Target
from kproxy.demo.process import running

FOLDER = Path(__file__).parent / "profiles"
_SAMPLES_PER_S = 250
_END_S = 30.0  # for writing the picture


@contextmanager
def profiled(name: str, target: Target, seconds: float) -> Iterator[None]:
    """Write `profiles/NAME.svg`, a flame graph of the block; nothing without a name or where Python is not run."""
    if not name or not name.startswith("proxy"):
        yield
        return
    FOLDER.mkdir(exist_ok=True)
    picture = FOLDER / f"{name}.svg"
    argv = [
        str(Path(sys.executable).with_name("py-spy")),
        "record",
        "--nonblocking",
        "--output",
        str(picture),
    ]
    argv += [
        "--pid",
        str(target.pids[0]),
        "--rate",
        str(_SAMPLES_PER_S),
        "--duration",
        str(max(1, round(seconds))),
    ]
    with running(argv) as spy:
        yield
        spy.wait(_END_S)
