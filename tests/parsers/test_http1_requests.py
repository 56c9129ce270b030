"""Requests: what is taken with which facts, and what is refused by which name, in every division of the bytes."""

from __future__ import annotations

from typing import Any

import pytest
from reading import NEXT, read_requests, same_in_every_division

from parsers.http1 import CHUNKED, REASONS, Limits, ParseError, RequestParser


def request(*lines: bytes, body: bytes = b"") -> bytes:
    """A request of these lines, each with CRLF, and an empty one."""
    return b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


def get(*fields: bytes, host: bytes = b"Host: a", body: bytes = b"") -> bytes:
    """GET / with these fields behind Host."""
    return request(b"GET / HTTP/1.1", host, *fields, body=body)


def post(*fields: bytes, body: bytes = b"") -> bytes:
    """POST / with these fields behind Host."""
    return request(b"POST / HTTP/1.1", b"Host: a", *fields, body=body)


def chunked(body: bytes) -> bytes:
    """POST / with this chunked body."""
    return post(b"Transfer-Encoding: chunked", body=body)


TAKEN: dict[str, tuple[bytes, dict[str, Any]]] = {
    "a plain GET": (
        request(b"GET /jobs/331?x=1 HTTP/1.1", b"Host: Jobs-API.hr:8080", b"Accept: */*"),
        {
            "method": b"GET",
            "target": b"/jobs/331?x=1",
            "path": b"/jobs/331?x=1",
            "host": b"jobs-api.hr:8080",
            "body": 0,
            "keep_alive": True,
            "http11": True,
            "upgrade": False,
            "headers": ((b"host", b"Jobs-API.hr:8080"), (b"accept", b"*/*")),
        },
    ),
    "field names in any case, white space around values": (
        get(b"X-A:\t v  w \t", b"x-b:", b"X-C: \t", b"X-D:\x80\xff", host=b"hOST:a"),
        {
            "headers": (
                (b"host", b"a"),
                (b"x-a", b"v  w"),
                (b"x-b", b""),
                (b"x-c", b""),
                (b"x-d", b"\x80\xff"),
            )
        },
    ),
    "one field twice": (get(b"X: 1", b"X: 2"), {"headers": ((b"host", b"a"), (b"x", b"1"), (b"x", b"2"))}),
    "a body with a length": (post(b"Content-Length: 5", body=b"hello"), {"body": 5}),
    "a body of line breaks": (post(b"content-length:4", body=b"\r\n\r\n"), {"body": 4}),
    "a length of nothing": (get(b"Content-Length: 0"), {"body": 0}),
    "a chunked body": (chunked(b"5\r\nhello\r\n0\r\n\r\n"), {"body": CHUNKED}),
    "chunked in capitals": (post(b"TRANSFER-ENCODING: CHUNKED", body=b"0\r\n\r\n"), {"body": CHUNKED}),
    "chunk sizes in both cases, and with zeros": (
        chunked(b'00a\r\n0123456789\r\nA;a;b=c;d="e f"\r\n0123456789\r\n000\r\n\r\n'),
        {"body": CHUNKED},
    ),
    "trailers": (chunked(b"1\r\nx\r\n0\r\nX-Sum: 1\r\nX-B:\r\n\r\n"), {"body": CHUNKED}),
    "close": (get(b"Connection: close"), {"keep_alive": False}),
    "close among others": (get(b"Connection: TE , ,close", b"TE: trailers"), {"keep_alive": False}),
    "keep-alive": (get(b"Connection: Keep-Alive"), {"keep_alive": True}),
    "close wins over keep-alive": (
        get(b"Connection: keep-alive", b"Connection: close"),
        {"keep_alive": False},
    ),
    "close wins over a later keep-alive": (
        get(b"Connection: close", b"Connection: keep-alive"),
        {"keep_alive": False},
    ),
    "HTTP/1.0 closes": (
        request(b"GET / HTTP/1.0", b"Host: a"),
        {"keep_alive": False, "http11": False, "host": b"a"},
    ),
    "HTTP/1.0 without Host": (request(b"GET / HTTP/1.0"), {"host": b"", "headers": ()}),
    "HTTP/1.0 keeps alive if asked": (
        request(b"POST / HTTP/1.0", b"Connection: keep-alive", b"Content-Length: 1", body=b"x"),
        {"keep_alive": True, "body": 1},
    ),
    "an absolute target": (
        request(b"GET HTTP://A:80/x?y HTTP/1.1", b"Host: a:80"),
        {"target": b"HTTP://A:80/x?y", "path": b"/x?y", "host": b"a:80"},
    ),
    "an absolute target without a path": (
        request(b"GET http://a HTTP/1.1", b"Host: A"),
        {"path": b"/", "host": b"a"},
    ),
    "an absolute target in HTTP/1.0": (request(b"GET http://b/ HTTP/1.0"), {"host": b"b"}),
    "OPTIONS of the server": (request(b"OPTIONS * HTTP/1.1", b"Host: a"), {"path": b"*"}),
    "an IPv6 host": (get(host=b"Host: [2001:DB8::1]:80"), {"host": b"[2001:db8::1]:80"}),
    "a host with a dot at its end": (get(host=b"Host: a.b."), {"host": b"a.b."}),
    "a host with an underscore": (get(host=b"Host: my_svc"), {"host": b"my_svc"}),
    "a port of five digits": (get(host=b"Host: a:65535"), {"host": b"a:65535"}),
    "an extension method": (request(b"M-SEARCH /x HTTP/1.1", b"Host: a"), {"method": b"M-SEARCH"}),
    "any byte that a target may have": (
        request(b"GET /" + bytes(c for c in range(0x21, 0x7F) if c != 0x23) + b" HTTP/1.1", b"Host: a"),
        {},
    ),
    "Expect": (
        post(b"expect: 100-Continue", b"Content-Length: 1", body=b"x"),
        {"expects_continue": True},
    ),
    "Expect without a body": (get(b"Expect: 100-continue"), {"expects_continue": False}),
    "Expect in HTTP/1.0": (
        request(b"POST / HTTP/1.0", b"Expect: 100-continue", b"Content-Length: 1", body=b"x"),
        {"expects_continue": False},
    ),
    "an upgrade": (get(b"Connection: keep-alive, Upgrade", b"Upgrade: websocket"), {"upgrade": True}),
    "Upgrade without its option": (get(b"Upgrade: websocket"), {"upgrade": False}),
    "Upgrade in HTTP/1.0": (
        request(b"GET / HTTP/1.0", b"Connection: upgrade", b"Upgrade: websocket"),
        {"upgrade": False},
    ),
    "fields that begin like those that decide": (
        get(
            b"Upgrade-Insecure-Requests: 1",
            b"Expires: 0",
            b"Content-Language: en",
            b"Connect: x",
            b"Transfer: y",
        ),
        {"upgrade": False, "body": 0, "keep_alive": True},
    ),
    "a field called almost like Host": (get(b"X-Host: b", b"Hosts: c"), {"host": b"a"}),
    "many fields": (get(*[b"X-%d: 1" % i for i in range(99)]), {}),
    "a long target": (request(b"GET /" + b"x" * 8170 + b" HTTP/1.1", b"Host: a"), {}),
}


