"""What people ask about: a connection or a request, described in words, and read as the proxy would read it.

The command line and the admin listener ask alike: with pairs of a key and a text.  A described request becomes
the bytes that a client would send, and the proxy's own parser reads them: nothing here has an opinion of its
own on what a method or a path may be.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

import policy
from kproxy.errors import UsageError
from parsers.http1 import Limits, ParseError, RequestHead, RequestParser

KEYS = ("from", "to", "port", "protocol", "method", "path", "host", "header")
PROTOCOLS = {"tcp": policy.TCP, "udp": policy.UDP}

# Parts of a request may hold any bytes: what is not UTF-8 comes as surrogates (PEP 383), and goes as it came.
_RAW = ("method", "path", "host")

_PORT = re.compile("[0-9]{1,5}")
_DEFAULT_PORT = 80  # of http; a client leaves it out of Host (RFC 9110 section 4.2.1)


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked, as it was written.

    `client` and `server` are empty where they are left open; `port` is 0 where no connection is asked about.
    What is None was not said of the request.
    """

    client: str = ""
    server: str = ""
    port: int = 0
    protocol: str = "tcp"
    method: str | None = None
    path: str | None = None
    host: str | None = None
    headers: tuple[str, ...] = ()

    @property
    def about_request(self) -> bool:
        """Whether a request is described, not a connection alone."""
        return bool(self.headers) or not (self.method is self.path is self.host is None)


class Refusal(NamedTuple):
    """How the proxy answers what it does not read with certainty: docs/http.md lists the reasons."""

    reason: str
    detail: str
    status: int


class Described(NamedTuple):
    """A request as the proxy reads it: `head`, or where it is refused None and why.

    `assumed_host` is the Host that a client would send, empty where the question names one.
    """

    head: RequestHead | None
    refusal: Refusal | None
    assumed_host: str


def read(pairs: Iterable[tuple[str, str]]) -> Question:
    """Make a question of (key, text) pairs; of all keys only `header` may stand more than once.

    Raises UsageError.
    """
    said: dict[str, str] = {}
    headers: list[str] = []
    for key, text in pairs:
        if key not in KEYS:
            close = difflib.get_close_matches(key, KEYS, 1)
            mend = f"did you mean {close[0]}?" if close else f"known are {', '.join(KEYS)}"
            raise UsageError(f"unknown key {key!r}", mend)
        if key == "header":
            headers.append(_header(text))
        elif key in said:
            raise UsageError(f"{key} is given twice", "give it once")
        else:
            said[key] = text if key in _RAW else text.encode("utf-8", "backslashreplace").decode()
    question = Question(
        client=said.get("from", ""),
        server=said.get("to", ""),
        port=_port(said["port"]) if "port" in said else 0,
        protocol=said.get("protocol", "tcp").lower(),
        method=said.get("method"),
        path=said.get("path"),
        host=said.get("host"),
        headers=tuple(headers),
    )
    _check(question, said)
    return question


def _check(question: Question, said: dict[str, str]) -> None:
    """What does not go together; raises UsageError."""
    if question.protocol not in PROTOCOLS:
        raise UsageError(f"protocol {question.protocol!r} is not known", "say tcp or udp")
    for key in ("from", "to"):
        if said.get(key) == "":
            raise UsageError(f"{key} is empty", "name a workload, host, world or an address")
    if question.port and not (question.client and question.server):
        raise UsageError("a connection has two ends", "give both from and to")
    if question.about_request and not question.port:
        raise UsageError("a request goes to a port", "give the port of the server")
    if not question.port and "protocol" in said:
        raise UsageError("a protocol without a port", "give the port, or leave the protocol out")
    if question.about_request and question.protocol != "tcp":
        raise UsageError("HTTP requests go over tcp", "leave the protocol out")


def _port(text: str) -> int:
    if not _PORT.fullmatch(text) or not 0 < int(text) < 65536:
        raise UsageError(f"{text!r} is not a port", "give a number from 1 to 65535")
    return int(text)


def _header(text: str) -> str:
    if ":" not in text:
        raise UsageError(f"the header {text!r} has no colon", "write it as 'Name: value'")
    return text


def described(question: Question, limits: Limits) -> Described:
    """The request of a question, as the proxy reads it.

    What is not said is what a client would send: GET, /, and the server's name as Host.

    Raises:
        UsageError: what is described is no single request, such as a path that holds a whole one.
    """
    assumed = "" if _names_host(question) else _client_host(question)
    host = assumed or question.host
    lines = [f"{_or(question.method, 'GET')} {_or(question.path, '/')} HTTP/1.1"]
    lines += [] if host is None else [f"Host: {host}"]
    lines += question.headers
    raw = "".join(f"{line}\r\n" for line in [*lines, ""]).encode("utf-8", "surrogateescape")
    parser = RequestParser(limits)
    try:
        parser.receive(raw)
        head = parser.next_event()
    except ParseError as error:
        return Described(None, Refusal(error.reason, error.detail, error.status), assumed)
    if not isinstance(head, RequestHead) or head.raw != raw or raw.count(b"\n") != len(lines) + 1:
        raise UsageError(
            "this describes no single request", "leave line breaks out of method, path and headers"
        )
    return Described(head, None, assumed)


def _or(said: str | None, otherwise: str) -> str:
    return otherwise if said is None else said


def _names_host(question: Question) -> bool:
    names = (header.partition(":")[0].strip().lower() for header in question.headers)
    return question.host is not None or "host" in names


def _client_host(question: Question) -> str:
    """The Host of a client that was told to call the server by the name or address that the question has."""
    name = question.server.rpartition("/")[2] if not question.server.startswith("cidr:") else "server"
    name = f"[{name}]" if ":" in name else name
    return name if question.port == _DEFAULT_PORT else f"{name}:{question.port}"
