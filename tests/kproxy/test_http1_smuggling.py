"""Whatever is sent, however it is cut: the server sees exactly the requests that were judged and allowed."""

from __future__ import annotations

import random
from typing import Any

import h11
from hypothesis import given, settings
from hypothesis import strategies as st
from story import ALLOW, DENY, Recorder, Story, Verdict

from kproxy.http1 import Http1Flow, HttpOptions
from parsers.http1 import RequestHead

HEAD = b"%s /%d HTTP/1.1\r\nHost: a\r\n%s\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"

# Each way to send a request, and some that try to send another with it.
SHAPES: list[Any] = [
    lambda n: HEAD % (b"GET", n, b""),
    lambda n: b"\r\n" + HEAD % (b"GET", n, b"Accept: */*\r\n"),
    lambda n: HEAD % (b"HEAD", n, b""),
    lambda n: HEAD % (b"POST", n, b"Content-Length: %d\r\n" % len(SMUGGLED)) + SMUGGLED,
    lambda n: HEAD % (b"POST", n, b"Content-Length: 0\r\n"),
    lambda n: (
        HEAD % (b"PUT", n, b"Transfer-Encoding: chunked\r\n") + b"4;x=y\r\n\r\n\r\n\r\n0\r\nA: b\r\n\r\n"
    ),
    lambda n: (
        HEAD % (b"PUT", n, b"Transfer-Encoding: chunked\r\n")
        + b"%x\r\n%s\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)
    ),
    lambda n: HEAD % (b"POST", n, b"Expect: 100-continue\r\nContent-Length: 3\r\n") + b"abc",
    lambda n: HEAD % (b"GET", n, b"Connection: close\r\n"),
    lambda n: HEAD % (b"GET", n, b"Connection: Upgrade\r\nUpgrade: websocket\r\n"),
    lambda n: b"GET http://a/%d HTTP/1.1\r\nHost: a\r\n\r\n" % n,
    # attacks
    lambda n: (
        HEAD % (b"POST", n, b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n") + b"0\r\n\r\n" + SMUGGLED
    ),
    lambda n: (
        HEAD % (b"POST", n, b"Transfer-Encoding: xchunked\r\nContent-Length: 5\r\n") + b"0\r\n\r\n" + SMUGGLED
    ),
    lambda n: HEAD % (b"POST", n, b"Transfer-Encoding:\x0bchunked\r\n") + b"0\r\n\r\n" + SMUGGLED,
    lambda n: HEAD % (b"POST", n, b"Content-Length: 0\r\nContent-Length: 37\r\n") + SMUGGLED,
    lambda n: HEAD % (b"GET", n, b"X: y\n\r\n" + SMUGGLED),
    lambda n: (
        HEAD % (b"POST", n, b"Transfer-Encoding: chunked\r\n") + b"3;\nxx\r\nabc\r\n0\r\n\r\n" + SMUGGLED
    ),
    lambda n: (
        HEAD % (b"POST", n, b"Transfer-Encoding: chunked\r\n") + b"0\r\nContent-Length: 9\r\n\r\n" + SMUGGLED
    ),
]
RESPONSES = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\nuntil close",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
]


class Judge:
    """Allows what the test says, and notes what it was asked, and how much had been sent on by then."""

    def __init__(self, denied: set[int], wire: Recorder) -> None:
        self._denied = denied
        self._wire = wire
        self.allowed: list[RequestHead] = []
        self.sent_before: list[int] = []

    def __call__(self, head: RequestHead) -> Verdict:
        """Deny those whose number is among the denied."""
        if int(head.path[1:]) in self._denied:
            return DENY
        self.allowed.append(head)
        self.sent_before.append(len(self._wire.upstream))
        return ALLOW


