"""The command line: `kproxy run | demo | check | explain | policy | status | version | schema`.

Nouns read, verbs change.  Each command is a module with `add_arguments(parser)` and `main(arguments) -> int`.
An expected failure is one clear line on standard error, with its mend, and a documented exit code.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NamedTuple

from kproxy import demo
from kproxy.cli import check, explain, policies, run, schema, status, version
from kproxy.cli.text import printable
from kproxy.errors import DEFECT, EXIT_CODES, KproxyError


class _Command(NamedTuple):
    name: str
    told: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    main: Callable[[argparse.Namespace], int]


_COMMANDS = (
    _Command("run", "run the node service", run.add_arguments, run.main),
    _Command("demo", "show it on real sockets, in namespaces of its own", demo.add_arguments, demo.main),
    _Command("check", "check rules, endpoints and configuration", check.add_arguments, check.main),
    _Command(
        "explain",
        "why a request is allowed or denied, and who may talk to whom",
        explain.add_arguments,
        explain.main,
    ),
    _Command(
        "policy", "learn policies from an access log, and compare them", policies.add_arguments, policies.main
    ),
    _Command("status", "what a running node says of itself", status.add_arguments, status.main),
    _Command("version", "what this is and what it runs on", version.add_arguments, version.main),
    _Command("schema", "print a JSON Schema of a file format", schema.add_arguments, schema.main),
)


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    codes = "\n".join(f"  {code:2}  {told}" for code, told in EXIT_CODES)
    top = argparse.ArgumentParser(
        prog="kproxy",
        description="L7 network policy on one Linux node, beside any CNI.",
        epilog=f"exit codes:\n{codes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in _COMMANDS:
        one = commands.add_parser(command.name, help=command.told, description=command.told)
        command.add_arguments(one)
        one.set_defaults(main=command.main)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and give its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # What the terminal's encoding lacks, and bytes of a command line that are no text, are escaped.
            stream.reconfigure(errors="backslashreplace")
    arguments = parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.main
    try:
        return command(arguments)
    except KproxyError as error:
        for line in error.lines():
            print(f"kproxy: {printable(line)}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # The reader of the output has gone (`kproxy schema config | head`): nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except Exception:
        traceback.print_exc()
        return DEFECT
