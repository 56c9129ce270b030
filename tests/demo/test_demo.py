"""`kproxy demo` as a person runs it: it plays to the end, and leaves nothing behind however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from kproxy.demo.leftovers import Holdings, held_by, left_of
from kproxy.demo.network import Network, network_leftovers
from kproxy.demo.process import READY_TIMEOUT_S, run

pytestmark = pytest.mark.bpf

NAME = "kp-t-demo"
KPROXY = str(Path(sys.executable).with_name("kproxy"))
MOMENTS = ("at once", "soon", "once kproxy has hooks")
FOLDER = Path("/run", NAME)
STEPS = ("pods jobs-api", "before:", "then: ingress", "then: egress")


@pytest.fixture(autouse=True)
def _nothing_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """After every test: no link, namespace, process or file of the demo's."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    yield
    assert network_leftovers(NAME) == []
    assert list(tmp_path.iterdir()) == []
    assert not FOLDER.exists()
    assert processes() == {}


def processes() -> dict[int, str]:
    """Processes that this demo started, by pid: their command lines name its network or its folder."""
    found = {}
    for proc in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (proc / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
            if NAME in words and proc.name != str(os.getpid()):
                found[int(proc.name)] = words
    return found


def held_now() -> Holdings:
    """What this demo's kproxy, if there is one now, holds in the kernel."""
    return Holdings(frozenset(held for pid in processes() for held in held_by(pid)), frozenset())


def once_hooked() -> Holdings:
    """Wait until kproxy has something in the kernel, and tell what."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not (held := held_now()).bpf:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return held


@contextmanager
def demo_at(step: str) -> Iterator[subprocess.Popen[str]]:
    """A demo that has begun the step of this name."""
    command = [KPROXY, "demo", "--name", NAME]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as demo:
        assert demo.stderr is not None
        assert any(step in line for line in demo.stderr)
        yield demo


def test_the_story_is_told_to_its_end() -> None:
    """Exit code 0; and the JSON says what the tables show: verdicts, rules, addresses, bytes, log, metrics."""
    done = run([KPROXY, "demo", "--json", "--name", NAME], timeout=120)
    result = json.loads(done.stdout)
    assert (done.returncode, result["failures"]) == (0, [])
    assert [scene["name"] for scene in result["scenes"]] == ["ingress", "egress"]
    for scene in result["scenes"]:
        assert scene["bytes_spliced"] > scene["bytes_tcp"]
        statuses = {(row["client"], row["request"]): row["after"]["status"] for row in scene["rows"]}
        assert statuses["turtletweets", "GET /jobs/331"] == 200
        assert statuses["turtletweets", "GET /healthz"] == 403
        assert statuses["turtletweets", "GET /applicants/331"] == 403
        assert statuses["turtletweets", "POST /jobs"] == 403


def test_people_get_tables() -> None:
    """Without --json the same run is shown as plain text where no terminal is."""
    done = run([KPROXY, "demo", "--name", NAME], timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\x1b[" not in done.stdout
    assert "All as it should be, and nothing left behind." in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("when", [lambda: None, lambda: time.sleep(0.1), once_hooked], ids=MOMENTS)
def test_interrupted_anywhere_it_undoes_everything(
    step: str, number: signal.Signals, when: Callable[[], object]
) -> None:
    """At each step, at once and further into it, and pressed twice: all is undone, and the exit code says it."""
    with demo_at(step) as demo:
        when()
        held = held_now()
        demo.send_signal(number)
        demo.send_signal(number)
        rest = demo.stderr.read() if demo.stderr else ""
    assert demo.returncode == 128 + number, rest
    assert f"ended by {number.name}" in rest
    assert left_of(held) == []


def test_a_killed_demo_is_no_obstacle_to_the_next() -> None:
    """SIGKILL cannot be undone by the killed: kproxy ends on its own, and the next run removes the rest."""
    with demo_at(STEPS[-1]) as demo:
        held = once_hooked()
        demo.kill()
    done = run([KPROXY, "demo", "--name", NAME], timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert left_of(held) == []


def test_two_demos_of_one_name_are_refused() -> None:
    """The second says so in a line, and the first is left alone."""
    with Network(NAME):
        done = run([KPROXY, "demo", "--name", NAME])
        assert done.returncode not in (0, 1)
        assert "in use by another process" in done.stderr


def test_without_root_it_says_what_is_needed() -> None:
    """One line with the mend, and no traceback."""
    done = run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", KPROXY, "demo", "--name", NAME]
    )
    assert done.returncode == 3, done.stderr
    assert done.stderr.splitlines() == ["kproxy: making network namespaces needs root; run it with sudo"]
    assert os.geteuid() == 0
