"""Responses: how each is framed, and where framing is not certain, in every division of the bytes."""

from __future__ import annotations

from typing import Any

import pytest
from reading import NEXT_RESPONSE, divisions, read_responses

from parsers.http1 import CHUNKED, UNTIL_CLOSE, Limits


def response(
    *lines: bytes, status: bytes = b"200 OK", version: bytes = b"HTTP/1.1", body: bytes = b""
) -> bytes:
    """A response with these fields."""
    return b"".join(line + b"\r\n" for line in (version + b" " + status, *lines)) + b"\r\n" + body


FRAMED: dict[str, tuple[bytes, dict[str, Any]]] = {
    "a length": (
        response(b"Content-Length: 5", b"Server: x", body=b"hello"),
        {
            "status": 200,
            "body": 5,
            "keep_alive": True,
            "headers": ((b"content-length", b"5"), (b"server", b"x")),
        },
    ),
    "no body": (response(b"Content-Length: 0", status=b"404 Not Found"), {"status": 404, "body": 0}),
    "chunks": (response(b"Transfer-Encoding: chunked", body=b"3\r\nabc\r\n0\r\n\r\n"), {"body": CHUNKED}),
    "chunks with extensions and trailers": (
        response(b"Transfer-Encoding: Chunked", body=b"3;a=b\r\nabc\r\n0;c\r\nx-sum: 1\r\n\r\n"),
        {"body": CHUNKED},
    ),
    "204": (response(status=b"204 No Content"), {"status": 204, "body": UNTIL_CLOSE}),
    "304 with the length of what it spares": (
        response(b"Content-Length: 9", status=b"304 Not Modified"),
        {"body": 9},
    ),
    "304": (response(status=b"304 Not Modified"), {}),
    "an interim response": (response(b"Link: <a>", status=b"103 Early Hints"), {"status": 103}),
    "100": (response(status=b"100 Continue"), {"status": 100}),
    "101": (
        response(b"Connection: upgrade", b"Upgrade: websocket", status=b"101 Switching"),
        {"status": 101},
    ),
    "no reason phrase": (response(b"Content-Length: 0", status=b"200"), {"status": 200}),
    "an empty reason phrase": (response(b"Content-Length: 0", status=b"200 "), {"status": 200}),
    "a reason phrase beyond ASCII": (response(b"Content-Length: 0", status=b"200 \xc3\xa4 b"), {}),
    "close": (response(b"Connection: close", b"Content-Length: 1", body=b"x"), {"keep_alive": False}),
    "HTTP/1.0": (response(b"Content-Length: 1", version=b"HTTP/1.0", body=b"x"), {"keep_alive": False}),
    "HTTP/1.0 that goes on": (
        response(b"Connection: keep-alive", b"Content-Length: 1", version=b"HTTP/1.0", body=b"x"),
        {"keep_alive": True},
    ),
    "a status of its own": (response(b"Content-Length: 0", status=b"799 x"), {"status": 799}),
    "a control character in a value": (response(b"Set-Cookie: a=\x01", b"Content-Length: 0"), {}),
}


@pytest.mark.parametrize("name", FRAMED)
def test_framed(name: str) -> None:
    """The response ends where it does in every division, and its bytes are kept."""
    raw, expected = FRAMED[name]
    for chunks in divisions(raw):
        reading = read_responses(chunks)
        assert reading.complete
        assert not reading.opaque
        assert reading.messages == [raw]
        assert {fact: reading.heads[0][fact] for fact in expected} == expected
    assert read_responses([raw + NEXT_RESPONSE]).messages == [raw, NEXT_RESPONSE]


def test_framed_in_a_row() -> None:
    """All of them in one stream are the same, in every pace."""
    raws = [raw for raw, _ in FRAMED.values()]
    stream = b"".join(raws)
    for pace in (len(stream), 5, 50):
        chunks = [stream[i : i + pace] for i in range(0, len(stream), pace)]
        assert read_responses(chunks).messages == raws


@pytest.mark.parametrize(
    "raw",
    [
        response(b"Content-Length: 5"),
        response(b"Transfer-Encoding: chunked"),
        response(),
        response(b"Content-Length: 5", status=b"304 Not Modified"),
    ],
)
def test_the_answer_to_head_has_no_body(raw: bytes) -> None:
    """Whatever its fields say, the response to HEAD ends with its head (RFC 9112 section 6.3)."""
    for chunks in divisions(raw):
        reading = read_responses(chunks, to_head=True)
        assert reading.complete
        assert reading.messages == [raw]


