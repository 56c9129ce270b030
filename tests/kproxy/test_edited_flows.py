"""Flows whose rules edit headers, as stories: what reaches the server, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from story import Story, Verdict, to_bytes

from kproxy.http1 import HttpOptions
from parsers.http1 import Limits, RequestHead
from policy import HeaderEdit

ADD = HeaderEdit("add", b"x-token", b"s3cret")
REPLACE = HeaderEdit("replace", b"x-user", b"alice")
DELETE = HeaderEdit("delete", b"x-role", b"")
LOG = HeaderEdit("log", b"x-trace", b"s3cret")
GUARDED = frozenset((b"x-token", b"x-user", b"x-role"))
EDITS = {b"/all": (ADD, REPLACE, DELETE, LOG), b"/add": (ADD,), b"/log": (LOG,)}


def editing(head: RequestHead) -> Verdict:
    """Allow all but /no, with the edits of the path; every header that is edited somewhere is guarded."""
    if head.path == b"/no":
        return Verdict("deny", False, guarded=GUARDED)
    return Verdict(edits=EDITS.get(head.path, ()), guarded=GUARDED)


STORIES = {
    "all edits, and nothing else": """
        client  GET /all HTTP/1.1¶host:a¶X-User: bob¶A:  1 ¶X-ROLE: admin¶X-User: eve¶¶
        >server GET /all HTTP/1.1¶host:a¶x-user: alice¶A:  1 ¶x-token: s3cret¶¶
        server  {ok}
        >client {ok}
        log     allow 200 /all
    """,
    "log changes nothing": """
        client  GET /log HTTP/1.1¶Host: a¶X-Trace:  x¶¶
        >server GET /log HTTP/1.1¶Host: a¶X-Trace:  x¶¶
    """,
    "a body in the same segment, and more of it": """
        client  POST /add HTTP/1.1¶Content-Length: 4¶Host: a¶¶da
        >server POST /add HTTP/1.1¶Content-Length: 4¶Host: a¶x-token: s3cret¶¶da
        client  ta
        >server ta
        server  {ok}
        >client {ok}
        log     allow 200 /add
    """,
    "pipelined requests are edited each at its turn": """
        client  GET /add HTTP/1.1¶Host: a¶¶{get}POST /add HTTP/1.1¶Host: a¶Content-Length: 1¶¶x
        >server GET /add HTTP/1.1¶Host: a¶x-token: s3cret¶¶
        server  {ok}
        >client {ok}
        log     allow 200 /add
        >server {get}
        server  {ok}
        >client {ok}
        log     allow 200 /jobs/1
        >server POST /add HTTP/1.1¶Host: a¶Content-Length: 1¶x-token: s3cret¶¶x
        server  {ok}
        >client {ok}
        log     allow 200 /add
    """,
    "HEAD": """
        client  HEAD /add HTTP/1.1¶Host: a¶¶
        >server HEAD /add HTTP/1.1¶Host: a¶x-token: s3cret¶¶
        server  HTTP/1.1 200 OK¶Content-Length: 5¶¶
        >client HTTP/1.1 200 OK¶Content-Length: 5¶¶
        log     allow 200 /add
    """,
    "HTTP/1.0 without a field": """
        client  GET /add HTTP/1.0¶¶
        >server GET /add HTTP/1.0¶x-token: s3cret¶¶
    """,
    "absolute form": """
        client  GET http://a/add HTTP/1.1¶Host: a¶¶
        >server GET http://a/add HTTP/1.1¶Host: a¶x-token: s3cret¶¶
    """,
    "100-continue: the body that comes after it is sent on": """
        client  PUT /add HTTP/1.1¶Host: a¶Expect: 100-continue¶Content-Length: 4¶¶
        >server PUT /add HTTP/1.1¶Host: a¶Expect: 100-continue¶Content-Length: 4¶x-token: s3cret¶¶
        server  {100}
        >client {100}
        client  data
        >server data
        server  {ok}
        >client {ok}
        log     allow 200 /add
    """,
    "100-continue: a server that answers instead gets no body": """
        client  PUT /add HTTP/1.1¶Host: a¶Expect: 100-continue¶Content-Length: 4¶¶
        >server PUT /add HTTP/1.1¶Host: a¶Expect: 100-continue¶Content-Length: 4¶x-token: s3cret¶¶
        server  {ok}
        >client {ok}
        log     allow 200 /add
        >server END
        >client END
        client  data
    """,
    "100-continue: part of the body came with the head": """
        client  PUT /add HTTP/1.1¶Host: a¶Expect: 100-continue¶Content-Length: 4¶¶d
        >server PUT /add HTTP/1.1¶Host: a¶Expect: 100-continue¶Content-Length: 4¶x-token: s3cret¶¶d
        server  {ok}
        >client {ok}
        client  ata
        >server ata
        log     allow 200 /add
    """,
    "an upgrade": """
        client  GET /add HTTP/1.1¶Host: a¶Connection: Upgrade¶Upgrade: websocket¶¶
        >server GET /add HTTP/1.1¶Host: a¶Connection: Upgrade¶Upgrade: websocket¶x-token: s3cret¶¶
        server  {101}
        >client {101}
        log     allow 101 /add
        client  X-User: bob
        >server X-User: bob
    """,
    "a chunked body with a harmless trailer": """
        client  POST /add HTTP/1.1¶Host: a¶Transfer-Encoding: chunked¶¶1¶x¶
        >server POST /add HTTP/1.1¶Host: a¶Transfer-Encoding: chunked¶x-token: s3cret¶¶1¶x¶
        client  0¶Sum: 1¶¶
        >server 0¶Sum: 1¶¶
    """,
    "a denied request is not looked at for what it may not have": """
        client  GET /no HTTP/1.1¶Host: a¶X_User: admin¶¶
        >client {403}
        log     deny 403 /no
    """,
    # --- what would undo or evade an edit
    "a look-alike is refused also where no edit is needed": """
        client  GET /log HTTP/1.1¶Host: a¶X_User: admin¶¶
        >client HTTP/1.1 400 …
        refused edit_look_alike 400
        >server END
        >client END
    """,
    "Connection may not have the added field dropped": """
        client  GET /add HTTP/1.1¶Host: a¶Connection: x-token¶¶
        >client HTTP/1.1 400 …
        refused connection_option 400
        >server END
        >client END
    """,
    "a trailer may not stand for it: all at once": """
        client  POST /add HTTP/1.1¶Host: a¶Transfer-Encoding: chunked¶¶0¶X_User: admin¶¶
        >client HTTP/1.1 400 …
        refused trailer_field 400
        >server END
        >client END
    """,
    "a trailer may not stand for it: after a part was sent on": """
        client  POST /add HTTP/1.1¶Host: a¶Transfer-Encoding: chunked¶¶1¶x¶
        >server POST /add HTTP/1.1¶Host: a¶Transfer-Encoding: chunked¶x-token: s3cret¶¶1¶x¶
        client  0¶X-User: admin¶¶
        abort   trailer_field
        refused trailer_field 0
    """,
    "TRACE would hand the client what a rule puts in": """
        client  TRACE /add HTTP/1.1¶Host: a¶¶
        >client HTTP/1.1 400 …
        refused edit_trace 400
        >server END
        >client END
    """,
    "requests before the refused one are answered": """
        client  {get}GET /add HTTP/1.1¶Host: a¶X-User_: 1¶X.Token: 1¶¶
        >server {get}
        server  {ok}
        >client {ok}
        log     allow 200 /jobs/1
        >client HTTP/1.1 400 …
        refused edit_look_alike 400
        >server END
        >client END
    """,
}


@pytest.mark.parametrize("name", STORIES)
def test_stories(name: str) -> None:
    """Each happening has exactly the effects that the story tells."""
    Story(editing).tell(STORIES[name])


REQUEST = "POST /all HTTP/1.1¶Host: a¶X-Role: admin¶Transfer-Encoding: chunked¶¶5¶hello¶0¶Sum: 1¶¶"
SENT_ON = (
    "POST /all HTTP/1.1¶Host: a¶Transfer-Encoding: chunked¶x-user: alice¶x-token: s3cret¶¶5¶hello¶0¶Sum: 1¶¶"
)


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_edits_do_not_depend_on_how_requests_are_cut(size: int) -> None:
    """Whole, byte by byte and with the next request behind it, the server gets the same bytes."""
    story = Story(lambda head: Verdict(edits=(ADD, REPLACE, DELETE), guarded=GUARDED))
    # What the edits of /all make of this: the field that is added last stands last.
    stream = to_bytes(REQUEST) + to_bytes("{get}")
    for at in range(0, len(stream), size):
        story.flow.downstream_data(stream[at : at + size])
    expected = to_bytes(SENT_ON.replace("x-user: alice¶x-token: s3cret", "x-token: s3cret¶x-user: alice"))
    assert bytes(story.wire.upstream) == expected
    story.flow.upstream_data(to_bytes("{ok}"))
    assert bytes(story.wire.upstream) == expected + to_bytes(
        "GET /jobs/1 HTTP/1.1¶Host: a¶x-token: s3cret¶x-user: alice¶¶"
    )


def test_sizes_are_those_that_the_client_sent() -> None:
    """The log counts what came from the client, not what an edit made of it."""
    story = Story(editing)
    request = to_bytes("POST /all HTTP/1.1¶Host: a¶Content-Length: 4¶¶data")
    story.flow.downstream_data(request)
    story.flow.upstream_data(to_bytes("{ok}"))
    assert len(story.wire.upstream) > len(request)
    assert story.wire.bytes_in == len(request)


@pytest.mark.parametrize(
    ("limits", "reason"), [(Limits(max_head=256), "limit_head"), (Limits(max_fields=4), "limit_fields")]
)
def test_a_head_that_edits_make_too_large_is_refused(limits: Limits, reason: str) -> None:
    """By name, and the server sees nothing of it."""
    edits = tuple(HeaderEdit("add", b"x-token", b"v" * 70) for _ in range(4))
    story = Story(lambda head: Verdict(edits=edits, guarded=GUARDED), HttpOptions(parse=limits))
    story.tell(f"""
        client  GET /add HTTP/1.1¶Host: a¶¶
        >client HTTP/1.1 431 …
        refused {reason} 431
        >server END
        >client END
    """)


def test_requests_without_edits_are_not_copied() -> None:
    """What no rule edits is sent on as the very object that arrived."""
    sent: list[Any] = []
    story = Story()
    story.wire.send_upstream = sent.append  # type: ignore[method-assign]
    data = to_bytes("{get}")
    story.flow.downstream_data(data)
    assert sent[0] is data