def play(stream: bytes, answers: list[bytes], denied: set[int], seed: int) -> tuple[Recorder, Judge]:
    """Send the client's stream and the server's answers in pieces of any size, in any order."""
    dice = random.Random(seed)
    wire = Recorder()
    judge = Judge(denied, wire)
    flow = Http1Flow(wire, judge, wire, HttpOptions(), iter(range(1, 10**6)).__next__)
    replies = b"".join(answers)
    while stream or replies:
        size = dice.choice([1, 3, 20, 1000])
        # The server speaks only once it has been asked something.
        if replies and wire.upstream and (not stream or dice.random() < 0.5):
            flow.upstream_data(replies[:size])
            replies = replies[size:]
        elif stream:
            flow.downstream_data(stream[:size])
            stream = stream[size:]
        else:
            break
        if any(kind in ("close", "abort") for kind, _, _ in wire.effects):
            break
    return wire, judge


def seen_by_h11(stream: bytes) -> list[tuple[bytes, bytes]]:
    """The method and target of each request that an h11 server reads in a stream, complete or not."""
    seen: list[tuple[bytes, bytes]] = []
    server = h11.Connection(h11.SERVER)
    server.receive_data(stream)
    while True:
        event = server.next_event()
        if isinstance(event, h11.Request):
            seen.append((event.method, event.target))
        elif isinstance(event, h11.EndOfMessage):
            if server.their_state not in (h11.DONE, h11.MIGHT_SWITCH_PROTOCOL):
                return seen
            server.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
            server.send(h11.EndOfMessage())
            server.start_next_cycle()
        elif not isinstance(event, h11.Data):
            return seen


@given(
    shapes=st.lists(st.sampled_from(SHAPES), min_size=1, max_size=6),
    answers=st.lists(st.sampled_from(RESPONSES), max_size=6),
    denied=st.sets(st.integers(0, 5)),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=800)
def test_the_server_sees_what_was_judged(
    shapes: list[Any], answers: list[bytes], denied: set[int], seed: int
) -> None:
    """The upstream stream is the allowed requests' own bytes, in order, none before its verdict, and no more.

    An independent reader of that stream finds exactly the allowed requests in it.
    """
    raws = [shape(number) for number, shape in enumerate(shapes)]
    wire, judge = play(b"".join(raws), answers, denied, seed)
    upstream = bytes(wire.upstream)
    at = 0
    for head, sent_before in zip(judge.allowed, judge.sent_before, strict=True):
        assert sent_before == at, (
            "bytes were sent before the verdict, or before the previous request was whole"
        )
        raw = raws[int(head.path[1:])].removeprefix(b"\r\n")
        assert raw.startswith(head.raw)
        part = upstream[at : at + len(raw)]
        assert raw.startswith(part)
        assert part.startswith(head.raw)
        at += len(part)
    assert at == len(upstream)
    assert seen_by_h11(upstream) == [(head.method, head.target) for head in judge.allowed]


@given(
    client=st.lists(
        st.one_of(st.binary(max_size=30), st.sampled_from([b"", *[s(1) for s in SHAPES]])), max_size=5
    ),
    server=st.lists(st.one_of(st.binary(max_size=30), st.sampled_from([b"", *RESPONSES])), max_size=5),
    order=st.lists(st.sampled_from("cs"), max_size=10),
)
@settings(max_examples=500)
def test_any_bytes_in_any_order_do_no_harm(
    client: list[bytes], server: list[bytes], order: list[str]
) -> None:
    """Nothing raises, nothing is sent after an end, and once closed the flow stays closed; b"" is an end."""
    story = Story(lambda _: ALLOW)
    flow = story.flow
    for whose in order:
        queue = client if whose == "c" else server
        if not queue:
            continue
        data = queue.pop(0)
        if whose == "c":
            (flow.downstream_data(data) if data else flow.downstream_eof())
        else:
            (flow.upstream_data(data) if data else flow.upstream_eof())
        if not data:
            queue.clear()
    kinds = [(kind, what) for kind, what, _ in story.wire.effects]
    for side in (">client", ">server"):
        after = kinds[kinds.index((side, "END")) + 1 :] if (side, "END") in kinds else []
        assert (side, "") not in after, kinds
    assert sum(kind in ("close", "abort") for kind, _ in kinds) <= 1
    over = next((i for i, (kind, _) in enumerate(kinds) if kind in ("close", "abort")), len(kinds))
    assert all(kind in ("log", "refused") for kind, _ in kinds[over + 1 :]), kinds
