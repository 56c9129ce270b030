"""What a C library says on standard error becomes one line that helps."""

from __future__ import annotations

import os

import pytest

from sockmap.complaints import Complaints, last_useful_line


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("", ""),
        ("0: R1=ctx() R10=fp0\n; @ a.c:1\nprocessed 1 insns (limit 1000000)\n", ""),
        (
            "bpf: Failed to load program: Permission denied\n3: (61) r1 = *(u32 *)(r1 +0)\n"
            "dereference of modified ctx ptr R1 off=24 disallowed\nprocessed 286 insns (limit 1000000)\n\n",
            "dereference of modified ctx ptr R1 off=24 disallowed",
        ),
        ("R1 pointer |= pointer prohibited\nprocessed 9 insns\n", "R1 pointer |= pointer prohibited"),
        (
            "a.c:1:1: error: use of undeclared identifier 'x'\n    x = 1;\n    ^\n1 error generated.\n",
            "a.c:1:1: error: use of undeclared identifier 'x'",
        ),
    ],
)
def test_last_line_that_says_something(log: str, line: str) -> None:
    """Of a verifier's log, the sentence counts and not the trace."""
    assert last_useful_line(log) == line


def test_standard_error_is_caught_and_given_back(capfd: pytest.CaptureFixture[str]) -> None:
    """Whatever writes to descriptor 2 inside the block is caught; outside it goes where it went."""
    with Complaints() as complaints:
        os.write(2, b"inside\n")
        assert complaints.text() == "inside\n"
    os.write(2, b"outside\n")
    assert capfd.readouterr().err == "outside\n"
