"""Compiles and loads the BPF programs: the one module that knows bcc.

The sources under ``bpf/`` are joined into one translation unit, because maps are shared within one; each part
keeps its name and line numbers in messages. No kernel headers are needed: ``bpf/kernel`` stands in for them.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sockmap.complaints import Complaints, last_useful_line
from sockmap.errors import CompileError, NotPermittedError, SockmapError
from sockmap.layout import Event

_SOURCES = Path(__file__).parent / "bpf"
_PARTS = (
    "layout.h",
    "maps.h",
    "common.h",
    "decide.h",
    "datagrams.h",
    "connect.bpf.c",
    "guard.bpf.c",
    "lookup.bpf.c",
    "sockops.bpf.c",
    "splice.bpf.c",
)
# bcc's map methods are declared without const; the programs promise const where they mean it.
_WARNINGS = ("-Wno-unused-function", "-Wno-incompatible-pointer-types-discards-qualifiers")
# bcc looks here instead of /lib/modules/…/build.
_KERNEL_SOURCE = str(_SOURCES / "kernel")

ENDPOINT_HERE = 0x6B70726F78790001  # the constant in lookup.bpf.c
_LOAD_IMMEDIATE = 0x18  # BPF_LD | BPF_IMM | BPF_DW: 64 bits over two instructions


def source() -> str:
    """Return the joined source, each part under its own name and line numbers."""
    parts = ["#include <uapi/linux/bpf.h>\n"]
    parts += [f'#line 1 "{name}"\n{(_SOURCES / name).read_text()}' for name in _PARTS]
    return "".join(parts)


def with_endpoint(instructions: bytes, endpoint: int) -> bytes:
    """Return a copy of the sk_lookup program with the endpoint's number in place of the constant.

    Raises:
        CompileError: the constant is not there exactly once.
    """
    low, high = ENDPOINT_HERE & 0xFFFFFFFF, ENDPOINT_HERE >> 32
    patched = bytearray(instructions)
    found = 0
    for at in range(0, len(patched) - 8, 8):
        immediate = int.from_bytes(patched[at + 4 : at + 8], "little")
        following = int.from_bytes(patched[at + 12 : at + 16], "little")
        if patched[at] == _LOAD_IMMEDIATE and (immediate, following) == (low, high):
            patched[at + 4 : at + 8] = endpoint.to_bytes(4, "little")
            patched[at + 12 : at + 16] = bytes(4)
            found += 1
    if found != 1:
        raise CompileError(
            f"the sk_lookup program holds its endpoint constant {found} times, not once",
            "this is a defect of kproxy or an unknown compiler: report it with the version of libbcc",
        )
    return bytes(patched)


def _refused(what: str, complaints: str, error: Exception) -> SockmapError:
    """Tell a failure in one line: of libbcc's complaints, the last that says something."""
    if "Operation not permitted" in f"{complaints}{error}":
        return NotPermittedError(
            f"{what}: not permitted",
            "run as root on the host, without a lockdown or seccomp profile that forbids bpf(2)",
        )
    said = last_useful_line(complaints) or str(error)
    return CompileError(f"{what}: {said}", "report it with the version of the kernel and of libbcc")


class Program:
    """The compiled programs and their maps; they live as long as this object."""

    def __init__(self, defines: dict[str, int]) -> None:
        """Compile. ``defines`` are macros for the sources (limits that user space shares).

        Raises:
            CompileError: bcc is missing, or the sources do not compile.
            NotPermittedError: the process may not create BPF maps.
        """
        os.environ["BCC_KERNEL_SOURCE"] = _KERNEL_SOURCE
        try:
            import bcc
        except ImportError as error:
            raise CompileError(
                f"the bcc bindings are missing: {error}",
                "install python3-bpfcc and run kproxy from a venv with --system-site-packages",
            ) from error
        if os.geteuid() != 0:
            raise NotPermittedError("BPF programs can only be loaded by root", "run kproxy as root")
        flags = [f"-D{name}={value}ULL" for name, value in defines.items()]
        self._bcc: Any = bcc
        with Complaints() as complaints:
            try:
                self._bpf: Any = bcc.BPF(text=source().encode(), cflags=[*flags, *_WARNINGS])
            except Exception as error:  # bcc raises bare Exception for every failure
                raise _refused("the BPF programs do not compile", complaints.text(), error) from error

    def load(self, name: str, program_type: int, attach_type: int) -> int:
        """Load one program; return its descriptor.

        Raises:
            CompileError: the verifier refused it.
            NotPermittedError: EPERM.
        """
        with Complaints() as complaints:
            try:
                function = self._bpf.load_func(name.encode(), program_type, attach_type=attach_type)
            except Exception as error:  # as above
                what = f"the kernel refuses BPF program {name}"
                raise _refused(what, complaints.text(), error) from error
        return int(function.fd)

    def instructions(self, name: str) -> bytes:
        """Return a compiled program's instructions, map references resolved."""
        return bytes(self._bpf.dump_func(name.encode()))

    def map_fd(self, name: str) -> int:
        """Return a map's descriptor (owned by this object)."""
        return int(self._bcc.lib.bpf_table_fd(self._bpf.module, name.encode()))

    def map_memory(self, name: str, size: int) -> mmap.mmap:
        """Map a BPF_F_MMAPABLE array of ``size`` bytes into this process."""
        return mmap.mmap(self.map_fd(name), (size + mmap.PAGESIZE - 1) & -mmap.PAGESIZE)

    def on_event(self, callback: Callable[[Event], None]) -> Callable[[], None]:
        """Call ``callback`` for every record of ring buffer ``events``; return what consumes them now."""

        def record(_context: int, data: int, _size: int) -> None:
            callback(Event.from_address(data))

        self._bpf[b"events"].open_ring_buffer(record)
        consume: Callable[[], None] = self._bpf.ring_buffer_consume
        return consume

    def close(self) -> None:
        """Let go of every program and map."""
        self._bpf.cleanup()