@pytest.mark.parametrize(
    "raw", [response(b"Server: x", body=b"some"), response(version=b"HTTP/1.0", body=b"some")]
)
def test_until_close(raw: bytes) -> None:
    """Without length and coding the body lasts until the connection closes."""
    for chunks in divisions(raw):
        reading = read_responses(chunks)
        assert not reading.complete
        assert not reading.opaque
        assert reading.heads[0]["body"] == UNTIL_CLOSE
        assert reading.messages == [raw]


OPAQUE_FROM_THE_START = {
    "not HTTP": b"SSH-2.0-x\r\n\r\n",
    "HTTP/0.9": b"<html>\r\n\r\n</html>",
    "another version": response(b"Content-Length: 2", version=b"HTTP/1.2", body=b"ok"),
    "HTTP/2": response(b"Content-Length: 2", version=b"HTTP/2.0", body=b"ok"),
    "a small version": response(b"Content-Length: 2", version=b"http/1.1", body=b"ok"),
    "a status of two digits": response(b"Content-Length: 0", status=b"20 OK"),
    "a status below 100": response(b"Content-Length: 0", status=b"099 OK"),
    "a signed status": response(b"Content-Length: 0", status=b"+20 OK"),
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "bare LF in one field": response(b"A: b\nContent-Length: 3", b"Content-Length: 0", body=b"abc"),
    "bare CR": response(b"A: b\rc", b"Content-Length: 0"),
    "an empty line before": b"\r\n" + response(b"Content-Length: 0"),
    "a space before the status line": b" " + response(b"Content-Length: 0"),
    "two lengths": response(b"Content-Length: 2", b"Content-Length: 3", body=b"abc"),
    "the same length twice": response(b"Content-Length: 2", b"Content-Length: 2", body=b"ab"),
    "a list of lengths": response(b"Content-Length: 2, 2", body=b"ab"),
    "a signed length": response(b"Content-Length: +2", body=b"ab"),
    "a length with a zero before": response(b"Content-Length: 02", body=b"ab"),
    "length and coding": response(b"Content-Length: 2", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "another coding": response(b"Transfer-Encoding: gzip", body=b"ab"),
    "two codings": response(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
    "coding twice": response(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "coding in HTTP/1.0": response(b"Transfer-Encoding: chunked", version=b"HTTP/1.0", body=b"0\r\n\r\n"),
    "a folded field": response(b"A: b", b" c", b"Content-Length: 0"),
    "a space before the colon": response(b"Content-Length : 0"),
    "a line without a colon": response(b"x", b"Content-Length: 0"),
    "NUL": response(b"A: \0", b"Content-Length: 0"),
    "204 with a length": response(b"Content-Length: 2", status=b"204 No Content", body=b"ab"),
    "204 with chunks": response(b"Transfer-Encoding: chunked", status=b"204 No Content", body=b"0\r\n\r\n"),
    "304 with chunks": response(b"Transfer-Encoding: chunked", status=b"304 x", body=b"0\r\n\r\n"),
    "100 with a length": response(b"Content-Length: 2", status=b"100 Continue", body=b"ab"),
    "too many fields": response(*[b"a: b"] * 101, b"Content-Length: 0"),
    "chunks that are wrong at once": response(b"Transfer-Encoding: chunked", body=b"zz\r\n"),
}


@pytest.mark.parametrize("name", OPAQUE_FROM_THE_START)
def test_uncertain(name: str) -> None:
    """Where framing is not certain every byte is passed on, and nothing ever completes."""
    raw = OPAQUE_FROM_THE_START[name]
    for chunks in divisions(raw):
        reading = read_responses(chunks)
        assert reading.opaque
        assert not reading.complete
        assert b"".join(reading.messages) == raw
    behind = read_responses([raw + NEXT_RESPONSE])
    assert behind.opaque
    assert b"".join(behind.messages) == raw + NEXT_RESPONSE


def test_chunks_that_go_wrong_later() -> None:
    """What was certain was passed on as such; from the doubt on everything is opaque."""
    good = response(b"Transfer-Encoding: chunked", body=b"2\r\nab\r\n")
    reading = read_responses([good, b"2\r\ncd", b"x\r\n", NEXT_RESPONSE])
    assert reading.opaque
    assert b"".join(reading.messages) == good + b"2\r\ncdx\r\n" + NEXT_RESPONSE


def test_a_head_over_the_limit_is_uncertain() -> None:
    """A response head that does not end within its bound is passed on, not held."""
    raw = response(b"A: " + b"x" * 300, b"Content-Length: 0")
    for chunks in ([raw], [raw[:200], raw[200:]]):
        reading = read_responses(chunks, limits=Limits(max_head=256))
        assert reading.opaque
        assert b"".join(reading.messages) == raw
