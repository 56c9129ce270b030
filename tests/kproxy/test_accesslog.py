"""The access log's line: any bytes give one valid line, and what it says is what happened."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kproxy.accesslog import Timestamps, quoted, quoted_text
from tests.kproxy.recorded import ALLOW, DENY, EGRESS, Head, Recorded

ODD = (
    b'"',
    b"\\",
    b"\x00",
    b"\x1b[31m",
    b"\n",
    b"\r\n",
    b"\x7f",
    b"\xff\xfe",
    b"\xe2\x80\xa8",
    b"\xed\xa0\x80",
    b"\xc2\x85",
    b"\xf0\x9f\xa6\x80",
    b"%s%b",
    b"</script>",
    b"",
)


@given(st.binary())
@example(b'"\\')
def test_any_bytes_become_one_ascii_string(value: bytes) -> None:
    """Whatever the bytes, the result is one JSON string of ASCII without controls."""
    text = quoted(value).decode("ascii")
    assert text.isprintable() or "\x7f" in text
    assert json.loads(text) == value.decode("utf-8", "backslashreplace")


@given(st.text(st.characters()))
def test_any_text_becomes_one_ascii_string(value: str) -> None:
    """A file name with half a surrogate pair, which Python makes of stray bytes, is written as well."""
    json.loads(quoted_text(value).decode("ascii"))


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("field", ["method", "path", "host"])
def test_odd_bytes_in_every_field(field: str, odd: bytes) -> None:
    """Quotes, controls, invalid UTF-8 and line separators in any field give one line that reads back."""
    recorded = Recorded()
    flow = recorded.observer.flow([EGRESS])
    head = Head()._replace(**{field: b"/a" + odd + b"b"})
    flow.request(head, ALLOW, 200, 1, 2, 3, 4)
    flow.refused("method", repr(odd), head, 400)
    for line in recorded.read():
        assert getattr(line, field) == (b"/a" + odd + b"b").decode("utf-8", "backslashreplace")


@given(st.binary(max_size=300), st.binary(max_size=300), st.binary(max_size=300), st.integers(1, 200))
def test_any_request_gives_one_bounded_line(method: bytes, path: bytes, host: bytes, bound: int) -> None:
    """Fields are cut at the bound, the line says so exactly then, and its length has a bound as well."""
    recorded = Recorded(bound)
    recorded.observer.flow([EGRESS]).request(Head(method, path, host), DENY, 403, 1, 2, 3, 4)
    (line,) = recorded.read()
    assert line.truncated == (max(len(method), len(path), len(host)) > bound)
    assert line.path == path[:bound].decode("utf-8", "backslashreplace")
    assert len(recorded.lines[0]) < 600 + 3 * 6 * bound


def test_long_path_makes_a_short_line() -> None:
    """A client that sends 60 KB paths does not make 60 KB lines."""
    recorded = Recorded()
    recorded.observer.flow([EGRESS]).request(Head(path=b"/" + b"a" * 60_000), ALLOW, 200, 1, 2, 3, 4)
    assert recorded.last().truncated
    assert len(recorded.lines[0]) < 3000


@given(
    st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)), st.lists(st.integers(0, 5_000_000), max_size=5)
)
def test_times(start: datetime, steps: list[int]) -> None:
    """Times are UTC with microseconds, also where seconds turn between two requests."""
    timestamps = Timestamps()
    moment = start.replace(tzinfo=UTC)
    for step in (0, *steps):
        moment += timedelta(microseconds=step)
        since = moment - datetime(1970, 1, 1, tzinfo=UTC)
        text = timestamps.text((since // timedelta(microseconds=1)) * 1000 + 999).decode()
        assert datetime.fromisoformat(text) == moment
        assert text.endswith("Z")
