"""`kproxy schema`: JSON Schemas of the files that people write and of the lines that programs read.

They come from the types that decode these files, so that they cannot say anything else.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import msgspec

import policy
from kproxy.accesslog import AccessLine
from kproxy.answer_shapes import Drawn, Explained
from kproxy.comparison import Compared
from kproxy.config import Config
from kproxy.endpoints import EndpointsFile
from kproxy.state import Status

DIALECT = "https://json-schema.org/draft/2020-12/schema"

KINDS: dict[str, type[msgspec.Struct]] = {
    "config": Config,
    "endpoints": EndpointsFile,
    "accesslog": AccessLine,
    "status": Status,
    "explain": Explained,
    "reach": Drawn,
    "diff": Compared,
}

RULES = "rules"
"""The rule language has a reader of its own, and makes its schema from that."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("kind", choices=(RULES, *KINDS), help="of which file; accesslog: of one line")


def main(arguments: argparse.Namespace) -> int:
    """Print the schema."""
    print(json.dumps(schema(arguments.kind), indent=2))
    return 0


def schema(kind: str) -> dict[str, Any]:
    """Give the JSON Schema of one format."""
    if kind == RULES:
        return policy.rules_schema()
    return {"$schema": DIALECT, **msgspec.json.schema(KINDS[kind])}
