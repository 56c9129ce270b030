"""The small pieces that need no kernel: where cgroup v2 is, how many processors, the endpoint in the program."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sockmap import cgroup
from sockmap.counters import possible_processors
from sockmap.errors import CgroupError, CompileError
from sockmap.program import ENDPOINT_HERE, with_endpoint

HYBRID = """\
24 30 0:22 / /proc rw,relatime shared:12 - proc proc rw
30 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
33 26 0:28 / /sys/fs/cgroup rw,nosuid shared:8 - tmpfs tmpfs rw,mode=755
34 33 0:29 / /sys/fs/cgroup/cpu rw,nosuid shared:9 - cgroup cgroup rw,cpu
42 33 0:30 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw,nsdelegate
"""


@pytest.mark.parametrize(
    ("mountinfo", "where"),
    [
        (HYBRID, "/sys/fs/cgroup/unified"),
        ("35 30 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "/sys/fs/cgroup"),
        ("35 30 0:30 / /sys/fs/cgroup rw - cgroup cgroup2 rw\n", None),  # the type counts, not the source
        ("35 30 0:30 / /sys/fs/cgroup rw shared:1 master:2 - cgroup2 none rw\n", "/sys/fs/cgroup"),
        ("35 30 0:30 / /mnt/a\\040b rw - cgroup2 none rw\n", "/mnt/a b"),
        ("not mountinfo\n", None),
        ("", None),
    ],
)
def test_the_cgroup_v2_mount_is_found_by_its_type(mountinfo: str, where: str | None) -> None:
    """Optional fields before the dash vary in number; blanks in a path are written as octal (proc(5))."""
    assert cgroup.mount_point(mountinfo) == (None if where is None else Path(where))


def test_without_cgroup_v2_the_error_says_how_to_mount_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mend is a command line."""
    monkeypatch.setattr(cgroup, "mount_point", lambda _text: None)
    with pytest.raises(CgroupError) as refused:
        cgroup.root()
    assert "mount -t cgroup2" in refused.value.mend


@pytest.mark.parametrize(
    ("text", "processors"),
    [("0", 1), ("0-1\n", 2), ("0-127", 128), ("0-3,8-11", 8), ("0,2", 2), ("1-2,7", 3)],
)
def test_a_per_cpu_value_has_a_place_for_each_possible_processor(text: str, processors: int) -> None:
    """Numbers that are left out have none: the kernel writes the values of those that may be, back to back."""
    assert possible_processors(text) == processors


def load_immediate(value: int, register: int = 1) -> bytes:
    """BPF_LD_IMM64: two instructions of eight bytes, the halves of the value in their immediates."""
    low, high = value & 0xFFFFFFFF, value >> 32
    return bytes([0x18, register, 0, 0]) + low.to_bytes(4, "little") + bytes(4) + high.to_bytes(4, "little")


ADD = bytes([0x07, 2, 0, 0]) + (5).to_bytes(4, "little")


@given(st.integers(0, 1023), st.integers(0, 5), st.integers(0, 5))
def test_the_endpoint_takes_the_constants_place_and_nothing_else_changes(
    endpoint: int, before: int, after: int
) -> None:
    """One copy of the program for each namespace, alike but for one number."""
    code = ADD * before + load_immediate(ENDPOINT_HERE) + load_immediate(7) * after
    assert (
        with_endpoint(code, endpoint) == ADD * before + load_immediate(endpoint) + load_immediate(7) * after
    )


@pytest.mark.parametrize(
    "code",
    [
        ADD * 4,
        load_immediate(ENDPOINT_HERE) * 2,
        load_immediate(ENDPOINT_HERE & 0xFFFFFFFF),
        load_immediate(ENDPOINT_HERE)[:8],
        b"",
    ],
)
def test_a_program_without_its_one_constant_is_refused(code: bytes) -> None:
    """A compiler that moved or doubled the constant would give every namespace the same policy."""
    with pytest.raises(CompileError, match="endpoint constant"):
        with_endpoint(code, 1)
