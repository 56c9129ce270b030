"""docs/operations.md says what the code does: its tables are made from the types that decode the files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kproxy import endpoints
from kproxy.accesslog import AccessLine
from kproxy.config import Config
from kproxy.endpoints import EndpointsFile
from kproxy.errors import EXIT_CODES

DOCS = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()


def rows(kind: type[msgspec.Struct], name: str) -> list[str]:
    """Give the rows of the table that documents one object of a file format."""
    definition = msgspec.json.schema(kind)["$defs"][name]
    required = definition.get("required", [])
    return [row(key, field, key in required) for key, field in definition["properties"].items()]


def row(key: str, field: dict[str, Any], required: bool) -> str:
    """Give the row of one key: its name, its default, what it means."""
    default = "required" if required else f"`{json.dumps(field.get('default'))}`"
    if isinstance(field.get("default"), dict) and field["default"]:
        default = "see below"
    return f"| `{key}` | {default} | {field.get('description', '').replace('|', '/')} |"


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (Config, "Limits"),
        (Config, "HttpLimits"),
        (Config, "LogConfig"),
        (Config, "Config"),
        (EndpointsFile, "EndpointEntry"),
    ],
)
def test_tables_of_keys(kind: type[msgspec.Struct], name: str) -> None:
    """Every key stands in the documentation with its default and its meaning."""
    assert [one for one in rows(kind, name) if one not in DOCS.splitlines()] == []


def test_endpoints_of_the_policy_page() -> None:
    """The endpoints that docs/policy.md speaks of are a file that kproxy reads."""
    page = (Path(__file__).parents[2] / "docs" / "policy.md").read_text()
    written = re.search(r"```json endpoints\n(.*?)```", page, re.DOTALL)
    assert written is not None
    assert [one.key for one in endpoints.parse(written[1], "endpoints.json")][-1] == "node-2"


def test_access_log_fields() -> None:
    """Every field of a line is documented."""
    fields = msgspec.json.schema(AccessLine)["$defs"]["AccessLine"]["properties"]
    wanted = [f"| `{name}` | {field['description']} |" for name, field in fields.items()]
    assert [one for one in wanted if one not in DOCS.splitlines()] == []


def test_exit_codes() -> None:
    """Every exit code is documented with its meaning."""
    assert [code for code, told in EXIT_CODES if f"| {code} | {told} |" not in DOCS] == []
