"""Secrets that rules name, read from a folder: values of headers, which no message, log or repr ever shows.

    secrets/hr/token            a file that holds the value
    secrets/hr/token/password   or a folder that holds one file, as Kubernetes mounts a Secret with one key

Names that begin with a dot are left out (Kubernetes' `..data`), and links are followed. One line feed at the end
is not part of the value. Only what rules name is read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass

from kproxy.errors import Problem
from policy import MAX_HEADER_VALUE, value_fault

MAX_SECRETS = 4096
"""Most secrets: each is opened at every reload, and this many take some 0.1 s."""


class Values(dict[str, bytes]):
    """Values by `namespace/name`; shown by their names alone."""

    def __repr__(self) -> str:
        return f"<Values of {', '.join(sorted(self))}>"


@dataclass(frozen=True, slots=True)
class Found:
    """What the folder holds of what was asked for, and what is wrong or worth a look there."""

    values: Values
    errors: tuple[Problem, ...]
    warnings: tuple[Problem, ...]


def read(folder: str | None, names: Iterable[str]) -> Found:
    """Read these secrets (`namespace/name`); one that is not there is left out, as policy tells of it."""
    wanted = sorted(names)
    if folder is None or not wanted:
        return Found(Values(), (), ())
    if len(wanted) > MAX_SECRETS:
        told = f"rules name {len(wanted)} secrets, and {MAX_SECRETS} at most are read"
        return Found(Values(), (Problem(folder, 0, "", told, "let rules share them"),), ())
    values = Values()
    errors: list[Problem] = []
    warnings: list[Problem] = []
    for name in wanted:
        path = os.path.join(folder, name)
        try:
            path = _file(path)
            values[name], exposed = _value(path)
        except FileNotFoundError:
            continue  # Not there, or a mount was swapped since the look: then the watch will tell.
        except OSError as error:
            told = f"the secret cannot be read: {error.strerror}"
            errors.append(Problem(path, 0, "", told, "check the path and its permissions"))
        except _BadSecretError as bad:
            errors.append(Problem(path, 0, "", f"the secret {bad}", bad.mend))
        else:
            warnings += [Problem(path, 0, "", *_EXPOSED)] if exposed else []
    return Found(values, tuple(errors), tuple(warnings))


_EXPOSED = ("every user can read this secret", "take the right from others (chmod o-r, defaultMode: 0400)")


class _BadSecretError(Exception):
    """What is there is not the value of a header; says why, and how to mend it."""

    def __init__(self, message: str, mend: str = "") -> None:
        super().__init__(message)
        self.mend = mend


def _file(path: str) -> str:
    """The file that holds a secret; raises FileNotFoundError where its folder holds none (yet)."""
    if not os.path.isdir(path):
        return path
    keys = [name for name in os.listdir(path) if not name.startswith(".")]
    if not keys:
        raise FileNotFoundError
    if len(keys) > 1:
        raise _BadSecretError(f"has {len(keys)} keys", "keep one file in its folder")
    return os.path.join(path, keys[0])


def _value(path: str) -> tuple[bytes, bool]:
    """The value, and whether every user can read it."""
    with open(path, "rb", opener=_open) as file:
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise _BadSecretError("is not a file")
        value = file.read(MAX_HEADER_VALUE + 2).removesuffix(b"\n")
    if fault := value_fault(value):
        raise _BadSecretError(fault, "write the value alone, with at most one line feed after it")
    return value, bool(mode & stat.S_IROTH)


def _open(path: str, flags: int) -> int:
    """Open without waiting for the writer of a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)
