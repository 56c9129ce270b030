"""h11, the reference reader: a head off the fast path is taken only if h11 reads the same in it."""

from __future__ import annotations

from typing import NamedTuple

import h11

from parsers.http1.heads import Fields
from parsers.http1.limits import Limits
from parsers.http1.reasons import refusal

# h11 reads a response only to a request, and 101 only to one that asks for it.
_ANY_REQUEST = h11.Request(
    method="GET", target="/", headers=[("Host", "a"), ("Connection", "upgrade"), ("Upgrade", "any")]
)


class Reading(NamedTuple):
    """What a reader made of a request head; fields as in `RequestHead.headers`."""

    method: bytes
    target: bytes
    http11: bool
    fields: Fields


def read_request(raw: bytes, limits: Limits) -> Reading:
    """h11's reading of one whole request head; raises ParseError malformed where it takes none."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.max_head)
    connection.receive_data(raw)
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError as error:
        raise refusal("malformed", str(error).encode()) from None
    if not isinstance(event, h11.Request):
        raise refusal("malformed", raw)
    return Reading(event.method, event.target, event.http_version == b"1.1", tuple(event.headers))


def agree(raw: bytes, ours: Reading, limits: Limits) -> None:
    """Raise ParseError malformed unless h11 reads in `raw` what we read."""
    if read_request(raw, limits) != ours._replace(fields=_as_h11(ours.fields)):
        raise refusal("malformed", raw)


def _as_h11(fields: Fields) -> Fields:
    """Fields as h11 has them: it writes the name of the transfer coding in lower case."""
    return tuple((name, value.lower() if name == b"transfer-encoding" else value) for name, value in fields)


def read_response(raw: bytes, limits: Limits) -> tuple[int, bool, Fields]:
    """h11's (status, HTTP/1.1?, fields) of one whole response head; raises ParseError malformed."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=limits.max_head)
    connection.send(_ANY_REQUEST)
    connection.receive_data(raw)
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError as error:
        raise refusal("malformed", str(error).encode()) from None
    if not isinstance(event, (h11.Response, h11.InformationalResponse)):
        raise refusal("malformed", raw)
    return event.status_code, event.http_version == b"1.1", tuple(event.headers)
