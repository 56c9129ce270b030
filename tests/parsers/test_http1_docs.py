"""docs/http.md says what the code does: every reason and every ambiguity, in the code's own words."""

from __future__ import annotations

from pathlib import Path

from parsers.http1 import REASONS
from parsers.http1.paths import AMBIGUITIES

DOC = Path(__file__).parents[2] / "docs" / "http.md"


def test_every_reason_is_documented() -> None:
    """The table of refusals has each reason with its status and meaning."""
    text = DOC.read_text()
    for name, (status, meaning) in REASONS.items():
        assert f"| `{name}` | {status} | {meaning} |" in text


def test_every_ambiguity_is_documented() -> None:
    """So has the table of paths."""
    text = DOC.read_text()
    for name, meaning in AMBIGUITIES.items():
        assert f"| `{name}` | {meaning} |" in text
