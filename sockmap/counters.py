"""Reads the per-CPU counters of the programs, summed over processors."""

from __future__ import annotations

import ctypes as ct
from pathlib import Path

from sockmap.layout import COUNTERS, Action, Counter, Direction, Role, Verdicts
from sockmap.syscall import map_lookup, map_update


def possible_processors(text: str) -> int:
    """Return how many values a per-CPU value is, from ``/sys/devices/system/cpu/possible``.

    One for each processor that there may ever be, one after the other, with no place for numbers that are left
    out (kernel/bpf/hashtab.c, for_each_possible_cpu).

    >>> possible_processors("0-1"), possible_processors("0"), possible_processors("0-3,8-11")
    (2, 1, 8)
    """
    count = 0
    for part in text.split(","):
        first, _, last = part.partition("-")
        count += int(last or first) - int(first) + 1
    return count


class Counters:
    """The maps ``counters`` and ``verdicts``.

    Args:
        counters: descriptor of the map of that name.
        verdicts: likewise.
    """

    def __init__(self, counters: int, verdicts: int) -> None:
        self._counters, self._verdicts = counters, verdicts
        self._processors = possible_processors(Path("/sys/devices/system/cpu/possible").read_text())

    def read(self) -> dict[Counter, int]:
        """Return every counter; those of bytes are of the client's socket alone, see :meth:`bytes_by_role`."""
        values = self._sum(range(COUNTERS))
        return {counter: values[counter] for counter in Counter}

    def clear(self) -> None:
        """Set every counter to zero."""
        for index in range(COUNTERS):
            map_update(self._counters, ct.c_uint32(index), (ct.c_uint64 * self._processors)())

    def bytes_by_role(self, first: Counter) -> dict[Role, int]:
        """Return the four byte counters that start at ``first`` (SPLICED_BYTES or TCP_BYTES), by sender."""
        return dict(zip(Role, self._sum(range(first, first + len(Role))), strict=True))

    def verdicts(self, endpoint: int) -> dict[tuple[Direction, Action], int]:
        """Return how many connections and datagrams the hooks answered in which way, for one endpoint."""
        each = (Verdicts * self._processors)()
        map_lookup(self._verdicts, ct.c_uint32(endpoint), each)
        return {
            (direction, action): sum(one.count[direction][action] for one in each)
            for direction in Direction
            for action in Action
        }

    def _sum(self, indices: range) -> list[int]:
        each = (ct.c_uint64 * self._processors)()
        sums = []
        for index in indices:
            map_lookup(self._counters, ct.c_uint32(index), each)
            sums.append(sum(each))
        return sums
