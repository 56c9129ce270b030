"""Questions: what is read of them, and that a described request is read as the proxy reads it."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kproxy import questions
from kproxy.errors import UsageError
from kproxy.questions import Described
from parsers.http1 import Limits

BASE = [("from", "a"), ("to", "jobs-api"), ("port", "80")]


def described(*pairs: tuple[str, str], base: list[tuple[str, str]] = BASE) -> Described:
    """The request of a question."""
    return questions.described(questions.read([*base, *pairs]), Limits())


@pytest.mark.parametrize(
    ("pairs", "told", "mend"),
    [
        ([("form", "a")], "unknown key 'form'", "did you mean from?"),
        ([("x", "a")], "unknown key 'x'", "known are from, to, port"),
        ([*BASE, ("port", "81")], "port is given twice", "once"),
        ([("from", "")], "from is empty", "name a workload"),
        ([("from", "a"), ("to", "b"), ("port", "http")], "'http' is not a port", "1 to 65535"),
        ([("from", "a"), ("to", "b"), ("port", "0")], "'0' is not a port", "1 to 65535"),
        ([("from", "a"), ("to", "b"), ("port", "65536")], "'65536' is not a port", ""),
        ([("from", "a"), ("to", "b"), ("port", "٨٠")], "'٨٠' is not a port", ""),
        ([("to", "b"), ("port", "80")], "a connection has two ends", "both from and to"),
        ([("from", "a"), ("to", "b"), ("path", "/")], "a request goes to a port", "give the port"),
        ([("to", "b"), ("protocol", "udp")], "a protocol without a port", ""),
        ([*BASE, ("protocol", "sctp")], "protocol 'sctp' is not known", "tcp or udp"),
        ([*BASE, ("protocol", "udp"), ("method", "GET")], "HTTP requests go over tcp", ""),
        ([*BASE, ("header", "X-Role")], "the header 'X-Role' has no colon", "'Name: value'"),
    ],
)
def test_what_is_no_question(pairs: list[tuple[str, str]], told: str, mend: str) -> None:
    """Each is wrong usage, with what is wrong and what to write instead."""
    with pytest.raises(UsageError, match=told) as caught:
        questions.read(pairs)
    assert mend in caught.value.mend
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("pairs", "request_line", "host"),
    [
        ([("path", "/x?y=1")], b"GET /x?y=1 HTTP/1.1", b"jobs-api"),
        ([("method", "POST")], b"POST / HTTP/1.1", b"jobs-api"),
        ([("host", "Jobs.hr:80")], b"GET / HTTP/1.1", b"jobs.hr:80"),
        ([("header", "Host: a")], b"GET / HTTP/1.1", b"a"),
        ([("path", "http://b/x"), ("host", "b")], b"GET http://b/x HTTP/1.1", b"b"),
    ],
)
def test_what_is_not_said_is_what_a_client_sends(
    pairs: list[tuple[str, str]], request_line: bytes, host: bytes
) -> None:
    """GET, /, and the server's name as Host."""
    head = described(*pairs).head
    assert head is not None
    assert (head.raw.split(b"\r\n")[0], head.host) == (request_line, host)


@pytest.mark.parametrize(
    ("server", "port", "host"),
    [
        ("hr/jobs-api", "80", "jobs-api"),
        ("jobs-api", "8080", "jobs-api:8080"),
        ("10.0.0.2", "80", "10.0.0.2"),
        ("fd00::2", "8080", "[fd00::2]:8080"),
        ("cidr:9.0.0.0/8", "80", "server"),
    ],
)
def test_the_host_that_a_client_would_send(server: str, port: str, host: str) -> None:
    """The name or address that it called, and the port unless it is http's own."""
    base = [("from", "a"), ("to", server), ("port", port)]
    found = described(("path", "/"), base=base)
    assert found.head is not None
    assert (found.assumed_host, found.head.host.decode()) == (host, host)


@pytest.mark.parametrize(
    ("pairs", "reason", "status"),
    [
        ([("method", "get")], "method_case", 400),
        ([("method", "GE T")], "request_line", 400),
        ([("method", "")], "request_line", 400),
        ([("path", "")], "request_line", 400),
        ([("path", "/a\r\nb")], "request_line", 400),
        ([("path", "/a b")], "request_line", 400),
        ([("path", "/\x1b[31m")], "control_character", 400),
        ([("path", "/" + "a" * 9000)], "limit_request_line", 414),
        ([("path", "/caf\u00e9")], "target_bytes", 400),
        ([("path", "/\udcff")], "target_bytes", 400),
        ([("host", "a b")], "host_malformed", 400),
        ([("host", "a"), ("header", "Host: b")], "host_repeated", 400),
        ([("header", "X : y")], "space_before_colon", 400),
        (
            [("header", "Content-Length: 1"), ("header", "Transfer-Encoding: chunked")],
            "length_and_chunked",
            400,
        ),
    ],
)
def test_what_the_proxy_refuses(pairs: list[tuple[str, str]], reason: str, status: int) -> None:
    """The parser's own reason and answer; nothing of it is repaired."""
    found = described(*pairs)
    assert found.head is None
    assert found.refusal is not None
    assert (found.refusal.reason, found.refusal.status) == (reason, status)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("path", "/ HTTP/1.1\r\nX: y"),
        ("path", "/ HTTP/1.1\r\nHost: a\r\n\r\nGET /secret"),
        ("header", "X: y\r\nZ: other"),
        ("method", "GET / HTTP/1.1\r\nHost: y\r\n\r\nGET"),
    ],
)
def test_a_part_that_is_more_than_one_part(key: str, text: str) -> None:
    """What would be read as something else than what was described gets no answer."""
    with pytest.raises(UsageError, match="no single request"):
        described((key, text), ("host", "a"))


texts = st.text(st.characters(max_codepoint=0x2100)) | st.text("GET /:\r\n.HTP1a")


@given(method=texts, path=texts, host=texts, header=texts)
@example(method="GET", path="/", host="a", header="X:y")
def test_any_words_are_read_refused_or_wrong_usage(method: str, path: str, host: str, header: str) -> None:
    """Whatever is described: where it is read, it is read as exactly what was described."""
    pairs = [("method", method), ("path", path), ("host", host), ("header", f"X:{header}")]
    try:
        found = described(*pairs)
    except UsageError:
        return
    if found.head is not None:
        assert (found.head.method.decode(), found.head.target.decode()) == (method, path)
        assert [name for name, _ in found.head.headers] == [b"host", b"x"]
