"""The header that the programs read and its mirror in Python agree: every size, offset and number.

clang itself is asked: the mirror stands as static assertions behind the header, and a wrong one does not compile.
"""

from __future__ import annotations

import ctypes as ct
import os
import re
from collections.abc import Iterator
from enum import IntEnum

import pytest

from sockmap import layout, program
from sockmap.layout import MIRRORED

pytestmark = pytest.mark.bpf

HEADER = (program._SOURCES / "layout.h").read_text()

# What the programs keep to themselves.
KERNEL_ONLY = {"announcement", "datagram_flow", "datagram_memory"}

ENUMS: tuple[tuple[type[IntEnum], str], ...] = (
    (layout.Direction, ""),
    (layout.Action, ""),
    (layout.Role, ""),
    (layout.SlotMode, ""),
    (layout.ToTcpReason, ""),
    (layout.EventKind, "EVENT_"),
    (layout.Counter, "COUNT_"),
)


def compiles(assertions: str) -> bool:
    """Whether clang accepts the header with these assertions behind it."""
    import bcc

    os.environ["BCC_KERNEL_SOURCE"] = program._KERNEL_SOURCE
    text = f"#include <uapi/linux/bpf.h>\n{HEADER}\n{assertions}\nint nothing(void *ctx) {{ return 0; }}\n"
    try:
        bcc.BPF(text=text.encode()).cleanup()
    except Exception:
        return False
    return True


def holds(condition: str) -> str:
    """A static assertion."""
    return f'_Static_assert({condition}, "{condition}");'


def assertions(name: str, mirror: type[ct.Structure]) -> Iterator[str]:
    """One for the structure's size, and one for the offset and size of each field."""
    yield holds(f"sizeof(struct {name}) == {ct.sizeof(mirror)}")
    for field, kind in mirror._fields_:
        # The address's bytes and the port's are words in C, where no byte is ever taken alone.
        known = {"bytes": "word"}.get(field, field) if name == "address" else field
        at = getattr(mirror, field).offset
        yield holds(f"__builtin_offsetof(struct {name}, {known}) == {at}")
        yield holds(f"sizeof(((struct {name} *)0)->{known}) == {ct.sizeof(kind)}")


@pytest.mark.parametrize(("name", "mirror"), MIRRORED, ids=[name for name, _ in MIRRORED])
def test_a_structure_has_the_same_size_and_offsets_on_both_sides(
    name: str, mirror: type[ct.Structure]
) -> None:
    """Field by field, as clang lays it out for BPF."""
    assert compiles("\n".join(assertions(name, mirror)))


def test_a_wrong_offset_does_not_compile() -> None:
    """The check above can fail."""
    assert not compiles(holds("__builtin_offsetof(struct slot, granted) == 0"))


def test_every_structure_is_mirrored_or_the_kernels_own() -> None:
    """A structure added to the header is added to the mirror, with all of its fields."""
    found = dict(re.findall(r"^struct (\w+) \{[^\n]*\n(.*?)^\};", HEADER, re.DOTALL | re.MULTILINE))
    assert found.keys() - KERNEL_ONLY == {name for name, _ in MIRRORED}
    for name, mirror in MIRRORED:
        lines = re.sub(r"/\*.*?\*/", "", found[name], flags=re.DOTALL).split(";")
        fields = sum(line.count(",") + 1 for line in lines if line.strip())
        assert fields == len(mirror._fields_), name


@pytest.mark.parametrize(("mirror", "prefix"), ENUMS, ids=[mirror.__name__ for mirror, _ in ENUMS])
def test_enumerators_have_the_same_values(mirror: type[IntEnum], prefix: str) -> None:
    """Names differ by a prefix alone."""
    assert compiles("\n".join(holds(f"{prefix}{member.name} == {member.value}") for member in mirror))


def test_the_remaining_numbers_are_the_same() -> None:
    """Flags of an upstream, the number of counters, the slot that is none, where a generation stands."""
    assert compiles(
        "\n".join(
            [
                *(holds(f"UPSTREAM_{flag.name} == {flag.value}") for flag in layout.UpstreamFlag),
                holds(f"COUNTERS == {layout.COUNTERS}"),
                holds(f"NO_SLOT == {layout.NO_SLOT}u"),
                holds("GENERATION_SHIFT == 48"),
            ]
        )
    )
