"""Runs parsers over bytes in every division that matters, and tells what they made of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from parsers.http1 import (
    END_OF_MESSAGE,
    NEED_DATA,
    OPAQUE,
    Limits,
    ParseError,
    RequestHead,
    RequestParser,
    ResponseHead,
    ResponseParser,
)

NEXT = b"GET /next HTTP/1.1\r\nHost: next\r\n\r\n"
NEXT_RESPONSE = b"HTTP/1.1 599 Next\r\nContent-Length: 0\r\n\r\n"

REQUEST_FACTS = [
    "raw",
    "method",
    "target",
    "path",
    "host",
    "body",
    "keep_alive",
    "http11",
    "expects_continue",
    "upgrade",
    "headers",
]
RESPONSE_FACTS = ["raw", "status", "body", "keep_alive", "headers"]


def facts(head: RequestHead | ResponseHead) -> dict[str, Any]:
    """Everything that a head says."""
    names = REQUEST_FACTS if isinstance(head, RequestHead) else RESPONSE_FACTS
    return {name: getattr(head, name) for name in names}


class Reading(NamedTuple):
    """What a parser made of a stream.

    heads: the facts of each head. messages: the bytes of each message, the last perhaps not complete.
    complete: whether the last is. refused: the reason, or an empty string. opaque: whether the stream became so.
    """

    heads: list[dict[str, Any]]
    messages: list[bytes]
    complete: bool
    refused: str = ""
    opaque: bool = False


def divisions(data: bytes) -> Iterator[list[bytes]]:
    """`data` whole, byte by byte, and split in two at every point."""
    yield [data]
    yield [data[i : i + 1] for i in range(len(data))]
    for at in range(1, len(data)):
        yield [data[:at], data[at:]]


def read_requests(chunks: Iterable[bytes], limits: Limits | None = None) -> Reading:
    """Read a stream of requests to its end or to its refusal."""
    parser = RequestParser(limits or Limits())
    heads: list[dict[str, Any]] = []
    messages: list[bytes] = []
    for chunk in chunks:
        parser.receive(chunk)
        while True:
            try:
                event = parser.next_event()
            except ParseError as error:
                return Reading(heads, messages, False, error.reason)
            if event is NEED_DATA:
                assert parser.take() == b""
                break
            if isinstance(event, RequestHead):
                heads.append(facts(event))
                messages.append(b"")
            messages[-1] += parser.take()
            assert parser.complete or event is not END_OF_MESSAGE
    return Reading(heads, messages, parser.complete)


def read_responses(
    chunks: Iterable[bytes], *, to_head: bool = False, limits: Limits | None = None
) -> Reading:
    """Read a stream of responses, all of them to one kind of request."""
    parser = ResponseParser(limits or Limits())
    parser.answers_head = to_head
    heads: list[dict[str, Any]] = []
    messages: list[bytes] = []
    opaque = False
    for chunk in chunks:
        parser.receive(chunk)
        while True:
            event = parser.next_event()
            if event is NEED_DATA:
                break
            data = parser.take()
            if isinstance(event, ResponseHead):
                heads.append(facts(event))
                messages.append(data)
            elif event is OPAQUE:
                opaque = True
                messages.append(data)
                break
            else:
                messages[-1] += data
            if not parser.complete:
                break
    return Reading(heads, messages, parser.complete, opaque=opaque)


def same_in_every_division(data: bytes, trailing: bytes, *, limits: Limits | None = None) -> Reading:
    """Read requests in every division, and with other bytes behind; assert that all readings agree."""
    whole = read_requests([data], limits)
    for chunks in divisions(data):
        reading = read_requests(chunks, limits)
        assert reading.refused == whole.refused, chunks
        if whole.refused:
            # What was refused with its head when it came at once may have lost its head before in pieces,
            # but it must not have become complete.
            assert not reading.complete
        else:
            assert reading == whole, chunks
    behind = read_requests([data + trailing], limits)
    assert behind.refused == whole.refused
    assert behind.messages[: len(whole.messages)] == whole.messages
    return whole