@pytest.mark.parametrize("name", TAKEN)
def test_taken(name: str) -> None:
    """The message is read alike in every division, its bytes are kept, and what follows is not touched."""
    raw, expected = TAKEN[name]
    limits = Limits()
    if len(raw) > 2000:
        reading = read_requests([raw], limits)
        assert read_requests([raw[:1000], raw[1000:-1], raw[-1:]], limits) == reading
    else:
        reading = same_in_every_division(raw, NEXT)
    assert not reading.refused
    assert reading.complete
    assert reading.messages == [raw]
    [head] = reading.heads
    assert {fact: head[fact] for fact in expected} == expected


def test_taken_in_a_row() -> None:
    """All taken messages in one stream are the same messages, in every pace."""
    raws = [raw for raw, _ in TAKEN.values()]
    stream = b"".join(raws)
    for pace in (len(stream), 7, 64, 1000):
        chunks = [stream[i : i + pace] for i in range(0, len(stream), pace)]
        assert read_requests(chunks).messages == raws


def test_an_empty_line_before_a_request_is_nobodys() -> None:
    """One CRLF is passed over (RFC 9112 section 2.2) and is no part of the message."""
    reading = same_in_every_division(b"\r\n" + get(), b"\r\n" + NEXT)
    assert reading.messages == [get()]


