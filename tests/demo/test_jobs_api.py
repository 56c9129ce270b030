"""The Jobs API answers as its description says, over real connections on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest

from kproxy.demo.jobs_api import MAX_BODY, JobsServer, address_text


@pytest.fixture
def api() -> Iterator[HTTPConnection]:
    """A keep-alive connection to a running server."""
    with JobsServer(0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        connection = HTTPConnection("127.0.0.1", server.server_port, timeout=10)
        yield connection
        connection.close()
        server.shutdown()
        thread.join()


def ask(
    api: HTTPConnection, method: str, path: str, body: bytes | None = None
) -> tuple[int, dict[str, object]]:
    """One request; status and the JSON of the answer."""
    api.request(method, path, body)
    with api.getresponse() as response:
        return response.status, json.loads(response.read())


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "key"),
    [
        ("GET", "/healthz", None, 200, "healthy"),
        ("GET", "/jobs/331", None, 200, "job"),
        ("GET", "/applicants/331", None, 200, "applicants"),
        ("POST", "/jobs", b'{"title": "Turtle"}', 201, "job"),
        ("GET", "/", None, 404, "error"),
        ("GET", "/jobs", None, 404, "error"),
        ("GET", "/jobs/abc", None, 404, "error"),
        ("GET", "/jobs/1/", None, 404, "error"),
        ("POST", "/applicants/1", b"{}", 404, "error"),
        ("POST", "/jobs", b"not json", 400, "error"),
        ("POST", "/jobs", b"[]", 400, "error"),
    ],
)
def test_each_endpoint_answers(
    api: HTTPConnection, method: str, path: str, body: bytes | None, status: int, key: str
) -> None:
    """Four endpoints, and an error that says what is wrong for everything else."""
    answered, content = ask(api, method, path, body)
    assert answered == status
    assert key in content


def test_a_posted_job_comes_back(api: HTTPConnection) -> None:
    """POST /jobs answers with the job that it was given."""
    _, content = ask(api, "POST", "/jobs", b'{"title": "Turtle"}')
    assert content["job"] == {"title": "Turtle"}


def test_the_answer_tells_what_the_server_believes_of_its_client(api: HTTPConnection) -> None:
    """accept(2) and getpeername(2) both name the socket that asked, IPv4 written as IPv4."""
    api.connect()
    own = address_text(api.sock.getsockname())
    _, content = ask(api, "GET", "/healthz")
    assert content["client"] == {"accept": own, "getpeername": own}
    assert own.startswith("127.0.0.1:")


def test_one_connection_carries_many_requests(api: HTTPConnection) -> None:
    """Keep-alive, with errors and bodies in between: the client's port stays the same."""
    seen = {
        json.dumps(ask(api, *request)[1]["client"])
        for request in (("GET", "/jobs/1"), ("GET", "/nothing"), ("POST", "/jobs", b"x"), ("GET", "/jobs/2"))
    }
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("length", "status"), [(None, 411), ("-1", 411), ("1e3", 411), (str(MAX_BODY + 1), 413)]
)
def test_a_body_of_no_good_length_ends_the_connection(
    api: HTTPConnection, length: str | None, status: int
) -> None:
    """Where the body ends is not known, or not worth reading on for: the connection closes with a reason."""
    api.putrequest("POST", "/jobs")
    if length is not None:
        api.putheader("Content-Length", length)
    api.endheaders()
    with api.getresponse() as response:
        assert response.status == status
        assert response.headers["Connection"] == "close"
        response.read()


def test_a_body_on_a_read_ends_the_connection(api: HTTPConnection) -> None:
    """It is not read, so it must not be taken for a request either."""
    api.request("GET", "/jobs/1", b"GET /applicants/1 HTTP/1.1\r\n\r\n")
    with api.getresponse() as response:
        assert response.status == 200
        assert response.headers["Connection"] == "close"
        assert b"applicants" not in response.read()


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (("10.0.0.3", 80), "10.0.0.3:80"),
        (("::ffff:10.0.0.3", 80, 0, 0), "10.0.0.3:80"),
        (("fd00::3", 80, 0, 0), "[fd00::3]:80"),
    ],
)
def test_addresses_are_written_as_people_write_them(address: tuple[object, ...], text: str) -> None:
    """IPv4-mapped addresses are the IPv4 that they mean; IPv6 stands in brackets."""
    assert address_text(address) == text
