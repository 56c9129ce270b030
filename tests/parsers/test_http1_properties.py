"""Properties of the HTTP/1.1 parsers, over generated messages, mutations of them, and any bytes."""

from __future__ import annotations

import re
from itertools import pairwise

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reading import facts, read_requests, read_responses

from parsers.http1 import CHUNKED, UNTIL_CLOSE, Limits, ParseError, RequestHead, ResponseHead
from parsers.http1 import request_head as requests
from parsers.http1 import response_head as responses
from parsers.http1.paths import AMBIGUITIES, path_ambiguity

LIMITS = Limits()

# Words that mean something to somebody, good and bad, so that generated heads come near the edges.
METHODS = st.sampled_from(
    [b"GET", b"POST", b"HEAD", b"TRACE", b"OPTIONS", b"CONNECT", b"get", b"M-SEARCH", b"PRI"]
)
TARGETS = st.sampled_from(
    [b"/", b"/a?b", b"*", b"http://a/x", b"http://b", b"/a#b", b"//", b"/%2e", b"a", b"/\xe9"]
)
VERSIONS = st.sampled_from([b"HTTP/1.1"] * 6 + [b"HTTP/1.0", b"HTTP/2.0", b"http/1.1"])
NAMES = st.sampled_from(
    [
        b"Host",
        b"host",
        b"Content-Length",
        b"content-length",
        b"Content_Length",
        b"Content-Type",
        b"Content-Language",
        b"Transfer-Encoding",
        b"TE",
        b"Connection",
        b"Upgrade",
        b"Expect",
        b"HTTP2-Settings",
        b"User-Agent",
        b"Cookie",
        b"X",
        b"ETag",
        b"Trailer",
        b"Hosts",
        b"Conn",
        b"transfer.encoding",
        b"Cache-Control",
        b"x y",
        b"",
        b"\x80",
    ]
)
VALUES = st.one_of(
    st.sampled_from(
        [
            b"a",
            b"A:80",
            b"a..b",
            b"[::1]",
            b"5",
            b"0",
            b"05",
            b"5, 5",
            b"+5",
            b"chunked",
            b"Chunked",
            b"gzip",
            b"close",
            b"keep-alive",
            b"Upgrade",
            b"close, x",
            b"websocket",
            b"h2c",
            b"100-continue",
            b"",
            b"a:70000",
            b"9" * 18,
            b"9" * 19,
            b"a:65535",
            b"\xff",
            b"x\x01",
            b"\x7f",
        ]
    ),
    st.binary(max_size=6),
)
SPACES = st.sampled_from([b"", b" ", b"\t", b"  "])
FIELDS = st.builds(lambda name, a, value, b: name + b":" + a + value + b, NAMES, SPACES, VALUES, SPACES)
BREAKS = st.sampled_from([b"\r\n"] * 30 + [b"\n", b"\r", b"\r\r\n", b"\r\n "])


@st.composite
def heads(draw: st.DrawFn, first: st.SearchStrategy[bytes]) -> bytes:
    """A head of a first line and fields that may or may not be good ones."""
    lines = [draw(first), *draw(st.lists(st.one_of(st.just(b"Host: a"), FIELDS), max_size=6))]
    return b"".join(line + draw(BREAKS) for line in lines) + b"\r\n"


REQUEST_LINES = st.builds(lambda *words: b" ".join(words), METHODS, TARGETS, VERSIONS)
STATUS_LINES = st.sampled_from(
    [b"HTTP/1.1 200 OK"] * 4
    + [
        b"HTTP/1.1 204 No Content",
        b"HTTP/1.1 304 x",
        b"HTTP/1.0 200 OK",
        b"HTTP/1.1 101 x",
        b"HTTP/1.1 404",
        b"HTTP/1.1 20 x",
    ]
)
REQUEST_HEADS = heads(REQUEST_LINES)
RESPONSE_HEADS = heads(STATUS_LINES)


def on_the_fast_path(raw: bytes) -> RequestHead | None:
    """What the strict regex alone makes of a whole head."""
    match = requests.fast_matcher(LIMITS)(raw, 0)
    return requests.from_match(match, raw) if match is not None and match[0] == raw else None


