"""The admin listener: metrics, health, status and answers to why over HTTP/1.1, for GET and HEAD alone.

It runs in the proxy's own event loop, so that /livez says that the loop turns.  Whoever can reach it can neither
change anything nor hold much: requests, connections and waits are bounded, metrics are rendered and questions
answered on a thread so that neither stalls traffic, and questions are answered one at a time.
"""

from __future__ import annotations

import asyncio
import errno
from typing import NamedTuple
from urllib.parse import parse_qsl

import h11
import msgspec

from kproxy import answers, questions
from kproxy.answers import Knowledge
from kproxy.collector import CONTENT_TYPE, NodeCollector
from kproxy.config import Address
from kproxy.errors import AddressInUseError, UsageError
from kproxy.logs import logger
from kproxy.state import NodeState

MAX_CONNECTIONS = 64
"""Connections at once: a handful of scrapers and probes; more are closed at once."""

MAX_HEAD_BYTES = 8 * 1024
"""Longest request head; Prometheus and kubelet send some hundred bytes."""

WAIT_SECONDS = 30.0
"""Longest wait for a whole request, and for a response to be taken."""

READ_BYTES = 16 * 1024

_TEXT = "text/plain; charset=utf-8"
_JSON = "application/json"
_PATHS = ("/metrics", "/livez", "/readyz", "/status", "/explain")
_log = logger(__name__)


class Response(NamedTuple):
    """What is answered."""

    status: int
    media_type: str
    body: bytes


class AdminServer:
    """The listener and its open connections."""

    def __init__(self, state: NodeState, collector: NodeCollector) -> None:
        self._state = state
        self._collector = collector
        self._tasks: set[asyncio.Task[None]] = set()
        self._answering = asyncio.Lock()

    async def start(self, address: Address) -> asyncio.Server:
        """Listen; `close` ends it.

        Raises AddressInUseError where the address is taken or is not this host's.
        """
        if not address.loopback:
            _log.warning("admin listener can be reached from other hosts", address=str(address))
        try:
            return await asyncio.start_server(self._connected, address.host, address.port)
        except OSError as error:
            raise _unusable(address, error) from error

    async def close(self, server: asyncio.Server) -> None:
        """Stop listening and end the connections that are open."""
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def respond(self, method: str, path: str, query: str = "") -> Response:
        """Answer one request."""
        if method not in ("GET", "HEAD"):
            return Response(405, _TEXT, b"only GET and HEAD\n")
        match path:
            case "/metrics":
                self._collector.take_snapshot()
                return Response(200, CONTENT_TYPE, await asyncio.to_thread(self._collector.exposition))
            case "/livez":
                return Response(200, _TEXT, b"ok\n")
            case "/readyz":
                return _readiness(tuple(self._state.not_ready()))
            case "/status":
                return Response(200, _JSON, msgspec.json.encode(self._state.status()) + b"\n")
            case "/explain":
                known = self._state.knowledge()
                async with self._answering:
                    return await asyncio.to_thread(_explanation, known, query)
            case "/":
                return Response(200, _TEXT, "".join(f"{path}\n" for path in _PATHS).encode())
        return Response(404, _TEXT, f"not found; try {', '.join(_PATHS)}\n".encode())

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "asyncio.start_server runs this in a task of its own"
        if len(self._tasks) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except (ConnectionError, TimeoutError):
            writer.transport.abort()
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        while True:
            try:
                async with asyncio.timeout(WAIT_SECONDS):
                    request = await _request(connection, reader)
            except h11.RemoteProtocolError as error:
                await _send(connection, writer, Response(error.error_status_hint, _TEXT, b"bad request\n"))
                return
            if request is None:
                return
            method, (path, _, query) = (
                request.method.decode("ascii"),
                request.target.decode("ascii").partition("?"),
            )
            response = await self.respond(method, path, query)
            await _send(connection, writer, response, with_body=method != "HEAD")
            if connection.our_state is not h11.DONE:
                return
            connection.start_next_cycle()


async def _request(connection: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | None:
    """Read one request without a body; None where the client has closed.

    Raises h11.RemoteProtocolError, also for a body: nothing here takes one.
    """
    request = None
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(READ_BYTES))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.EndOfMessage):
            return request
        elif isinstance(event, h11.ConnectionClosed):
            return None
        else:
            raise h11.RemoteProtocolError("a request here has no body", error_status_hint=413)


async def _send(
    connection: h11.Connection, writer: asyncio.StreamWriter, response: Response, with_body: bool = True
) -> None:
    headers = [
        ("Content-Type", response.media_type),
        ("Content-Length", str(len(response.body))),
        ("Cache-Control", "no-store"),
    ]
    if response.status == 405:
        headers.append(("Allow", "GET, HEAD"))
    events: list[h11.Event] = [h11.Response(status_code=response.status, headers=headers)]
    events += [h11.Data(data=response.body if with_body else b""), h11.EndOfMessage()]
    for event in events:
        writer.write(connection.send(event) or b"")
    async with asyncio.timeout(WAIT_SECONDS):
        await writer.drain()


def _explanation(known: Knowledge, query: str) -> Response:
    """Answer a question, or say what is wrong with it."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="surrogateescape")
        answer = answers.answer(known, questions.read(pairs))
    except UsageError as error:
        return Response(400, _JSON, msgspec.json.encode({"error": error.message, "mend": error.mend}) + b"\n")
    return Response(200, _JSON, msgspec.json.encode(answer) + b"\n")


def _readiness(reasons: tuple[str, ...]) -> Response:
    if not reasons:
        return Response(200, _TEXT, b"ok\n")
    return Response(503, _TEXT, "".join(f"{reason}\n" for reason in reasons).encode())


def _unusable(address: Address, error: OSError) -> AddressInUseError:
    """Say why an address cannot be listened on."""
    if error.errno == errno.EADDRINUSE:
        return AddressInUseError(f"admin address {address} is taken", 'end its owner or change "admin"')
    if error.errno == errno.EADDRNOTAVAIL:
        return AddressInUseError(f"admin address {address} is not this host's", 'change "admin"')
    return AddressInUseError(f"admin address {address} cannot be used: {error.strerror}", 'change "admin"')
