"""Rule files as texts: which are read, in which order, and what is said of those that are not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kproxy import rules


def test_folder_and_files(tmp_path: Path) -> None:
    """A folder stands for the rule files in it, by name; a file named outright may be called anything."""
    folder = tmp_path / "rules"
    folder.mkdir()
    for name in ("b.yaml", "a.json", "c.yml", ".hidden.json", "..data"):
        (folder / name).write_text(name)
    (tmp_path / "one.rules").write_text("one")
    found = rules.read([str(folder), str(tmp_path / "one.rules")])
    assert [(Path(path).name, text) for path, text in found.files] == [
        ("a.json", "a.json"),
        ("b.yaml", "b.yaml"),
        ("c.yml", "c.yml"),
        ("one.rules", "one"),
    ]
    assert (found.errors, found.warnings) == ((), ())


def test_what_is_not_read_is_said(tmp_path: Path) -> None:
    """A file of another kind and a folder within are left out with a warning: nothing is silently ignored."""
    (tmp_path / "README.md").write_text("x")
    (tmp_path / "deeper").mkdir()
    found = rules.read([str(tmp_path)])
    assert found.files == ()
    assert {Path(problem.file).name for problem in found.warnings} == {"README.md", "deeper"}


def test_a_pipe_in_a_rule_folder_is_an_error(tmp_path: Path) -> None:
    """Reading it would wait for its writer, for ever, and no later change would come into force."""
    os.mkfifo(tmp_path / "a.json")
    (error,) = rules.read([str(tmp_path)]).errors
    assert (Path(error.file).name, error.message) == ("a.json", "is not a file: a pipe would be waited for")


def test_file_named_twice_is_read_once(tmp_path: Path) -> None:
    """By its folder, by its name, or through a link, a file is one file."""
    (tmp_path / "a.json").write_text("x")
    (tmp_path / "b.json").symlink_to("a.json")
    found = rules.read([str(tmp_path), str(tmp_path / "a.json")])
    assert len(found.files) == 1


def test_all_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """Missing files, broken links and bad encodings are each an error, and the rest is read."""
    (tmp_path / "bad.json").write_bytes(b"\xff")
    (tmp_path / "good.json").write_text("{}")
    (tmp_path / "link.json").symlink_to("nowhere")
    found = rules.read([str(tmp_path), str(tmp_path / "none.json")])
    assert [text for _, text in found.files] == ["{}"]
    assert {Path(problem.file).name: problem.message for problem in found.errors} == {
        "bad.json": "not UTF-8",
        "link.json": "cannot be read: No such file or directory",
        "none.json": "cannot be read: No such file or directory",
    }


def test_files_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files without end are refused as such."""
    monkeypatch.setattr(rules, "MAX_FILES", 3)
    for number in range(4):
        (tmp_path / f"{number}.json").write_text("{}")
    found = rules.read([str(tmp_path)])
    assert found.files == ()
    assert "more than 3 rule files" in found.errors[0].message
