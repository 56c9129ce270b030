"""What kproxy says of itself on standard error: one line an event, with named fields.

    2026-01-02T03:04:05.678Z info  policy in force revision=7 rules=12

It is the standard library's logging, so that what other packages log arrives in the same form.  Lines go through
a bounded queue (`kproxy.lines`): a terminal that is held up holds up no traffic.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

QUEUE_BYTES = 1024 * 1024
"""Most log bytes that wait for standard error; there are a few lines an hour where all is well."""

_PLAIN = re.compile(r"[!#-<>-~]+")


class Logger:
    """A logger whose messages are constant and whose fields carry what varies."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, **fields: object) -> None:
        """Log what only a developer asks for."""
        self._logger.debug(event, extra={"fields": fields})

    def info(self, event: str, **fields: object) -> None:
        """Log what an operator may want to know later."""
        self._logger.info(event, extra={"fields": fields})

    def warning(self, event: str, **fields: object) -> None:
        """Log what an operator should look at."""
        self._logger.warning(event, extra={"fields": fields})

    def error(self, event: str, **fields: object) -> None:
        """Log what an operator must mend."""
        self._logger.error(event, extra={"fields": fields})

    def exception(self, event: str, **fields: object) -> None:
        """Log a defect with the traceback of the exception at hand."""
        self._logger.exception(event, extra={"fields": fields})


def logger(name: str) -> Logger:
    """Give the logger of a module."""
    return Logger(name)


def setup(level: str, form: str, write: Callable[[bytes], None]) -> None:
    """Send every record of at least `level` to `write` as lines in the form `text` or `json`."""
    handler = _LineHandler(write)
    handler.setFormatter(_JsonFormatter() if form == "json" else _TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


class _LineHandler(logging.Handler):
    """Hands formatted lines on."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        super().__init__()
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        """Format and hand on one record."""
        self._write(self.format(record).encode("utf-8", "backslashreplace") + b"\n")


class _TextFormatter(logging.Formatter):
    """A line for people."""

    def format(self, record: logging.LogRecord) -> str:
        """Write time, level, message and fields; a traceback follows on lines of its own."""
        fields = "".join(f" {name}={_value(value)}" for name, value in _fields(record).items())
        line = f"{_time(record)} {record.levelname.lower():7} {_one_line(record.getMessage())}{fields}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _JsonFormatter(logging.Formatter):
    """A JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Write all of a record; a field that is not JSON is written as its text."""
        content: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            content["traceback"] = self.formatException(record.exc_info)
        return json.dumps(content, default=str)


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    fields: Mapping[str, object] = getattr(record, "fields", {})
    return fields


def _time(record: logging.LogRecord) -> str:
    second, thousandth = divmod(int(record.created * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(second))}.{thousandth:03d}Z"


def _one_line(text: str) -> str:
    """Escape what could begin a line of its own or steer a terminal."""
    return text if text.isprintable() else json.dumps(text)[1:-1]


def _value(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
