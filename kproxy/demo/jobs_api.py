"""The Jobs API: the HTTP/1.1 server of the demonstration, and of tests that want a real one.

    GET  /healthz             is it up?
    GET  /jobs/{id}           one job: what the tweet service is there for
    GET  /applicants/{job-id} who applied for it, with their e-mail addresses: nobody else's business
    POST /jobs                a new job, from a JSON object

Each answer also says what the server believes the client's address to be, once as accept(2) told it and
once as getpeername(2) does, so that a proxy between them can be held to being invisible.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv6Address
from typing import Any, NamedTuple

MAX_BODY = 1 << 20  # of a new job; nobody writes a megabyte about one

_JOB = re.compile(r"/jobs/([0-9]+)")
_APPLICANTS = re.compile(r"/applicants/([0-9]+)")
_TITLES = ("Shell Polisher", "Lettuce Sommelier", "Pond Reliability Engineer", "Slow Courier")
_NAMES = ("Ada", "Grace", "Edsger", "Barbara", "Donald")


class Answer(NamedTuple):
    """A status and the JSON object that goes with it."""

    status: HTTPStatus
    content: dict[str, Any]


class JobsServer(ThreadingHTTPServer):
    """The server, on one socket for IPv4 and IPv6 (as Go's and Java's are: IPv4 callers appear mapped)."""

    address_family = socket.AF_INET6
    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, port: int) -> None:
        """Listen on every address at this port; raises OSError."""
        super().__init__(("::", port), JobsHandler)

    def server_bind(self) -> None:
        """Bind for both families, without the base class's look-up of a name, which may ask a DNS server."""
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "jobs-api", self.server_address[1]


class JobsHandler(BaseHTTPRequestHandler):
    """One connection: it is kept open for as many requests as the client likes."""

    protocol_version = "HTTP/1.1"
    server_version = "jobs-api"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Answer a read. A body means nothing here; left unread it would be taken for the next request."""
        if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            self.close_connection = True
        self._send(read(self.path))

    def do_POST(self) -> None:
        """Answer a write."""
        body = self._body()
        self._send(body if isinstance(body, Answer) else write(self.path, body))

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: kproxy's access log is what the demonstration shows."""

    def _body(self) -> bytes | Answer:
        """Read the request's body; an Answer, and the connection's end, if its length is not to be had."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            self.close_connection = True
            return _problem(HTTPStatus.LENGTH_REQUIRED, "send a Content-Length")
        if int(length) > MAX_BODY:
            self.close_connection = True
            return _problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a job has at most {MAX_BODY} bytes")
        return self.rfile.read(int(length))

    def _send(self, answer: Answer) -> None:
        client = {
            "accept": address_text(self.client_address),
            "getpeername": address_text(self.connection.getpeername()),
        }
        body = json.dumps({**answer.content, "client": client}).encode() + b"\n"
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)


def read(path: str) -> Answer:
    """What `GET path` answers."""
    if path == "/healthz":
        return Answer(HTTPStatus.OK, {"healthy": True})
    if job := _JOB.fullmatch(path):
        return Answer(HTTPStatus.OK, {"job": _job(int(job[1]))})
    if job := _APPLICANTS.fullmatch(path):
        return Answer(HTTPStatus.OK, {"applicants": _applicants(int(job[1]))})
    return _problem(HTTPStatus.NOT_FOUND, "there is nothing here")


def write(path: str, body: bytes) -> Answer:
    """What `POST path` answers."""
    if path != "/jobs":
        return _problem(HTTPStatus.NOT_FOUND, "jobs are posted to /jobs")
    try:
        job = json.loads(body)
    except ValueError:
        return _problem(HTTPStatus.BAD_REQUEST, "a job is written in JSON")
    if not isinstance(job, dict):
        return _problem(HTTPStatus.BAD_REQUEST, "a job is a JSON object")
    return Answer(HTTPStatus.CREATED, {"job": job})


def address_text(address: Sequence[Any]) -> str:
    """Host and port of a socket address as one writes them, IPv4-mapped IPv6 as the IPv4 that it means."""
    host, port = str(address[0]), int(address[1])
    if ":" not in host:
        return f"{host}:{port}"
    mapped = IPv6Address(host).ipv4_mapped
    return f"{mapped}:{port}" if mapped else f"[{host}]:{port}"


def _job(number: int) -> dict[str, Any]:
    return {"id": number, "title": _TITLES[number % len(_TITLES)]}


def _applicants(job: int) -> list[dict[str, str]]:
    names = (_NAMES[(job + step) % len(_NAMES)] for step in range(2))
    return [{"name": name, "email": f"{name.lower()}@example.org"} for name in names]


def _problem(status: HTTPStatus, message: str) -> Answer:
    return Answer(status, {"error": message})


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until killed."""
    parser = argparse.ArgumentParser(
        prog="jobs_api", description="The Jobs API on every address, both families."
    )
    parser.add_argument("--port", type=int, default=80)
    with JobsServer(parser.parse_args(argv).port) as server:
        server.serve_forever()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
