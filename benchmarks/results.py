"""From single measurements to rows: medians, and ratios between paths within each repeat.

Machines drift while they measure, so a ratio is taken between figures of the same repeat, which were
measured right after one another, and the median is of those ratios.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

Key = tuple[str, str, int]  # workload, path, connections


@dataclass(frozen=True)
class Measurement:
    """What one path did under one load in one repeat."""

    workload: str
    path: str
    connections: int
    repeat: int
    figures: Mapping[str, float]

    @property
    def key(self) -> Key:
        """All but the repeat."""
        return self.workload, self.path, self.connections


def rows(measurements: Sequence[Measurement]) -> list[dict[str, Any]]:
    """One row for each workload, path and number of connections, load by load as first measured.

    Each figure is the median; `ratio_to_direct` and `ratio_to_envoy` hold the medians of its ratios, and
    `repeats` every single value.
    """
    grouped: dict[Key, list[Measurement]] = {}
    for measurement in measurements:
        grouped.setdefault(measurement.key, []).append(measurement)
    loads = list(dict.fromkeys((workload, connections) for workload, _, connections in grouped))
    ordered = sorted(grouped.items(), key=lambda item: loads.index((item[0][0], item[0][2])))
    return [_row(key, group, grouped) for key, group in ordered]


def _row(
    key: Key, group: Sequence[Measurement], grouped: Mapping[Key, Sequence[Measurement]]
) -> dict[str, Any]:
    workload, path, connections = key
    row: dict[str, Any] = {"workload": workload, "path": path, "connections": connections}
    row |= {name: median(m.figures[name] for m in group) for name in group[0].figures}
    for other in ("direct", "envoy"):
        against = grouped.get((workload, other, connections), ())
        if other != path and against:
            row[f"ratio_to_{other}"] = _ratios(group, against)
    return row | {"repeats": [dict(m.figures) for m in group]}


def _ratios(group: Iterable[Measurement], against: Iterable[Measurement]) -> dict[str, float]:
    """Figure by figure: the median over repeats of ours divided by theirs; none where theirs is 0."""
    pairs = list(zip(group, against, strict=False))
    names = pairs[0][0].figures
    return {
        name: median(ours.figures[name] / theirs.figures[name] for ours, theirs in pairs)
        for name in names
        if all(theirs.figures.get(name) for _, theirs in pairs)
    }


def write(path: Path, head: Mapping[str, Any], found: Sequence[Mapping[str, Any]]) -> None:
    """Write a result file: what the machine is, and the rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**head, "rows": found}, indent=1) + "\n")


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """The rows for people, a blank line between loads."""
    lines: list[str] = []
    previous = None
    for row in found:
        load = (row["workload"], row["connections"])
        if load != previous:
            lines += ["", f"{row['workload']}, {row['connections']} connections"]
        previous = load
        lines.append(f"  {row['path']:<16} " + "  ".join(_cells(row)))
    return "\n".join(lines[1:])


def _cells(row: Mapping[str, Any]) -> Iterable[str]:
    for name, (unit, scale, digits) in _SHOWN.items():
        if name in row:
            yield f"{row[name] * scale:>10,.{digits}f} {unit}"
    for other in ("direct", "envoy"):
        ratios = row.get(f"ratio_to_{other}", {})
        lead = next((name for name in _SHOWN if name in ratios), "")
        if lead:
            latency = f", p50 {ratios['p50_us']:.2f}" if "p50_us" in ratios else ""
            yield f"{ratios[lead]:6.2f} of {other}{latency}"


# Unit, factor and digits of each figure, in the order of the table; the first in a row leads it.
_SHOWN = {
    "requests_per_s": ("req/s", 1, 0),
    "gigabytes_per_s": ("GB/s", 1, 2),
    "p50_us": ("µs p50", 1, 0),
    "p99_us": ("µs p99", 1, 0),
    "cpu_us_per_request": ("µs CPU/req", 1, 1),
    "cpu_ms_per_gigabyte": ("ms CPU/GB", 1, 0),
    "spliced_share": ("% spliced", 100, 1),
    "kernel_bytes_per_connection": ("B kernel", 1, 0),
    "proxy_bytes_per_connection": ("B proxy", 1, 0),
}
