"""`kproxy policy learn`: the least policies that would have allowed what an access log tells of."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import policy
from kproxy import config, endpoints, seen
from kproxy.cli.text import cell, counted, printable
from kproxy.errors import OutputError, UsageError
from kproxy.lines import STDOUT
from policy import Learned, Workload

VERDICTS = ("audit", "deny", "allow")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "logs", nargs="*", metavar="LOG", help="access logs; - is standard input, .gz is read"
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--config", metavar="FILE", help="a configuration: its endpoints, and its log if none is named"
    )
    which.add_argument("--endpoints", metavar="FILE", help="an endpoints file")
    parser.add_argument(
        "--verdict", action="append", choices=VERDICTS, help="of which requests; may be given again (audit)"
    )
    parser.add_argument(
        "--leave-out-refused",
        action="store_true",
        help="make no rules of what servers only ever answered as not there (400, 404, 405, 410, 501)",
    )
    parser.add_argument("--output", metavar="DIR", help="write a file for each policy there")
    parser.add_argument("--force", action="store_true", help="with --output: overwrite files that are there")
    parser.add_argument(
        "--json", action="store_true", help="print policies, evidence and notes as one JSON object"
    )


def main(arguments: argparse.Namespace) -> int:
    """Print or write the policies, and on standard error what they stand for: exit code 0."""
    logs, workloads = _sources(arguments)
    found = policy.learn(
        seen.records(logs),
        workloads,
        arguments.verdict or ["audit"],
        leave_out_refused=arguments.leave_out_refused,
    )
    if arguments.output:
        _write(Path(arguments.output), found, overwrite=arguments.force)
    if arguments.json:
        _print(_plain(found))
    else:
        if not arguments.output:
            _print({"apiVersion": "v1", "kind": "List", "items": found.policies})
        print("\n".join(lines(found)), file=sys.stderr)
    return 0


def _sources(arguments: argparse.Namespace) -> tuple[list[str], list[Workload]]:
    logs, file = list(arguments.logs), arguments.endpoints
    if arguments.config:
        settings = config.load(arguments.config)
        file = settings.endpoints
        if not logs and settings.access_log not in (None, STDOUT):
            logs = [str(settings.access_log)]
    if not logs:
        raise UsageError("no access log is named", "name a LOG, or - for standard input")
    return logs, [endpoint.workload() for endpoint in endpoints.load(file)]


def _print(value: Any) -> None:
    print(json.dumps(value, indent=2))


def _plain(found: Learned) -> dict[str, Any]:
    evidence = [asdict(one) for one in found.evidence]
    return {"policies": found.policies, "evidence": evidence, "notes": found.notes}


def _write(folder: Path, found: Learned, *, overwrite: bool) -> None:
    """One file for each policy; none is written where one of them is there already, unless told to."""
    files = {folder / _file_name(one): json.dumps(one, indent=2) + "\n" for one in found.policies}
    taken = [str(path) for path in files if path.exists()]
    if taken and not overwrite:
        raise OutputError(
            f"{', '.join(taken)}: already there", "name another folder, or overwrite with --force"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            with open(path, "w" if overwrite else "x") as file:
                file.write(text)
            print(f"written: {printable(str(path))}", file=sys.stderr)
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be written: {error.strerror}", "check the path and its permissions"
        ) from error


def _file_name(one: dict[str, Any]) -> str:
    about = one["metadata"]
    return (
        re.sub(r"[^A-Za-z0-9._-]", "_", f"{about.get('namespace', '')}.{about['name']}".lstrip(".")) + ".json"
    )


def lines(found: Learned) -> Iterator[str]:
    """What each rule stands for, and what a person should look at; all of it is printable."""
    total = sum(one.requests for one in found.evidence)
    policies = "1 policy" if len(found.policies) == 1 else f"{len(found.policies)} policies"
    yield f"{policies} from {counted(total, 'request')}"
    for one in found.evidence:
        yield printable(f"  {one.rule}: {counted(one.requests, 'request')}, such as")
        yield from (f"    {cell(example)}" for example in one.examples)
    yield from _notes(found.notes)
    if not found.policies:
        yield "nothing was learned: is there traffic with these verdicts in the log? (--verdict)"


def _notes(notes: Iterable[str]) -> Iterator[str]:
    yield from (f"note: {printable(note)}" for note in notes)
