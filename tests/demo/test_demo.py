"""`kproxy demo` as a person runs it: it plays to the end, and leaves nothing behind however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kproxy.demo.leftovers import SETTLE_S, held_by
from kproxy.demo.network import Network, network_leftovers
from kproxy.demo.process import run

pytestmark = pytest.mark.bpf

NAME = "kp-t-demo"
KPROXY = str(Path(sys.executable).with_name("kproxy"))
STEPS = ("pods jobs-api", "before:", "then: ingress", "then: egress")


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The demo's temporary files go here, so that what it forgets is seen."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


@pytest.fixture(autouse=True)
def _nothing_left(temporary: Path) -> Iterator[None]:
    """After every test: no link, namespace, program in the kernel, process or file of the demo's."""
    yield
    assert network_leftovers(NAME) == []
    assert list(temporary.iterdir()) == []
    assert processes() == []
    deadline = time.monotonic() + SETTLE_S
    while (left := orphans()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == set()


def orphans() -> set[int]:
    """kproxy's programs that the kernel keeps although no process holds them: attached or pinned for good."""
    programs = {
        item["id"]
        for item in json.loads(run(["bpftool", "-j", "prog"]).stdout)
        if item.get("name", "").startswith("kproxy_")
    }
    pids = [int(proc.name) for proc in Path("/proc").glob("[0-9]*")]
    return programs - {number for pid in pids for kind, number in held_by(pid) if kind == "prog"}


def processes() -> list[str]:
    """Command lines of processes that this demo started: they name its network or its files."""
    found = []
    for proc in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = proc.read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:
            continue
        if NAME in words or "kproxy-demo-" in words:
            found.append(words)
    return found


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
@pytest.mark.parametrize("later_ms", [0, 150])
def test_interrupted_anywhere_it_undoes_everything(step: str, number: signal.Signals, later_ms: int) -> None:
    """At each step, at once and a little into it, and pressed twice: all is undone, and the exit code says it."""
    with subprocess.Popen(
        [KPROXY, "demo", "--name", NAME], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as demo:
        assert demo.stderr is not None
        told = next(line for line in demo.stderr if step in line)
        time.sleep(later_ms / 1000)
        demo.send_signal(number)
        demo.send_signal(number)
        rest = demo.stderr.read()
    assert demo.returncode == 128 + number, told + rest
    assert f"ended by {number.name}" in rest


def test_a_killed_demo_is_no_obstacle_to_the_next() -> None:
    """SIGKILL cannot be undone by the killed: kproxy ends on its own, and the next run removes the network."""
    with subprocess.Popen(
        [KPROXY, "demo", "--name", NAME], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as demo:
        assert demo.stderr is not None
        next(line for line in demo.stderr if STEPS[-1] in line)
        demo.kill()
    done = run([KPROXY, "demo", "--name", NAME], timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


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
