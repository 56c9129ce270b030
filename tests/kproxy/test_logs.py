"""The node's own log: one line an event, for people or for programs."""

from __future__ import annotations

import json
import logging
import re

import pytest

from kproxy import logs
from kproxy.logs import logger

Lines = list[bytes]


@pytest.fixture
def lines() -> Lines:
    """Collect what is logged."""
    return []


def test_a_line_for_people(lines: Lines) -> None:
    """Time, level, what happened, and fields by name; odd values are quoted."""
    logs.setup("info", "text", lines.append)
    logger("kproxy.x").warning("namespace is gone", endpoint="hr/jobs", path="/run/a b", count=3)
    (line,) = lines
    pattern = (
        rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z warning namespace is gone"
        rb' endpoint=hr/jobs path="/run/a b" count=3\n'
    )
    assert re.fullmatch(pattern, line)


@pytest.mark.parametrize("odd", ["a\nb", "\x1b[31m", "a=b", 'say "x"', "", "\u2028", "\udcff"])
def test_no_value_begins_a_line_or_steers_a_terminal(lines: Lines, odd: str) -> None:
    """A value with controls, spaces or quotes stands escaped on the same line."""
    logs.setup("info", "text", lines.append)
    logger("x").info("seen", value=odd)
    logger("x").info(odd)
    for line in lines:
        text = line.decode()
        assert text[:-1].isprintable()
        assert len(text.splitlines()) == 1


def test_lines_for_programs(lines: Lines) -> None:
    """As JSON, each line is an object with the fields beside time, level, logger and message."""
    logs.setup("debug", "json", lines.append)
    logger("kproxy.x").debug("seen", paths=["a"], error=OSError("x"))
    told = json.loads(lines[0])
    assert (told["level"], told["logger"], told["message"]) == ("debug", "kproxy.x", "seen")
    assert (told["paths"], told["error"]) == (["a"], "x")


def test_level(lines: Lines) -> None:
    """Only what is at least as severe as the level is shown."""
    logs.setup("warning", "text", lines.append)
    for say in ("debug", "info", "warning", "error"):
        getattr(logger("x"), say)("said")
    assert [line.split()[1] for line in lines] == [b"warning", b"error"]


@pytest.mark.parametrize("form", ["text", "json"])
def test_defects_have_a_traceback(lines: Lines, form: str) -> None:
    """An exception that no one expected is shown with where it came from."""
    logs.setup("info", form, lines.append)
    try:
        raise ZeroDivisionError("told")
    except ZeroDivisionError:
        logger("x").exception("defect")
    assert b"ZeroDivisionError: told" in lines[0]
    assert b"test_logs.py" in lines[0]


def test_other_packages_logs_come_in_the_same_form(lines: Lines) -> None:
    """What the standard library logs, such as a forgotten task's exception, is not lost."""
    logs.setup("info", "text", lines.append)
    logging.getLogger("asyncio").error("Task exception was %s", "never retrieved")
    assert b"error   Task exception was never retrieved\n" in lines[0]