@given(REQUEST_HEADS)
@settings(max_examples=300)
@example(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
def test_the_regex_takes_a_subset_with_the_same_facts(raw: bytes) -> None:
    """What the regex takes, the checks and h11 take too, and read the same in it."""
    fast = on_the_fast_path(raw)
    if fast is not None:
        assert facts(fast) == facts(requests.read_request_head(raw, LIMITS))


@given(REQUEST_HEADS)
@settings(max_examples=300)
def test_what_is_taken_is_what_h11_reads(raw: bytes) -> None:
    """A taken head has h11's method, target and fields, and a body of h11's length."""
    reading = read_requests([raw])
    if reading.refused or reading.messages != [raw]:
        return
    [head] = reading.heads
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=LIMITS.max_head)
    server.receive_data(raw)
    event = server.next_event()
    assert isinstance(event, h11.Request)
    assert (head["method"], head["target"]) == (event.method, event.target)
    lowered = [(n, v.lower() if n == b"transfer-encoding" else v) for n, v in head["headers"]]
    assert lowered == list(event.headers)
    body = head["body"]
    if body == CHUNKED:
        server.receive_data(b"1\r\nx\r\n0\r\n\r\n")
        assert isinstance(server.next_event(), h11.Data)
    elif 0 < body < 100:
        server.receive_data(b"x" * (body - 1))
        assert body == 1 or isinstance(server.next_event(), h11.Data)
        assert server.next_event() is h11.NEED_DATA
        server.receive_data(b"x")
        assert isinstance(server.next_event(), h11.Data)
    if body < 100:
        assert isinstance(server.next_event(), h11.EndOfMessage)


@given(RESPONSE_HEADS)
@settings(max_examples=300)
def test_the_response_regex_takes_a_subset_with_the_same_facts(raw: bytes) -> None:
    """What the regex takes of responses, the checks and h11 take too, and read the same in it."""
    match = responses.fast_matcher(LIMITS)(raw, 0)
    fast = responses.from_match(match) if match is not None and match[0] == raw else None
    if fast is not None:
        slow = responses.read_response_head(raw, LIMITS)
        assert slow is not None
        assert facts(fast) == facts(slow)


@given(RESPONSE_HEADS)
@settings(max_examples=300)
def test_framed_responses_are_framed_as_h11_does(raw: bytes) -> None:
    """A response that is not opaque has a body of h11's length."""
    reading = read_responses([raw])
    if reading.opaque or not reading.heads or reading.messages != [raw]:
        return
    [head] = reading.heads
    if head["status"] < 200:
        return
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=LIMITS.max_head)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(raw)
    assert isinstance(client.next_event(), h11.Response)
    ended = isinstance(client.next_event(), h11.EndOfMessage)
    assert ended == reading.complete
    if head["body"] == UNTIL_CLOSE and not ended:
        client.receive_data(b"")
        assert isinstance(client.next_event(), h11.EndOfMessage)


@st.composite
def mutated(draw: st.DrawFn, base: st.SearchStrategy[bytes]) -> bytes:
    """Generated bytes with a few bytes changed, removed or added."""
    data = bytearray(draw(base))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        gone = draw(st.integers(0, 2))
        data[at : at + gone] = draw(
            st.one_of(st.binary(max_size=2), st.sampled_from([b"\r\n", b"\n", b": "]))
        )
    return bytes(data)


BODIES = st.sampled_from(
    [
        b"",
        b"hello",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"0\r\n\r\n",
        b"5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n",
        b"5\r\nhellox",
        b"0\r\nHost: x\r\n\r\n",
    ]
)
STREAMS = st.lists(mutated(st.builds(bytes.__add__, REQUEST_HEADS, BODIES)), min_size=1, max_size=3).map(
    b"".join
)
RESPONSE_STREAMS = st.lists(
    mutated(st.builds(bytes.__add__, RESPONSE_HEADS, BODIES)), min_size=1, max_size=3
).map(b"".join)


def cut(data: bytes, points: list[int]) -> list[bytes]:
    """`data` cut at these points, taken modulo its length."""
    at = sorted({0, len(data), *(point % (len(data) + 1) for point in points)})
    return [data[a:b] for a, b in pairwise(at)]


CUTS = st.lists(st.integers(0, 10_000), max_size=8)


@given(STREAMS, CUTS)
@settings(max_examples=300)
def test_requests_do_not_depend_on_how_they_are_cut(stream: bytes, points: list[int]) -> None:
    """The same messages are taken and the same reason refuses, however the bytes arrive; all bytes are kept."""
    whole = read_requests([stream])
    pieces = read_requests(cut(stream, points))
    assert pieces.refused == whole.refused
    if whole.refused:
        # In pieces, part of the message that is refused may have been seen; it never became complete.
        assert pieces.messages[: len(whole.messages)] == whole.messages
        assert len(pieces.messages) <= len(whole.messages) + 1
        assert len(pieces.messages) == len(whole.messages) or not pieces.complete
    else:
        assert (pieces.heads, pieces.complete) == (whole.heads, whole.complete)


