"""Reading the files that people write."""

from __future__ import annotations

from pathlib import Path

from kproxy.errors import FileError, Problem

MAX_FILE_BYTES = 64 * 1024 * 1024
"""Longest file that is read: 100,000 endpoints of 300 bytes are 30 MB."""


def read_text(path: str | Path) -> str:
    """Read a file of UTF-8 text; raises FileError where that cannot be."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        told = f"cannot be read: {error.strerror or error}"
        raise FileError([Problem(str(path), 0, "", told, "check the path and its permissions")]) from error
    if len(data) > MAX_FILE_BYTES:
        raise FileError([Problem(str(path), 0, "", f"longer than {MAX_FILE_BYTES} bytes", "split it")])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FileError([Problem(str(path), line, "", "not UTF-8", "save the file as UTF-8")]) from error