REFUSED: dict[str, tuple[str, bytes]] = {
    # another protocol
    "a TLS hello": ("tls", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    "one byte of TLS": ("tls", b"\x16"),
    "the HTTP/2 preface": ("http2_preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    # line breaks and controls
    "bare LF ends": ("bare_line_break", b"GET / HTTP/1.1\nHost: a\n\n"),
    "bare LF in the request line": ("bare_line_break", b"GET /\n HTTP/1.1\r\nHost: a\r\n\r\n"),
    "bare LF ends one field": ("bare_line_break", get(b"A: b\nContent-Length: 5")),
    "bare LF before the end": ("bare_line_break", b"GET / HTTP/1.1\r\nHost: a\r\n\n\r\n"),
    "bare CR in a value": ("bare_line_break", get(b"A: b\rContent-Length: 5")),
    "CR CR LF": ("bare_line_break", get(b"A: b\r")),
    "bare CR at the start": ("bare_line_break", b"\r" + get()),
    "bare LF at the start": ("bare_line_break", b"\n" + get()),
    "two empty lines before a request": ("empty_lines", b"\r\n\r\n" + get()),
    "NUL in a value": ("control_character", get(b"A: b\0c")),
    "NUL in a name": ("control_character", get(b"A\0: b")),
    "vertical tab in a value": ("control_character", get(b"A: b\x0b")),
    "form feed before a value": ("control_character", get(b"Content-Length:\x0c5", body=b"hello")),
    "DEL in a value": ("control_character", get(b"A: \x7f")),
    "an escape in a target": ("control_character", request(b"GET /\x1b HTTP/1.1", b"Host: a")),
    # request line
    "no words": ("request_line", request(b"", b"Host: a")[2:].replace(b"Host", b"x", 1)),
    "two words": ("request_line", request(b"GET /", b"Host: a")),
    "four words": ("request_line", request(b"GET / x HTTP/1.1", b"Host: a")),
    "two spaces": ("request_line", request(b"GET  / HTTP/1.1", b"Host: a")),
    "a space before": ("request_line", request(b" GET / HTTP/1.1", b"Host: a")),
    "a space behind": ("request_line", request(b"GET / HTTP/1.1 ", b"Host: a")),
    "a tab between": ("request_line", request(b"GET\t/ HTTP/1.1", b"Host: a")),
    "a form feed between": ("control_character", request(b"GET\x0c/ HTTP/1.1", b"Host: a")),
    "a method with a colon": ("method", request(b"GET: / HTTP/1.1", b"Host: a")),
    "a long method": ("method", request(b"G" * 33 + b" / HTTP/1.1", b"Host: a")),
    "a small method": ("method_case", request(b"get / HTTP/1.1", b"Host: a")),
    "a method of both cases": ("method_case", request(b"Get / HTTP/1.1", b"Host: a")),
    "CONNECT": ("connect", request(b"CONNECT a:443 HTTP/1.1", b"Host: a:443")),
    "CONNECT to a path": ("connect", request(b"CONNECT /x HTTP/1.1", b"Host: a")),
    "HTTP/2": ("version", request(b"GET / HTTP/2.0", b"Host: a")),
    "HTTP/1.2": ("version", request(b"GET / HTTP/1.2", b"Host: a")),
    "HTTP/0.9": ("version", request(b"GET / HTTP/0.9", b"Host: a")),
    "a small version": ("request_line", request(b"GET / http/1.1", b"Host: a")),
    "a version of two digits": ("request_line", request(b"GET / HTTP/1.10", b"Host: a")),
    "a signed version": ("request_line", request(b"GET / HTTP/+1.1", b"Host: a")),
    # fields
    "a folded field": ("obs_fold", get(b"A: b", b" c")),
    "a folded first field": ("obs_fold", request(b"GET / HTTP/1.1", b" Host: a")),
    "a fold that hides a length": ("obs_fold", get(b"Content-Length:", b"\t5", body=b"hello")),
    "a space before the colon": ("space_before_colon", get(b"Content-Length : 5", body=b"hello")),
    "a tab before the colon": ("space_before_colon", get(b"Transfer-Encoding\t: chunked", body=b"0\r\n\r\n")),
    "no colon": ("field_line", get(b"Content-Length 5")),
    "no name": ("field_line", get(b": 5")),
    "a space in a name": ("field_line", get(b"Content Length: 5")),
    "a name with a byte beyond ASCII": ("field_line", get(b"Content-Length\xa0: 5", body=b"hello")),
    "a name with NEL": ("field_line", get(b"\x85Content-Length: 5")),
    "a name with brackets": ("field_line", get(b"A[]: 5")),
    # target
    "a byte beyond ASCII": ("target_bytes", request(b"GET /\xe9 HTTP/1.1", b"Host: a")),
    "a fragment": ("fragment", request(b"GET /a#b HTTP/1.1", b"Host: a")),
    "only a fragment": ("fragment", request(b"GET # HTTP/1.1", b"Host: a")),
    "a relative path": ("target_form", request(b"GET a HTTP/1.1", b"Host: a")),
    "an authority": ("target_form", request(b"GET a:80 HTTP/1.1", b"Host: a")),
    "GET *": ("target_form", request(b"GET * HTTP/1.1", b"Host: a")),
    "an https target": ("target_form", request(b"GET https://a/ HTTP/1.1", b"Host: a")),
    "a file target": ("target_form", request(b"GET file:///a HTTP/1.1", b"Host: a")),
    "an absolute target with one slash": ("target_form", request(b"GET http:/a/ HTTP/1.1", b"Host: a")),
    "an absolute target without a host": ("target_form", request(b"GET http:/// HTTP/1.1", b"Host: a")),
    "an absolute target with a user": ("target_form", request(b"GET http://u@a/ HTTP/1.1", b"Host: a")),
    "an absolute target with a query alone": ("target_form", request(b"GET http://a?x HTTP/1.1", b"Host: a")),
    "an absolute target with a backslash": (
        "host_malformed",
        request(b"GET http://a\\b/ HTTP/1.1", b"Host: a"),
    ),
    # host
    "no Host": ("host_missing", request(b"GET / HTTP/1.1")),
    "no Host but an absolute target": ("host_missing", request(b"GET http://a/ HTTP/1.1")),
    "Host twice": ("host_repeated", get(b"Host: b")),
    "the same Host twice": ("host_repeated", get(b"Host: a")),
    "Host twice in HTTP/1.0": ("host_repeated", request(b"GET / HTTP/1.0", b"Host: a", b"HOST: a")),
    "an empty Host": ("host_malformed", get(host=b"Host:")),
    "a list of hosts": ("host_malformed", get(host=b"Host: a, b")),
    "a Host with a space": ("host_malformed", get(host=b"Host: a b")),
    "a Host with a user": ("host_malformed", get(host=b"Host: u@a")),
    "a Host with a path": ("host_malformed", get(host=b"Host: a/b")),
    "a Host with percent-encoding": ("host_malformed", get(host=b"Host: %61")),
    "a Host beyond ASCII": ("host_malformed", get(host=b"Host: \xe4")),
    "a Host with an empty label": ("host_malformed", get(host=b"Host: a..b")),
    "a Host that is a dot": ("host_malformed", get(host=b"Host: .")),
    "a Host with no port": ("host_malformed", get(host=b"Host: a:")),
    "a Host with only a port": ("host_malformed", get(host=b"Host: :80")),
    "a Host with a port of letters": ("host_malformed", get(host=b"Host: a:b")),
    "a Host with a signed port": ("host_malformed", get(host=b"Host: a:+80")),
    "a Host with a port of zeros": ("host_malformed", get(host=b"Host: a:080")),
    "a Host with a large port": ("host_malformed", get(host=b"Host: a:65536")),
    "a Host with two ports": ("host_malformed", get(host=b"Host: a:80:80")),
    "a bare IPv6 Host": ("host_malformed", get(host=b"Host: ::1")),
    "an IPv6 Host that is none": ("host_malformed", get(host=b"Host: [:::1]")),
    "an IPv6 Host with a zone": ("host_malformed", get(host=b"Host: [fe80::1%25eth0]")),
    "an IPv6 Host left open": ("host_malformed", get(host=b"Host: [::1")),
    "an absolute target of another host": ("host_mismatch", request(b"GET http://b/ HTTP/1.1", b"Host: a")),
    "an absolute target of another port": (
        "host_mismatch",
        request(b"GET http://a:80/ HTTP/1.1", b"Host: a"),
    ),
    # framing
    "two lengths": (
        "content_length_repeated",
        get(b"Content-Length: 5", b"Content-Length: 6", body=b"hello"),
    ),
    "the same length twice": (
        "content_length_repeated",
        get(b"Content-Length: 5", b"content-length: 5", body=b"hello"),
    ),
    "a list of one length": ("content_length", get(b"Content-Length: 5, 5", body=b"hello")),
    "a signed length": ("content_length", get(b"Content-Length: +5", body=b"hello")),
    "a negative length": ("content_length", get(b"Content-Length: -5", body=b"hello")),
    "an empty length": ("content_length", get(b"Content-Length:")),
    "a length in words": ("content_length", get(b"Content-Length: five")),
    "a length in hexadecimal": ("content_length", get(b"Content-Length: 0x5", body=b"hello")),
    "a length with an underscore": ("content_length", get(b"Content-Length: 1_0")),
    "a length with a zero before": ("content_length", get(b"Content-Length: 05", body=b"hello")),
    "a length with a fraction": ("content_length", get(b"Content-Length: 5.0", body=b"hello")),
    "a length with an exponent": ("content_length", get(b"Content-Length: 5e0", body=b"hello")),
    "a length with junk behind": ("content_length", get(b"Content-Length: 5 bytes", body=b"hello")),
    "a length with two numbers": ("content_length", get(b"Content-Length: 5 5", body=b"hello")),
    "a length in other digits": ("content_length", get(b"Content-Length: \xd9\xa5", body=b"hello")),
    "a length with a hard space": ("content_length", get(b"Content-Length: 5\xa0", body=b"hello")),
    "a length with NEL": ("content_length", get(b"Content-Length: \x855", body=b"hello")),
    "a length in quotes": ("content_length", get(b'Content-Length: "5"', body=b"hello")),
    "a length beyond 64 bits": (
        "content_length",
        get(b"Content-Length: 18446744073709551621", body=b"hello"),
    ),
    "length and coding": (
        "length_and_chunked",
        post(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    ),
    "coding and length": (
        "length_and_chunked",
        post(b"Transfer-Encoding: chunked", b"Content-Length: 5", body=b"0\r\n\r\n"),
    ),
    "length and a coding that is none": (
        "length_and_chunked",
        post(b"Content-Length: 5", b"Transfer-Encoding: identity", body=b"hello"),
    ),
    "a length of 0 and coding": (
        "length_and_chunked",
        post(b"Content-Length: 0", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    ),
    "coding twice": (
        "transfer_encoding_repeated",
        post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    ),
    "coding twice, once hidden": (
        "transfer_encoding_repeated",
        post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: cow", body=b"0\r\n\r\n"),
    ),
    **{
        f"Transfer-Encoding: {value!r}": (
            "transfer_encoding",
            post(b"Transfer-Encoding:" + value, body=b"0\r\n\r\n"),
        )
        for value in (
            b" identity",
            b" gzip, chunked",
            b" chunked, gzip",
            b" chunked, chunked",
            b" chunked,",
            b" ,chunked",
            b" xchunked",
            b" chunkedx",
            b" chunked;q=1",
            b' "chunked"',
            b" 'chunked'",
            b" chunk",
            b" chunked chunked",
            b" chunked\xa0",
            b" \x85chunked",
            b" chunKed\xe2\x84\xaa",
            b" chun\xe2\x84\xaaed",
            b"",
        )
    },
    "coding in HTTP/1.0": (
        "transfer_encoding_http10",
        request(b"POST / HTTP/1.0", b"Host: a", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    ),
    **{
        f"{name!r} as a framing field": ("field_look_alike", post(name + b": 5", body=b"hello"))
        for name in (
            b"Content_Length",
            b"content.length",
            b"Content~Length",
            b"Transfer_Encoding",
            b"TRANSFER.ENCODING",
        )
    },
    "GET with a body": ("unexpected_body", get(b"Content-Length: 2", body=b"{}")),
    "GET with chunks": ("unexpected_body", get(b"Transfer-Encoding: chunked", body=b"0\r\n\r\n")),
    "OPTIONS with a body": (
        "unexpected_body",
        request(b"OPTIONS * HTTP/1.1", b"Host: a", b"Content-Length: 1", body=b"x"),
    ),
    "HEAD with a body": (
        "unexpected_body",
        request(b"HEAD / HTTP/1.1", b"Host: a", b"Content-Length: 1", body=b"x"),
    ),
    "TRACE with chunks": (
        "unexpected_body",
        request(b"TRACE / HTTP/1.1", b"Host: a", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    ),
    # chunks
    **{
        f"chunk size {size!r}": ("chunk_size", chunked(size + b"\r\nhello\r\n0\r\n\r\n"))
        for size in (
            b"",
            b" 5",
            b"5 ",
            b"\t5",
            b"+5",
            b"-5",
            b"0x5",
            b"5h",
            b"1_0",
            b"g",
            b"000000005",
            b"100000005",
            b"80000000",
            b"ffffffffffffffff5",
            b"5\xa0",
            b"\xd9\xa5",
            b"5,5",
            b"5 ;a",
            b"5\t;a",
            b"\x005",
            b"5\x0b",
            b"5\r",
            b"5\n",
            b"5\rX",
        )
    },
    "a chunk size that a bare LF ends": ("chunk_size", chunked(b"5\nhello\r\n0\r\n\r\n")),
    "a last chunk that a bare LF ends": ("chunk_size", chunked(b"0\n\r\n")),
    **{
        f"chunk extension {extension!r}": (
            "chunk_extension",
            chunked(b"5" + extension + b"\r\nhello\r\n0\r\n\r\n"),
        )
        for extension in (
            b";",
            b"; a",
            b";a =b",
            b";a= b",
            b";a=",
            b";=b",
            b";a;",
            b';a="b',
            b';a="b"c',
            b';a="\\""',
            b";a=b\x00",
            b";a\nb",
            b";\n",
            b";a=b\n",
            b";a\r",
            b";a\rb",
            b";a\x85",
            b";a,b",
        )
    },
    "chunk data longer than its size": ("chunk_end", chunked(b"5\r\nhello!\r\n0\r\n\r\n")),
    "chunk data ended by LF": ("chunk_end", chunked(b"5\r\nhello\n0\r\n\r\n")),
    "chunk data ended by CR": ("chunk_end", chunked(b"5\r\nhello\r0\r\n\r\n")),
    "chunk data shorter than its size": ("chunk_end", chunked(b"6\r\nhello\r\n0\r\n\r\n")),
    "a trailer without a colon": ("trailer", chunked(b"0\r\nabc\r\n\r\n")),
    "a trailer with a space before the colon": ("trailer", chunked(b"0\r\na : b\r\n\r\n")),
    "a folded trailer": ("trailer", chunked(b"0\r\na: b\r\n c\r\n\r\n")),
    "a trailer ended by LF": ("trailer", chunked(b"0\r\na: b\nc: d\r\n\r\n")),
    "trailers ended by LF": ("trailer", chunked(b"0\r\n\n")),
    "a trailer with NUL": ("trailer", chunked(b"0\r\na: \0\r\n\r\n")),
    "a trailer with CR": ("trailer", chunked(b"0\r\na: b\rc\r\n\r\n")),
    **{
        f"trailer {name!r}": ("trailer_field", chunked(b"0\r\n" + name + b": 5\r\n\r\n"))
        for name in (
            b"Content-Length",
            b"transfer-encoding",
            b"Host",
            b"Transfer_Encoding",
            b"AUTHORIZATION",
            b"Cookie",
        )
    },
    # connection
    "Connection names the length": (
        "connection_option",
        post(b"Connection: content-length", b"Content-Length: 1", body=b"x"),
    ),
    "Connection names the coding": ("connection_option", get(b"Connection: close, Transfer-Encoding")),
    "Connection names Host": ("connection_option", get(b"Connection: Host")),
    "Connection names a field that is there": ("connection_option", get(b"Connection: x-user", b"X-User: a")),
    "Connection with a space": ("connection_option", get(b"Connection: keep alive")),
    "Connection in quotes": ("connection_option", get(b'Connection: "close"')),
    "another Expect": ("expect", get(b"Expect: 200-ok")),
    "Expect with a parameter": ("expect", get(b"Expect: 100-continue;x")),
    "Expect with two members": ("expect", get(b"Expect: 100-continue, 100-continue")),
    "Expect twice": ("expect", get(b"Expect: 100-continue", b"Expect: 100-continue")),
    "an empty Expect": ("expect", get(b"Expect:")),
    "another Expect in HTTP/1.0": ("expect", request(b"GET / HTTP/1.0", b"Expect: y")),
    "Upgrade: h2c": ("upgrade_http", get(b"Connection: Upgrade", b"Upgrade: h2c")),
    "Upgrade: h2c as curl --http2 sends it": (
        "upgrade_http",
        get(
            b"Connection: Upgrade, HTTP2-Settings",
            b"Upgrade: h2c",
            b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA",
        ),
    ),
    "Upgrade: h2c among others": ("upgrade_http", get(b"Connection: Upgrade", b"Upgrade: websocket, H2C")),
    "Upgrade: h2c without its option": ("upgrade_http", get(b"Upgrade: h2c")),
    "Upgrade to TLS": ("upgrade_http", get(b"Connection: Upgrade", b"Upgrade: TLS/1.3, HTTP/1.1")),
    "HTTP2-Settings": ("http2_settings", get(b"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA")),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    """The message is refused by the same name in every division, with and without bytes behind it."""
    reason, raw = REFUSED[name]
    reading = same_in_every_division(raw, b"")
    assert reading.refused == reason
    assert reading.messages == []
    assert read_requests([raw + NEXT]).refused == reason


@pytest.mark.parametrize("name", REFUSED)
def test_refused_behind_another(name: str) -> None:
    """A message before the refused one is taken, whole and alone."""
    reason, raw = REFUSED[name]
    reading = read_requests([NEXT + raw])
    assert (reading.refused, reading.messages) == (reason, [NEXT])


SMALL = Limits(
    max_request_line=64,
    max_head=256,
    max_fields=4,
    max_chunk_line=24,
    max_chunk_overhead=20,
    max_trailers=32,
    max_trailer_fields=2,
)
AT_THE_LIMIT: dict[str, tuple[str, bytes, bytes]] = {
    "request line": (
        "limit_request_line",
        request(b"GET /" + b"x" * 50 + b" HTTP/1.1", b"Host: a"),
        request(b"GET /" + b"x" * 51 + b" HTTP/1.1", b"Host: a"),
    ),
    "request line without an end": ("limit_request_line", get(), b"GET /" + b"x" * 300),
    "head": ("limit_head", get(b"a: " + b"x" * 224), get(b"a: " + b"x" * 225)),
    "head without an end": ("limit_head", get(), b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200),
    "fields": ("limit_fields", get(b"a: 1", b"b: 1", b"c: 1"), get(b"a: 1", b"b: 1", b"c: 1", b"d: 1")),
    "list": (
        "long_list",
        get(b"Connection: close" + b"," * 31),
        get(b"Connection: close" + b"," * 32),
    ),
    "chunk line": (
        "limit_chunk_framing",
        chunked(b"1;" + b"a" * 20 + b"\r\nx\r\n0\r\n\r\n"),
        chunked(b"1;" + b"a" * 21 + b"\r\nx\r\n0\r\n\r\n"),
    ),
    "chunk overhead": (
        "limit_chunk_framing",
        chunked(b"1;aaaaaaaaaaaaaaaa\r\nx\r\n" * 5 + b"0\r\n\r\n"),
        chunked(b"1;aaaaaaaaaaaaaaaa\r\nx\r\n" * 6 + b"0\r\n\r\n"),
    ),
    "trailers": (
        "limit_trailers",
        chunked(b"0\r\na: " + b"x" * 23 + b"\r\n\r\n"),
        chunked(b"0\r\na: " + b"x" * 24 + b"\r\n\r\n"),
    ),
    "trailers without an end": ("limit_trailers", get(), chunked(b"0\r\na: " + b"x" * 100)),
    "trailer fields": (
        "limit_trailers",
        chunked(b"0\r\na:\r\nb:\r\n\r\n"),
        chunked(b"0\r\na:\r\nb:\r\nc:\r\n\r\n"),
    ),
}


@pytest.mark.parametrize("name", AT_THE_LIMIT)
def test_limits(name: str) -> None:
    """What is just within a bound is taken, what is one beyond it is refused, in every division."""
    reason, within, beyond = AT_THE_LIMIT[name]
    assert not same_in_every_division(within, NEXT, limits=SMALL).refused
    assert same_in_every_division(beyond, b"", limits=SMALL).refused == reason


def test_bodies_on_get_pass_where_allowed() -> None:
    """An operator whose servers expect them may allow bodies on GET and OPTIONS, but not on HEAD and TRACE."""
    limits = Limits(bodies_on_get=True)
    raw = get(b"Content-Length: 2", body=b"{}")
    reading = same_in_every_division(raw, NEXT, limits=limits)
    assert (reading.refused, reading.messages) == ("", [raw])
    for method in (b"HEAD", b"TRACE"):
        assert read_requests([raw.replace(b"GET", method)], limits).refused == "unexpected_body"


def test_every_reason_can_happen() -> None:
    """Each reason in the table is shown by a case, but for those that others tell: the flow, h11, the edits."""
    shown = {reason for reason, _ in REFUSED.values()} | {reason for reason, _, _ in AT_THE_LIMIT.values()}
    assert set(REASONS) - shown == {"truncated", "malformed", "edit_look_alike", "edit_trace"}


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        (b"GET / HTTP/1.1\r\nAuthorization: s3cret\x01\r\n\r\n", "Authorization"),
        (b"GET / HTTP/1.1\r\nAuthorization: s3cret\nA: b\r\n\r\n", "Authorization"),
        (b"GET / HTTP/1.1\r\nAuthorization:\r\n Bearer: s3cret\nA: b\r\n\r\n", ""),
        (b"GET / HTTP/1.1\r\nAuthorization:\r\n s3cret\r\n\r\n", ""),
        (b"GET / HTTP/1.1\r\nAuthorization : s3cret\r\n\r\n", "Authorization"),
        (b"GET / HTTP/1.1\r\nAuthorization s3cret\r\n\r\n", ""),
        (b"GET / HTTP/1.1\r\nAuth orization: s3cret\r\n\r\n", "Auth orization"),
        (b"GET / HTTP/1.1\r\n" + b"a:b\r\n" * 100 + b"Authorization: s3cret\r\n\r\n", "Authorization"),
        (chunked(b"0\r\nAuthorization : s3cret\r\n\r\n"), "Authorization"),
        (chunked(b"0\r\nX-Token: s3cret\x01\r\n"), "X-Token"),
        (chunked(b"0\r\nA: b\r\nX-Token: s3cret\x01"), "X-Token"),
    ],
)
def test_refusals_show_no_value_of_a_field(raw: bytes, named: str) -> None:
    """A credential in a line that cannot be read does not come into the log: the field's name does."""
    parser = RequestParser(Limits())
    parser.receive(raw)
    with pytest.raises(ParseError) as refused:
        parser.next_event()
    assert "s3cret" not in refused.value.detail
    assert named in refused.value.detail


def test_limits_that_could_read_nothing_are_refused() -> None:
    """A bound too small for any message is a mistake of the configuration, told by its name."""
    with pytest.raises(ValueError, match="max_head is 100; it must be at least 256"):
        Limits(max_head=100)
