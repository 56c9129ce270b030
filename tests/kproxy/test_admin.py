"""The admin listener: what it answers, and what it does to those who misuse it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlencode

import jsonschema
import pytest

import policy
from kproxy import admin, answers, endpoints
from kproxy.admin import AdminServer
from kproxy.answers import Knowledge
from kproxy.cli.schema import schema
from kproxy.collector import CONTENT_TYPE, NodeCollector
from kproxy.config import Address
from kproxy.errors import AddressInUseError
from kproxy.http1 import HttpOptions
from kproxy.metrics import KernelSnapshot, Metrics
from kproxy.state import ReloadStatus, Status
from tests.kproxy import small_node

LOOPBACK = Address("127.0.0.1", 0)


class Node:
    """A node whose readiness and policy a test sets."""

    def __init__(self) -> None:
        self.reasons: tuple[str, ...] = ()
        self.known = known()

    def not_ready(self) -> tuple[str, ...]:
        """Give the reasons."""
        return self.reasons

    def status(self) -> Status:
        """Describe it."""
        return Status(
            node="n1",
            version="0.1.0",
            not_ready=self.reasons,
            fail_mode="closed",
            policy_revision=7,
            reload=ReloadStatus(ok=True, time="2026-01-02T03:04:05Z"),
            endpoints=(),
            flows=0,
            features=(),
            limits={"connections": 10},
            limits_bit={},
            access_log_lost=0,
        )

    def knowledge(self) -> Knowledge:
        """Give what is in force."""
        return self.known


def known(revision: int = 7, **failures: str) -> Knowledge:
    """A policy revision in force: the small node's, without its files."""
    loaded = policy.load([("jobs.json", json.dumps(small_node.jobs_policy(*small_node.HTTP)))])
    text = json.dumps({"endpoints": small_node.ENDPOINTS})
    workloads = [one.workload() for one in endpoints.parse(text, "endpoints.json")]
    compiled = policy.compile(loaded.rules, workloads, policy.Node(), revision)
    told = {f"hr/{name}": why for name, why in failures.items()}
    return Knowledge("n1", compiled, HttpOptions(), running=True, failures=told)


class Kernel:
    """BPF maps that count nothing."""

    def snapshot(self) -> KernelSnapshot:
        """Read them."""
        return KernelSnapshot()


@asynccontextmanager
async def serving(node: Node) -> AsyncIterator[int]:
    """Run the listener; gives its port."""
    server = AdminServer(node, NodeCollector(Metrics(10), Kernel(), None, "closed", "0.1.0"))
    listener = await server.start(LOOPBACK)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        await server.close(listener)


async def exchange(port: int, sent: bytes) -> bytes:
    """Send bytes on a connection of their own, and give all that comes back until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    try:
        return await asyncio.wait_for(reader.read(), 20)
    finally:
        writer.close()


async def dropped(port: int, sent: bytes) -> bool:
    """Tell whether a connection was ended without an answer; the client sees an end of file or a reset."""
    try:
        return await exchange(port, sent) == b""
    except ConnectionError:
        return True


async def get(port: int, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    """Make one request, and give status, headers and body."""
    answer = await exchange(
        port, f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    )
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *fields = head.decode().split("\r\n")
    return int(first.split(" ")[1]), dict(field.lower().split(": ", 1) for field in fields), body


async def test_metrics() -> None:
    """A scraper gets the text format under its media type."""
    async with serving(Node()) as port:
        status, headers, body = await get(port, "/metrics")
    assert (status, headers["content-type"]) == (200, CONTENT_TYPE)
    assert b"kproxy_build_info" in body
    assert int(headers["content-length"]) == len(body)


async def test_liveness_and_readiness() -> None:
    """Alive is whoever answers; ready is only a node that enforces, and one that is not says why."""
    node = Node()
    async with serving(node) as port:
        assert (await get(port, "/readyz"))[::2] == (200, b"ok\n")
        node.reasons = ("the hooks are not attached", "hr/jobs-api: no such namespace")
        assert (await get(port, "/livez"))[::2] == (200, b"ok\n")
        body = b"the hooks are not attached\nhr/jobs-api: no such namespace\n"
        assert (await get(port, "/readyz"))[::2] == (503, body)


async def test_status() -> None:
    """The status is one JSON object."""
    async with serving(Node()) as port:
        status, headers, body = await get(port, "/status")
    assert (status, headers["content-type"]) == (200, "application/json")
    assert json.loads(body)["policy_revision"] == 7


async def test_head_and_query() -> None:
    """HEAD has GET's headers and no body; a query is no part of the path."""
    async with serving(Node()) as port:
        status, headers, body = await get(port, "/livez?verbose", "HEAD")
    assert (status, headers["content-length"], body) == (200, "3", b"")


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [("POST", "/metrics", 405), ("DELETE", "/", 405), ("GET", "/config", 404), ("GET", "/", 200)],
)
async def test_nothing_else(method: str, path: str, expected: int) -> None:
    """Nothing here changes anything, and there is nothing else to see."""
    async with serving(Node()) as port:
        status, headers, _ = await get(port, path, method)
    assert status == expected
    assert ("allow" in headers) == (status == 405)


async def test_connection_is_kept() -> None:
    """A scraper may use one connection for several requests, also pipelined."""
    one = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    async with serving(Node()) as port:
        assert (await exchange(port, one + one + last)).count(b"HTTP/1.1 200") == 3


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"HTTP/1.1 400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 40_000, b"HTTP/1.1 431"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", b"HTTP/1.1 413"),
    ],
)
async def test_bad_requests_end_the_connection(sent: bytes, expected: bytes) -> None:
    """What is not HTTP, too long, or brings a body is refused and the connection closed."""
    async with serving(Node()) as port:
        assert (await exchange(port, sent)).startswith(expected)
        assert (await get(port, "/livez"))[0] == 200


