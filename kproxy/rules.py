"""Rule folders and files as texts, for the policy package to read: it does no I/O itself."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from kproxy.errors import FileError, Problem
from kproxy.files import read_text

SUFFIXES = (".json", ".yaml", ".yml")
"""How the name of a rule file in a folder ends; a file that is named outright may be called anything."""

MAX_FILES = 20_000
"""Most rule files: 10,000 policies of a file each, and as many again."""


class Texts(NamedTuple):
    """What was found: (path, text) of each rule file in a fixed order, and what was wrong or left out."""

    files: tuple[tuple[str, str], ...]
    errors: tuple[Problem, ...]
    warnings: tuple[Problem, ...]


def read(paths: Iterable[str]) -> Texts:
    """Read every rule file that the paths name; a folder stands for the rule files directly in it.

    Names that begin with a dot are left out (editors' and Kubernetes' own); anything else in a folder that is
    not read is a warning.  A file that several paths name is read once.
    """
    named = tuple(paths)
    found, errors, warnings = _listed(named)
    texts = []
    for path in found:
        if path not in named and _is_special(path):
            told = "is not a file: a pipe would be waited for"
            errors.append(Problem(path, 0, "", told, "move it out of the rule folder"))
            continue
        try:
            texts.append((path, read_text(path)))
        except FileError as error:
            errors += error.problems
    return Texts(tuple(texts), tuple(errors), tuple(warnings))


def _is_special(path: str) -> bool:
    """Whether it is a pipe, a device or a socket."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False  # reading it will tell


def _listed(paths: Iterable[str]) -> tuple[list[str], list[Problem], list[Problem]]:
    found: dict[str, str] = {}
    errors: list[Problem] = []
    warnings: list[Problem] = []
    for path in paths:
        try:
            for file in sorted(_folder(path, warnings)) if os.path.isdir(path) else [path]:
                found.setdefault(os.path.realpath(file), file)
        except OSError as error:
            told = f"cannot be read: {error.strerror}"
            errors.append(Problem(path, 0, "", told, "check the folder's permissions"))
    if len(found) > MAX_FILES:
        errors.append(Problem(next(iter(paths)), 0, "", f"more than {MAX_FILES} rule files", "merge some"))
        found.clear()
    return list(found.values()), errors, warnings


def _folder(path: str, warnings: list[Problem]) -> Iterator[str]:
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                mend = 'name it in "rules" if its files are to be read'
                warnings.append(Problem(entry.path, 0, "", "a folder in a rule folder is not read", mend))
            elif entry.name.endswith(SUFFIXES):
                yield entry.path
            else:
                told = f"not read: its name does not end in {', '.join(SUFFIXES)}"
                warnings.append(Problem(entry.path, 0, "", told))