@given(STREAMS, CUTS)
@settings(max_examples=300)
def test_what_is_handed_over_is_what_was_received(stream: bytes, points: list[int]) -> None:
    """The messages joined are the stream itself, but for empty lines before requests."""
    reading = read_requests(cut(stream, points))
    at = 0
    for message in reading.messages:
        if stream.startswith(b"\r\n", at):
            at += 2
        assert stream.startswith(message, at)
        at += len(message)


@given(RESPONSE_STREAMS, CUTS, st.booleans())
@settings(max_examples=300)
def test_responses_do_not_depend_on_how_they_are_cut(stream: bytes, points: list[int], to_head: bool) -> None:
    """However the bytes arrive, the same responses are framed; all of them are passed on in the end."""
    whole = read_responses([stream], to_head=to_head)
    pieces = read_responses(cut(stream, points), to_head=to_head)
    assert pieces.opaque == whole.opaque
    joined, in_pieces = b"".join(whole.messages), b"".join(pieces.messages)
    assert stream.startswith(joined)
    assert in_pieces == joined
    if not whole.opaque:
        assert pieces == whole


@given(st.binary(max_size=200))
@settings(max_examples=300)
def test_any_bytes_are_taken_or_refused(data: bytes) -> None:
    """No bytes make a parser fail in any other way than by refusing them."""
    read_requests([data, b"\r\n\r\n"])
    read_responses([data, b"\r\n\r\n"])


SEGMENTS = st.sampled_from(
    [
        b"a",
        b"admin",
        b".",
        b"..",
        b"",
        b"%2e",
        b"%2E%2e",
        b"%2f",
        b"%5C",
        b"\\",
        b"%00",
        b"%61",
        b"%252e",
        b"..;x",
        b"%C3%A9",
        b"a.b",
        b".well-known",
        b"a;b",
        b"a%20b",
        b"%",
        b"%zz",
        b"x%0d",
    ]
)


def plainly_ambiguous(path: bytes) -> bool:
    """Whether servers read it differently: slowly, and straight from the words of AMBIGUITIES."""
    segments = path.split(b"/")[1:]
    return (
        any(re.fullmatch(rb"\.\.?(;.*)?", segment) for segment in segments)
        or b"" in segments[:-1]
        or b"\\" in path
        or any(re.search(rb"%(?![0-9A-Fa-f]{2})", segment) for segment in segments)
        or any(_bad_escape(int(code, 16)) for code in re.findall(rb"%([0-9A-Fa-f]{2})", path))
        or re.search(rb"%25[0-9A-Fa-f]{2}", path) is not None
    )


def _bad_escape(code: int) -> bool:
    unreserved = chr(code).isascii() and (chr(code).isalnum() or chr(code) in "-._~")
    return unreserved or code < 0x20 or code == 0x7F or chr(code) in "/\\"


@given(st.lists(SEGMENTS, min_size=1, max_size=4), st.sampled_from([b"", b"?", b"?a=//b/../%2e"]))
@settings(max_examples=300)
def test_path_ambiguity(segments: list[bytes], query: bytes) -> None:
    """Paths that servers read differently are named so, and no others; the query string does not count."""
    path = b"/" + b"/".join(segments)
    found = path_ambiguity(path + query)
    assert (found is not None) == plainly_ambiguous(path)
    assert found is None or found in AMBIGUITIES


def test_each_ambiguity_has_its_name() -> None:
    """One path for each name."""
    paths = {
        "dot_segment": b"/a/../b",
        "empty_segment": b"/a//b",
        "backslash": b"/a\\b",
        "encoded_separator": b"/a%2fb",
        "encoded_control": b"/a%00",
        "encoded_plain": b"/%61",
        "double_encoding": b"/%252e",
        "malformed_escape": b"/%zz",
    }
    assert {path_ambiguity(path) for path in paths.values()} == set(AMBIGUITIES)
    assert all(path_ambiguity(path) == name for name, path in paths.items())


def test_refusals_quote_what_was_seen_within_a_bound() -> None:
    """The detail of a refusal tells a person what it is about, and is short whatever was sent."""
    with pytest.raises(ParseError, match=r"^version: ") as refused:
        requests.read_request_head(b"GET /" + b"x" * 5000 + b" HTTP/9.9\r\nHost: a\r\n\r\n", LIMITS)
    assert "GET /xxx" in refused.value.detail
    assert len(refused.value.detail) < 300
    assert refused.value.status == 400


def test_a_head_says_what_it_is() -> None:
    """Heads show themselves in debuggers without their bytes."""
    head = on_the_fast_path(b"GET /a HTTP/1.1\r\nHost: b\r\n\r\n")
    assert repr(head) == "<RequestHead b'GET' b'/a' host=b'b' body=0>"
    assert repr(ResponseHead(b"", 200, 5, True)) == "<ResponseHead 200 body=5>"
