"""`kproxy demo`: Gordon's story on real sockets, with everything it claims checked.

A network as a CNI makes it (`network`), the Jobs API in one pod (`jobs_api`) and curl in the others
(`client`), first as it is and then under two policies (`story`, `rules/`) with the real `kproxy run`
(`node`). What came of it is checked (`check`), shown (`show`), and nothing is left behind (`leftovers`).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys

from kproxy.demo.interrupt import Interrupted, noted_interrupts
from kproxy.demo.play import play
from kproxy.demo.show import Progress, show

NAME = "kproxy-demo"
FAILED = 1  # something was not as it should be


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--json", action="store_true", help="print the whole result as one JSON object")
    parser.add_argument(
        "--name", default=NAME, help="of the network: two demos at once need two (%(default)s)"
    )


def main(arguments: argparse.Namespace) -> int:
    """Play it; exit code 0 if all is as it should be, else 1.

    Raises KproxyError if it cannot be played at all. After SIGINT, SIGTERM or SIGHUP everything is undone
    and the code is 128 and the signal's number.
    """
    try:
        with noted_interrupts():
            result = play(arguments.name, Progress())
    except Interrupted as interrupted:
        print(f"kproxy demo: ended by {interrupted}, all undone", file=sys.stderr)
        return interrupted.exit_code
    if arguments.json:
        print(json.dumps({"ok": result.ok, **dataclasses.asdict(result)}, indent=2))
    else:
        show(result, sys.stdout)
    return 0 if result.ok else FAILED
