"""Edited heads: which bytes change, which do not, and what may not stand beside an edited field."""

from __future__ import annotations

from typing import NamedTuple

import h11
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from reading import facts

from parsers.http1 import Limits, ParseError, RequestHead, RequestParser, edits
from parsers.http1 import request_head as requests

LIMITS = Limits()


class Edit(NamedTuple):
    """One change."""

    op: str
    name: bytes
    value: bytes = b""


ADD, DELETE, REPLACE = Edit("add", b"x-a", b"new"), Edit("delete", b"x-a"), Edit("replace", b"x-a", b"new")
LOG = Edit("log", b"x-a", b"new")

HEAD = b"GET /p HTTP/1.1\r\nHost: a\r\n%b\r\n"

EDITED = {
    "add behind the others": ([ADD], b"B: 1\r\n", b"B: 1\r\nx-a: new\r\n"),
    "add leaves what was sent": ([ADD], b"X-A:old\r\nB: 1\r\n", b"X-A:old\r\nB: 1\r\nx-a: new\r\n"),
    "add where there was nothing": ([ADD], b"", b"x-a: new\r\n"),
    "delete all of that name": ([DELETE], b"x-A: 1\r\nB:\t2 \r\nX-a:3\r\n", b"B:\t2 \r\n"),
    "delete no other name": ([DELETE], b"X-Ab: 1\r\nY: X-A: 1\r\n", b"X-Ab: 1\r\nY: X-A: 1\r\n"),
    "delete what is not there": ([DELETE], b"b:1\r\n", b"b:1\r\n"),
    "replace in place": ([REPLACE], b"B: 1\r\nX-A: 2\r\nC: 3\r\n", b"B: 1\r\nx-a: new\r\nC: 3\r\n"),
    "replace all by one": ([REPLACE], b"X-A: 2\r\nC: 3\r\nx-a: 4\r\n", b"x-a: new\r\nC: 3\r\n"),
    "replace where there was none": ([REPLACE], b"B: 1\r\n", b"B: 1\r\nx-a: new\r\n"),
    "log changes nothing": ([LOG], b"X-A:  2\t\r\n", b"X-A:  2\t\r\n"),
    "edits in turn": ([ADD, DELETE, ADD], b"X-A: 2\r\n", b"x-a: new\r\n"),
    "add, then replace": ([ADD, REPLACE], b"B: 1\r\n", b"B: 1\r\nx-a: new\r\n"),
    "other bytes stay": ([DELETE], b"b:\xff \t1\r\nC:\r\nX-A: 2\r\n", b"b:\xff \t1\r\nC:\r\n"),
}


def head_of(raw: bytes) -> RequestHead:
    """The head that the parser reads."""
    return requests.read_request_head(raw, LIMITS)


@pytest.mark.parametrize("name", EDITED)
def test_edits(name: str) -> None:
    """Only lines of the edited name change; the others keep their bytes and their order."""
    made, before, after = EDITED[name]
    assert edits.edited(head_of(HEAD % before), made, LIMITS) == HEAD % after


def test_a_head_without_fields() -> None:
    """HTTP/1.0 needs no field at all: the first one is put in."""
    head = head_of(b"GET / HTTP/1.0\r\n\r\n")
    assert edits.edited(head, [ADD], LIMITS) == b"GET / HTTP/1.0\r\nx-a: new\r\n\r\n"


def test_an_edit_that_is_not_known_is_none() -> None:
    """An operation that nobody knows is an error, not a request that passes unedited."""
    with pytest.raises(ValueError, match="no header edit is called rename"):
        edits.edited(head_of(HEAD % b""), [Edit("rename", b"x-a")], LIMITS)


@pytest.mark.parametrize(
    ("limits", "reason"), [(Limits(max_head=256), "limit_head"), (Limits(max_fields=4), "limit_fields")]
)
def test_limits_hold_after_edits(limits: Limits, reason: str) -> None:
    """A head at its limit that an edit makes longer is refused, and the value is in no message."""
    fields = [Edit("add", b"x-%d" % i, b"s3cret" + b"v" * 70) for i in range(4)]
    head = head_of(HEAD % b"")
    assert edits.edited(head, fields[:2], limits)
    with pytest.raises(ParseError) as refused:
        edits.edited(head, fields, limits)
    assert refused.value.reason == reason
    assert "s3cret" not in f"{refused.value!r} {refused.value.detail}"


REFUSED = [
    (b"X_User: admin\r\n", "edit_look_alike"),
    (b"x.user: admin\r\n", "edit_look_alike"),
    (b"x-user: 1\r\nX_USER: admin\r\n", "edit_look_alike"),
    (b"Connection: X-User\r\n", "connection_option"),
    (b"Connection: close, x-uSer\r\n", "connection_option"),
    (b"Connection: keep-alive\r\nConnection: x_user\r\n", "connection_option"),
    (b"X-User: 1\r\nX-Users: 2\r\nConnection: close\r\n", ""),
    (b"Connection: x-other\r\n", ""),
]


