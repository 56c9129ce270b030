"""How the demonstration looks: tables for people, coloured where a terminal shows colours."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from typing import TextIO

from kproxy.demo import story
from kproxy.demo.result import Result, Row, SceneResult, Seen

BOLD, DIM, RED, GREEN, YELLOW = "1", "2", "31", "32", "33"
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
_HEADINGS = ("client", "request", "before", "after", "decided by", "client sees", "server sees")
# The figures of a run that say most; all of them are in --json and were on /metrics.
_KEY_METRICS = re.compile(r"kproxy_(?!.*_(bucket|created|sum)\b)")


class Style:
    """Colours, or none: NO_COLOR (no-color.org) and whatever is no terminal get plain text."""

    def __init__(self, stream: TextIO) -> None:
        """Decide for this stream."""
        self._on = stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"

    def __call__(self, text: str, *codes: str) -> str:
        """The text in these colours."""
        return f"\x1b[{';'.join(codes)}m{text}\x1b[0m" if self._on else text


class Progress:
    """A line for each step as it begins, on standard error: standard output is for the result."""

    def __init__(self) -> None:
        self._style = Style(sys.stderr)

    def __call__(self, line: str) -> None:
        """Say what happens now."""
        print(self._style(f"· {line}", DIM), file=sys.stderr, flush=True)


def show(result: Result, stream: TextIO) -> None:
    """Print the whole result."""
    style = Style(stream)
    for scene in result.scenes:
        print("\n".join(["", *_scene(scene, style)]), file=stream)
    print("\n" + "\n".join(_end(result, style)), file=stream)


def _scene(scene: SceneResult, style: Style) -> list[str]:
    return [
        style(scene.title[0].upper() + scene.title[1:], BOLD),
        *(style("  " + line, DIM) for line in scene.policy.splitlines()),
        "",
        *_table([_HEADINGS, *(_cells(row, style) for row in scene.rows)], style),
        "",
        _bytes(scene, style),
        "",
        style("access log", BOLD),
        *("  " + json.dumps(line, ensure_ascii=False) for line in scene.access_log),
        "",
        style("metrics", BOLD),
        *(
            f"  {name} {value:g}"
            for name, value in scene.metrics.items()
            if value and _KEY_METRICS.match(name)
        ),
    ]


def _cells(row: Row, style: Style) -> tuple[str, ...]:
    kept = row.after.status != story.REFUSED and not row.after.connects
    return (
        row.client,
        ("↳ " if kept else "") + row.request + (" (IPv6)" if row.after.client_is.startswith("[") else ""),
        _status(row.before, style),
        _status(row.after, style),
        _decided(row),
        row.after.server_is or "-",
        row.after.accept.rpartition(":")[0] or "-",
    )


def _status(seen: Seen, style: Style) -> str:
    if seen.status == story.REFUSED:
        return style("refused", RED)
    return style(str(seen.status), RED if seen.status >= 400 else GREEN)


def _decided(row: Row) -> str:
    if row.judged.verdict:
        return row.judged.rule or row.judged.reason
    return "the kernel: no rule lets it in" if row.after.status == story.REFUSED else "not judged"


def _bytes(scene: SceneResult, style: Style) -> str:
    total = scene.bytes_spliced + scene.bytes_tcp
    share = 100 * scene.bytes_spliced / total if total else 0
    spliced = style(f"{scene.bytes_spliced:,} bytes spliced", BOLD)
    return f"{spliced}, {scene.bytes_tcp:,} through TCP ({share:.0f} % spliced); kproxy held {scene.held}"


def _end(result: Result, style: Style) -> list[str]:
    if result.ok:
        return [style("All as it should be, and nothing left behind.", BOLD, GREEN)]
    failed = (f"{style('not as it should be', BOLD, RED)}: {failure}" for failure in result.failures)
    return list(failed)


def _table(rows: Sequence[Sequence[str]], style: Style) -> list[str]:
    """Columns as wide as their widest cell, two spaces between; the first row is the heading."""
    widths = [max(_width(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell + " " * (w - _width(cell)) for cell, w in zip(row, widths, strict=True))
        for row in rows
    ]
    rule = "  ".join("─" * width for width in widths)
    return [style(lines[0].rstrip(), BOLD), style(rule, DIM), *(line.rstrip() for line in lines[1:])]


def _width(cell: str) -> int:
    return len(_ESCAPES.sub("", cell))
