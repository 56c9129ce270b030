"""The benchmark's command line: `python -m benchmarks` as root; see docs/benchmarks.md."""

from __future__ import annotations

import argparse
import datetime
import json
import resource
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine, results
from benchmarks.arrangement import Arrangement, arranged, versions
from benchmarks.paths import PATHS, opened
from benchmarks.profile import profiled
from benchmarks.results import Measurement
from benchmarks.workloads import WORKLOADS, Workload
from kproxy.demo.interrupt import Interrupted, checkpoint, noted_interrupts
from kproxy.errors import KproxyError

NETWORK = "kpbench"
_RESULTS = Path(__file__).parent / "results"
_WARM_UP_S = 1.0
_OPEN_FILES = 20_000  # both ends of a thousand idle connections, with room; programs inherit it


def main() -> int:
    """Measure and print; exit code 0, that of an error, or 128 + the signal if interrupted."""
    args = _arguments()
    try:
        with noted_interrupts(), tempfile.TemporaryDirectory(prefix="kproxy-bench-") as folder:
            _allow_open_files()
            others = machine.others_share()
            with arranged(args.network, Path(folder)) as arrangement:
                found = results.rows(list(_measure_all(args, arrangement)))
    except KproxyError as error:
        print("\n".join(f"benchmarks: {line}" for line in error.lines()), file=sys.stderr)
        return error.exit_code
    except Interrupted as interrupted:
        print(f"benchmarks: ended by {interrupted}", file=sys.stderr)
        return interrupted.exit_code
    _tell(args, {"time": _now(), **machine.describe(), **versions(), "busy_with_others": others}, found)
    return 0


def _tell(args: argparse.Namespace, head: dict[str, Any], found: Sequence[dict[str, Any]]) -> None:
    name = args.name or f"{head['time'][:10]}-{head['commit'] or 'unversioned'}"
    path = _RESULTS / f"{name}.json"
    head |= {"duration_s": args.duration, "repeats": args.repeats}
    results.write(path, head, found)
    if args.json:
        print(json.dumps({**head, "rows": found}))
        return
    print("\n".join(f"{key}: {value}" for key, value in head.items()))
    print("\n" + results.table(found))
    print(f"\nwritten to {path}")


def _measure_all(args: argparse.Namespace, arrangement: Arrangement) -> Iterator[Measurement]:
    """Every load, and within it every repeat, and within that every path: neighbours share the weather."""
    for workload in (WORKLOADS[name] for name in args.only):
        counts = [c for c in workload.connections if not args.connections or c in args.connections]
        for repeat in range(args.repeats):
            order = args.paths[repeat % len(args.paths) :] + args.paths[: repeat % len(args.paths)]
            for path in order:
                print(f"· {workload.title}, {path}, repeat {repeat + 1}", file=sys.stderr, flush=True)
                yield from _measure(args, arrangement, workload, path, counts, repeat)


def _measure(
    args: argparse.Namespace,
    arrangement: Arrangement,
    workload: Workload,
    path: str,
    counts: Sequence[int],
    repeat: int,
) -> Iterator[Measurement]:
    """One path, from its start to its stop, under one load with each number of connections."""
    with opened(path, arrangement) as target:
        for connections in counts:
            checkpoint()
            if workload.warm_up:
                workload.measure(arrangement, target, connections, _WARM_UP_S)
            before = target.counters()
            with profiled(args.profile and f"{path}-{workload.name}-{connections}", target, args.duration):
                figures = workload.measure(arrangement, target, connections, args.duration)
            moved = {name: value - before[name] for name, value in target.counters().items()}
            if sum(moved.values()):
                figures["spliced_share"] = moved["spliced"] / sum(moved.values())
            yield Measurement(workload.name, path, connections, repeat, figures)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2 repeats of 2 s: to see that it runs")
    parser.add_argument("--only", action="append", choices=WORKLOADS, help="this load alone; may be repeated")
    parser.add_argument("--paths", type=_paths, default=list(PATHS), help=f"of {','.join(PATHS)}")
    parser.add_argument(
        "--connections", type=int, action="append", help="of the load's numbers; may be repeated"
    )
    parser.add_argument("--repeats", type=int, help="default 5; 2 if quick")
    parser.add_argument("--duration", type=float, help="seconds of each wrk run; default 6; 2 if quick")
    parser.add_argument("--json", action="store_true", help="print the result file instead of tables")
    parser.add_argument("--name", default="", help="of the result file; date and commit without")
    parser.add_argument(
        "--profile", action="store_true", help="flame graphs of kproxy; figures suffer a little"
    )
    parser.add_argument("--network", default=NETWORK, help="name of the network that is made (%(default)s)")
    args = parser.parse_args()
    args.only = args.only or list(WORKLOADS)
    args.repeats = args.repeats or (2 if args.quick else 5)
    args.duration = args.duration or (2.0 if args.quick else 6.0)
    return args


def _paths(text: str) -> list[str]:
    paths = text.split(",")
    if unknown := [path for path in paths if path not in PATHS]:
        raise argparse.ArgumentTypeError(f"no path {', '.join(unknown)}: there are {', '.join(PATHS)}")
    return paths


def _allow_open_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


if __name__ == "__main__":
    raise SystemExit(main())