async def test_silent_clients_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that never finishes its request is closed after the wait."""
    monkeypatch.setattr(admin, "WAIT_SECONDS", 0.01)
    async with serving(Node()) as port:
        assert await dropped(port, b"GET /livez HTTP/1.1\r\n")


async def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Idle connections cannot take descriptors without end, and those that are open go on."""
    monkeypatch.setattr(admin, "MAX_CONNECTIONS", 2)
    async with serving(Node()) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readuntil(b"ok\n")).startswith(b"HTTP/1.1 200")
        _, second = await asyncio.open_connection("127.0.0.1", port)
        assert await dropped(port, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        second.close()
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b"200" in await reader.read()
        writer.close()


async def test_close_ends_open_connections() -> None:
    """An idle scraper does not hold up the end of the service."""
    async with serving(Node()) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"ok\n")
    assert await reader.read() == b""
    writer.close()


async def test_taken_address_is_told() -> None:
    """A port that is taken is one line that says what to change."""
    async with serving(Node()) as port:
        server = AdminServer(Node(), NodeCollector(Metrics(10), Kernel(), None, "closed", "0.1.0"))
        with pytest.raises(AddressInUseError, match=f"admin address 127.0.0.1:{port} is taken") as caught:
            await server.start(Address("127.0.0.1", port))
    assert caught.value.exit_code == 5
    with pytest.raises(AddressInUseError, match="is not this host's"):
        await server.start(Address("192.0.2.1", 0))


async def test_other_hosts_reach_it_only_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """An address that is not loopback is taken, and warned of."""
    server = AdminServer(Node(), NodeCollector(Metrics(10), Kernel(), None, "closed", "0.1.0"))
    await server.close(await server.start(LOOPBACK))
    assert not caplog.records
    await server.close(await server.start(Address("0.0.0.0", 0)))
    assert "can be reached from other hosts" in caplog.text


REQUEST = {"from": "turtletweets", "to": "jobs-api", "port": "80"}


@pytest.mark.parametrize(
    ("asked", "verdict", "reason"),
    [
        ({"path": "/jobs/1"}, "allow", "allowed by rule"),
        ({"path": "/jobs/x"}, "deny", "default deny"),
        ({"path": "/jobs", "method": "POST", "header": ["X-Role: admin", "A: b"]}, "allow", ""),
        ({"path": "/a\r\nb"}, "deny", "request_line: "),
        ({"path": "/\udcff"}, "deny", "target_bytes: "),
        ({}, "allow", "its requests are judged"),
    ],
)
async def test_explain(asked: dict[str, str], verdict: str, reason: str) -> None:
    """The published answer about what is in force, with the revision."""
    query = urlencode(REQUEST | asked, doseq=True, errors="surrogateescape")
    async with serving(Node()) as port:
        status, headers, body = await get(port, f"/explain?{query}")
    answer = json.loads(body)
    assert (status, headers["content-type"]) == (200, "application/json")
    jsonschema.validate(answer, schema("explain"))
    assert (answer["verdict"], answer["revision"], answer["node"]) == (verdict, 7, "n1")
    assert reason in answer["reason"]


async def test_explain_draws() -> None:
    """Without a port: who may talk to whom; an endpoint that the node failed to enforce is told."""
    node = Node()
    node.known = known(**{"jobs-api": "no such namespace"})
    async with serving(node) as port:
        for query in ("", "?to=jobs-api", "?from=turtletweets&to=jobs-api"):
            status, _, body = await get(port, f"/explain{query}")
            drawn = json.loads(body)
            jsonschema.validate(drawn, schema("reach"))
            assert (status, drawn["notes"]) == (
                200,
                ["hr/jobs-api is not enforced at the moment: no such namespace"],
            )


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("from=nobody&to=jobs-api", "nobody is neither"),
        ("form=a", "unknown key 'form'"),
        ("from=a&from=b", "from is given twice"),
        ("from=turtletweets&to=jobs-api&port=0", "'0' is not a port"),
        ("to=%FF%1b", "is neither a known workload"),
        ("from=turtletweets&to=jobs-api&port=80&header=x", "has no colon"),
        ("from=turtletweets&to=jobs-api&port=80&path=/+HTTP/1.1%0d%0aX:+y", "no single request"),
    ],
)
async def test_explain_of_what_is_no_question(query: str, told: str) -> None:
    """Wrong usage is 400 with a JSON object that says what is wrong, and the listener goes on."""
    async with serving(Node()) as port:
        status, headers, body = await get(port, f"/explain?{query}")
        assert (status, headers["content-type"]) == (400, "application/json")
        assert told in json.loads(body)["error"]
        assert (await get(port, "/livez"))[0] == 200


async def test_a_slow_answer_stalls_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions are answered on a thread, one at a time: meanwhile the loop turns and others wait."""
    begun, end = threading.Event(), threading.Event()
    running: list[int] = []

    def slow(known: Knowledge, question: object) -> answers.Drawn:
        running.append(len(running))
        begun.set()
        end.wait(20)
        return answers.Drawn(node="n1", revision=1, endpoints=())

    monkeypatch.setattr(answers, "answer", slow)
    async with serving(Node()) as port:
        asked = [asyncio.create_task(get(port, "/explain")) for _ in range(2)]
        await asyncio.to_thread(begun.wait, 20)
        assert (await get(port, "/livez"))[::2] == (200, b"ok\n")
        assert running == [0]
        end.set()
        assert [(await one)[0] for one in asked] == [200, 200]
    assert running == [0, 1]
