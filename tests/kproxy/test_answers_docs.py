"""docs/answers.md, run: its files are written, its commands give what stands under them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from kproxy import cli

PAGE = (Path(__file__).parents[2] / "docs" / "answers.md").read_text()
BLOCK = re.compile(r"```(json|console)(?: (\S+))?\n(.*?)```", re.DOTALL)


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """From top to bottom, as a reader would."""
    monkeypatch.chdir(tmp_path)
    commands = 0
    for kind, name, text in BLOCK.findall(PAGE):
        if kind == "json":
            Path(name).parent.mkdir(exist_ok=True)
            Path(name).write_text(text.removesuffix("\n"))
            continue
        for command in text.removeprefix("$ ").split("\n$ "):
            argv, _, expected = command.partition("\n")
            code = cli.main(shlex.split(argv)[1:])
            out, err = capfd.readouterr()
            shown = out + err + (f"(exit code {code})\n" if code else "")
            assert shown.rstrip("\n") == expected.rstrip("\n"), argv
            commands += 1
    assert commands == PAGE.count("\n$ ") == 5
