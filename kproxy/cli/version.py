"""`kproxy version`: what this is and what it runs on."""

from __future__ import annotations

import argparse
import json
import platform
from importlib.metadata import version as installed_version

DISTRIBUTION = "kproxy-node"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def main(arguments: argparse.Namespace) -> int:
    """Print it."""
    told = {
        "kproxy": installed_version(DISTRIBUTION),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "machine": platform.machine(),
    }
    print(
        json.dumps(told) if arguments.json else "\n".join(f"{name} {value}" for name, value in told.items())
    )
    return 0
