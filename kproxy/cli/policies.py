"""`kproxy policy`: policies learned from what was seen, and compared before they are applied."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the commands below this one."""


def main(arguments: argparse.Namespace) -> int:
    """Run the one that was named."""
    return 0
