"""`kproxy schema`: JSON Schemas of the files that people write and of the lines that programs read.

They come from the types that decode these files, so that they cannot say anything else.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import msgspec

from kproxy.accesslog import AccessLine
from kproxy.config import Config
from kproxy.endpoints import EndpointsFile
from kproxy.state import Status

DIALECT = "https://json-schema.org/draft/2020-12/schema"

KINDS: dict[str, type[msgspec.Struct]] = {
    "config": Config,
    "endpoints": EndpointsFile,
    "accesslog": AccessLine,
    "status": Status,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("kind", choices=KINDS, help="of which file; accesslog: of one line")


def main(arguments: argparse.Namespace) -> int:
    """Print the schema."""
    print(json.dumps(schema(arguments.kind), indent=2))
    return 0


def schema(kind: str) -> dict[str, Any]:
    """Give the JSON Schema of one format."""
    return {"$schema": DIALECT, **msgspec.json.schema(KINDS[kind])}
