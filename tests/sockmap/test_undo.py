"""Nothing is left in the kernel: after leaving, after an error at any step of entering, and after SIGKILL.

Objects are told by their numbers, as this process holds them: other programs' on the machine do not matter. The
kernel frees them some time after the last descriptor is closed, so they are waited for.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kernel_rig import DENY, V4, Rig

from kproxy.demo.network import Network
from sockmap import hooks as hooks_module
from sockmap.errors import SockmapError
from sockmap.hooks import Hooks
from sockmap.program import Program

pytestmark = pytest.mark.bpf

KINDS = ("prog", "map", "link")
_ID = re.compile(r"^(prog|map|link)_id:\s+(\d+)$", re.MULTILINE)
FREED_WITHIN_S = 10.0


def held(pid: int | str = "self") -> frozenset[tuple[str, int]]:
    """What BPF objects a process has descriptors of (proc_pid_fdinfo(5))."""
    return frozenset(_held(pid))


def _held(pid: int | str) -> Iterator[tuple[str, int]]:
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        try:
            text = entry.read_text()
        except FileNotFoundError:
            continue
        yield from ((kind, int(number)) for kind, number in _ID.findall(text))


def left_of(objects: frozenset[tuple[str, int]]) -> frozenset[tuple[str, int]]:
    """What of it is still in the kernel, once that had time to let go."""
    gc.collect()
    deadline = time.monotonic() + FREED_WITHIN_S
    while (left := objects & in_kernel()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def in_kernel() -> frozenset[tuple[str, int]]:
    """All BPF objects of the machine."""
    return frozenset((kind, item["id"]) for kind in KINDS for item in bpftool(kind, "list"))


def bpftool(*words: str) -> Any:
    """What bpftool says."""
    shown = subprocess.run(["bpftool", "-j", *words], capture_output=True, check=True, text=True)
    return json.loads(shown.stdout)


def attached() -> frozenset[int]:
    """Numbers of the programs that hang on any cgroup."""
    tree = bpftool("cgroup", "tree")
    return frozenset(program["id"] for group in tree for program in group["programs"])


def test_while_it_runs_everything_is_there(network: Network) -> None:
    """The checks below can fail: inside, there are programs, maps and links, and the cgroup's hooks are ours."""
    before = held()
    with Hooks(slots=8) as hooks:
        rig = Rig(network, hooks)
        rig.enforce(network["client"])
        ours = held() - before
        rig.close()
        programs = {number for kind, number in ours if kind == "prog"}
        on_cgroup = len(hooks_module._CGROUP_HOOKS) + len(hooks_module._GUARDS)
        assert len({number for kind, number in ours if kind == "link"}) == on_cgroup + 1  # and a namespace
        assert len(programs & attached()) == on_cgroup
    assert left_of(ours) == frozenset()


def test_leaving_undoes_everything(network: Network) -> None:
    """Links, programs and maps are gone, no cgroup has our hooks, and the pods connect as before."""
    before = held()
    with Hooks(slots=8) as hooks:
        rig = Rig(network, hooks)
        rig.enforce(network["client"])
        rig.policy(defaults={"client": (DENY, DENY)})
        assert rig.socket("client").connect_ex(V4.to(network["server"], 1)) == errno.EPERM
        ours = held() - before
        rig.close()
    assert left_of(ours) == frozenset()
    assert not {number for kind, number in ours if kind == "prog"} & attached()
    with network["client"].inside(), socket.socket() as caller:
        assert caller.connect_ex(V4.to(network["server"], 1)) == errno.ECONNREFUSED, (
            "the server's kernel answers"
        )


class InjectedError(Exception):
    """What went wrong, for the sake of the test."""


STEPS = (
    ("Program", 1),
    *(("Program.load", number) for number in (1, 5, 9)),
    ("NetworkNamespace", 1),
    ("Program.map_memory", 1),
    ("Splicer", 1),
    ("program_attach", 1),
    ("probe_splice", 1),
    ("queue_push", 3),
    *(("link_create", number) for number in (1, 4, 7)),
)


@pytest.mark.parametrize(("step", "number"), STEPS, ids=[f"{step}-{number}" for step, number in STEPS])
def test_an_error_while_entering_undoes_what_was_done(
    monkeypatch: pytest.MonkeyPatch, step: str, number: int
) -> None:
    """At each step, the first time or the last: what was loaded and attached before goes again."""
    before = held()
    seen: set[tuple[str, int]] = set()
    owner, name = (Program, step.partition(".")[2]) if "." in step else (hooks_module, step)
    real, calls = getattr(owner, name), 0

    def failing(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            seen.update(held() - before)
            raise InjectedError(step)
        return real(*arguments, **named)

    monkeypatch.setattr(owner, name, failing)
    try:
        Hooks(slots=8).__enter__()
    except InjectedError as error:
        error.__traceback__ = None
    else:
        pytest.fail(f"{step} was not called {number} times")
    assert left_of(frozenset(seen)) == frozenset()
    assert held() - before == frozenset()


def test_a_refused_attachment_is_told_with_a_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    """EPERM and EBUSY become this package's errors, and everything is undone all the same."""
    before = held()
    for code in (errno.EPERM, errno.EBUSY):

        def refuse(*_arguments: int, code: int = code) -> int:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(hooks_module, "link_create", refuse)
        with pytest.raises(SockmapError, match="kproxy_sockops") as refused:
            Hooks(slots=8).__enter__()
        assert refused.value.mend
    del refused
    gc.collect()
    assert held() - before == frozenset()


VICTIM = """
import sys, time
from sockmap.hooks import Hooks
from sockmap.netns import NetworkNamespace

with Hooks(slots=8) as hooks:
    namespace = NetworkNamespace(sys.argv[1])
    hooks.attach_lookup(namespace, 1)
    hooks.sockets.enforce(namespace.cookie, 1)
    print("attached", flush=True)
    time.sleep(600)
"""


def test_a_killed_process_leaves_nothing(network: Network) -> None:
    """SIGKILL: all attachments are links, which die with their descriptors."""
    pod = network["client"]
    with subprocess.Popen(
        [sys.executable, "-c", VICTIM, str(pod.netns)], stdout=subprocess.PIPE, text=True
    ) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == "attached\n"
        objects = held(victim.pid)
        assert {kind for kind, _ in objects} == set(KINDS)
        victim.send_signal(signal.SIGKILL)
    assert left_of(objects) == frozenset()
    assert not {number for kind, number in objects if kind == "prog"} & attached()


def test_two_may_run_side_by_side(network: Network) -> None:
    """Hooks of two instances do not undo each other: one leaves, the other goes on."""
    with Hooks(slots=8) as first:
        rig = Rig(network, first)
        rig.enforce(network["client"])
        rig.policy(defaults={"client": (DENY, DENY)})
        with Hooks(slots=8):
            pass
        assert rig.socket("client").connect_ex(V4.to(network["server"], 1)) == errno.EPERM
        rig.close()
