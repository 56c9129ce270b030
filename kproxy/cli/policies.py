"""`kproxy policy`: policies learned from what was seen, and compared before they are applied."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from kproxy.cli import diff, learn

_LEARN = "the least policies that would have allowed what an access log tells of"
_DIFF = "which requests would be judged otherwise under other rules"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the commands below this one."""
    commands = parser.add_subparsers(dest="policy_command", required=True, metavar="COMMAND")
    for name, told, module in (("learn", _LEARN, learn), ("diff", _DIFF, diff)):
        one = commands.add_parser(name, help=told, description=told)
        module.add_arguments(one)
        one.set_defaults(policy_main=module.main)


def main(arguments: argparse.Namespace) -> int:
    """Run the one that was named."""
    command: Callable[[argparse.Namespace], int] = arguments.policy_main
    return command(arguments)