@pytest.mark.parametrize(("fields", "reason"), REFUSED)
def test_what_may_not_stand_beside_an_edited_field(fields: bytes, reason: str) -> None:
    """What a server could take for the edited field, or what would have it dropped on the way."""
    head = head_of(HEAD % fields)
    if not reason:
        edits.check_head(head, frozenset((b"x-user",)))
        return
    with pytest.raises(ParseError) as refused:
        edits.check_head(head, frozenset((b"x-user", b"x-b")))
    assert refused.value.reason == reason


@pytest.mark.parametrize("name", [b"x-user", b"x_user", b"x.user"])
def test_a_trailer_may_not_stand_for_an_edited_field(name: bytes) -> None:
    """Nor may one that servers take for it."""
    with pytest.raises(ParseError) as refused:
        edits.check_trailers([b"other", name], frozenset((b"x-user",)))
    assert refused.value.reason == "trailer_field"


def test_other_trailers_pass() -> None:
    """Names that only begin alike are others."""
    edits.check_trailers([b"x-user2", b"etag"], frozenset((b"x-user",)))


NAMES = st.sampled_from(
    [b"x", b"user-agent", b"etag", b"cookie", b"x-new", b"cache-control", b"content-type"]
)
VALUES = st.from_regex(rb"[!-~]([ \t!-~]{0,20}[!-~])?", fullmatch=True)
EDITS = st.lists(
    st.builds(Edit, st.sampled_from(["add", "delete", "replace", "log"]), NAMES, VALUES), max_size=6
)
BLANKS = st.sampled_from([b"", b" ", b"\t ", b"  "])
ANY_CASE = st.builds(
    lambda name, change: getattr(name, change)(), NAMES, st.sampled_from(["lower", "title", "upper"])
)
PLAIN = st.builds(
    lambda *parts: b"%b:%b%b%b" % parts, ANY_CASE, BLANKS, st.one_of(VALUES, st.just(b"")), BLANKS
)
FRAMES = st.sampled_from(
    [
        [],
        [b"Content-Length: 5"],
        [b"content-length:5", b"Expect: 100-continue"],
        [b"Transfer-Encoding: chunked", b"Connection: close"],
        [b"Connection: Upgrade, keep-alive", b"Upgrade: websocket"],
        [b"TE: trailers", b"Connection: te", b"Connection: close"],
        [b"Connection: x-new"],
    ]
)
TARGETS = st.sampled_from([b"/", b"/a?b=c", b"http://a/x"])


@st.composite
def heads(draw: st.DrawFn) -> RequestHead:
    """A head that is read with certainty, plain or not."""
    lines = draw(st.permutations([b"Host: a", *draw(FRAMES), *draw(st.lists(PLAIN, max_size=6))]))
    raw = b"\r\n".join([b"POST %b HTTP/1.1" % draw(TARGETS), *lines, b"", b""])
    named = b"Connection: x-new" in lines and any(line.lower().startswith(b"x-new:") for line in lines)
    assume(not named)
    return head_of(raw)


def after(fields: list[tuple[bytes, bytes]], edit: Edit) -> list[tuple[bytes, bytes]]:
    """What an edit means, said another way: values by name."""
    own = [pair for pair in fields if pair[0] == edit.name]
    others = [pair for pair in fields if pair[0] != edit.name]
    added = [(edit.name, edit.value)]
    made = {"log": own, "add": own + added, "delete": [], "replace": added}[edit.op]
    return others + made


@given(heads(), EDITS)
def test_an_edited_head_is_the_same_request(head: RequestHead, made: list[Edit]) -> None:
    """Our parser, fast and slow, and h11 read in it the request that was judged, but for the edited fields."""
    new = edits.edited(head, made, LIMITS)
    try:
        edits.check_head(head, frozenset(edit.name for edit in made))
    except ParseError:
        return
    expected = list(head.headers)
    for edit in made:
        expected = after(expected, edit)
    parser = RequestParser(LIMITS)
    parser.receive(new)
    for ours in (head_of(new), parser.next_event()):
        assert isinstance(ours, RequestHead)
        assert sorted(ours.headers) == sorted(expected)
        same = {name for name, fact in facts(ours).items() if fact == getattr(head, name)}
        assert same >= facts(ours).keys() - {"raw", "headers"}
    reader = h11.Connection(h11.SERVER)
    reader.receive_data(new)
    event = reader.next_event()
    assert isinstance(event, h11.Request)
    assert (event.method, event.target, sorted(event.headers)) == (head.method, head.target, sorted(expected))


@given(heads(), EDITS)
def test_lines_that_are_not_edited_keep_their_bytes(head: RequestHead, made: list[Edit]) -> None:
    """The lines of other names are the original ones, in their order; so is the request line."""
    names = {edit.name for edit in made if edit.op != "log"}

    def others(raw: bytes) -> list[bytes]:
        first, *lines = raw.split(b"\r\n")
        return [first, *(line for line in lines if line.partition(b":")[0].lower() not in names)]

    assert others(edits.edited(head, made, LIMITS)) == others(head.raw)
