"""A whole request head to its facts: the strict regex for plain ones, checks and h11 for the rest.

The regex accepts a subset of what the slow way accepts, with the same facts (a property test says so);
what it does not match is not wrong, only not plain.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from parsers.http1 import framing, reference, syntax
from parsers.http1.events import CHUNKED
from parsers.http1.grammar import FIELD_LINE, OWS, REG_NAME, TARGET_BYTE, split_fields
from parsers.http1.heads import Fields, RequestHead
from parsers.http1.limits import MAX_LENGTH_DIGITS, MAX_METHOD, Limits
from parsers.http1.reasons import refusal
from parsers.http1.target import check_host, split_target

Match = Callable[[bytes, int], "re.Match[bytes] | None"]

# Safe methods (RFC 9110 section 9.2.1) mean nothing by a body, and servers that expect none with them read
# it as the next request: so may a GET carry a POST past the rules. Only GET and OPTIONS may be allowed one.
_SAFE_METHODS: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE"))
_NEVER_WITH_BODY: Final = frozenset((b"HEAD", b"TRACE"))

# Any field but those that decide framing, routing or the connection, and their look-alikes. The first
# letter alone lets most names pass; that it also holds back a few harmless names costs only time.
_PLAIN: Final = (
    rb"(?![CHTUEchtue](?:[Oo][Nn](?:[Nn][Ee][Cc]|[Tt][Ee][Nn][Tt][^A-Za-z0-9][Ll][Ee])"
    rb"|[Oo][Ss][Tt]:|[Tt][Tt][Pp]2|[Rr][Aa][Nn][Ss]|[Pp][Gg][Rr][Aa][Dd][Ee]:|[Xx][Pp][Ee][Cc][Tt]:))"
) + FIELD_LINE
_HOST: Final = (
    rb"[Hh][Oo][Ss][Tt]:"
    + OWS
    + rb"("
    + REG_NAME
    + rb"(?::(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}))?)"
    + OWS
    + rb"\r\n"
)
# Each at most once, and only in the form that needs no thought; groups 4, 5 and 6.
_SPECIAL: Final = (
    rb"(?(4)(?!)|(?i:connection):" + OWS + rb"((?i:keep-alive|close))" + OWS + rb"\r\n)"
    rb"|(?(5)(?!)|(?i:content-length):"
    + OWS
    + rb"(0|[1-9][0-9]{0,%d})" % (MAX_LENGTH_DIGITS - 1)
    + OWS
    + rb"\r\n)"
    rb"|(?(6)(?!)|(?i:transfer-encoding):" + OWS + rb"((?i:chunked))" + OWS + rb"\r\n)"
)
_NOTHING_SPECIAL: Final = 3  # re.Match.lastindex when only method, target and host were captured


def _run_of_plain(most: int) -> bytes:
    return rb"(?:" + _PLAIN + rb"){0,%d}" % most


@lru_cache(maxsize=8)
def fast_matcher(limits: Limits) -> Match:
    """The `match` of the strict regex for these limits: `(data, offset)` to a whole plain head, or None.

    Groups: method, target, host, Connection, Content-Length, Transfer-Encoding.
    """
    most = limits.max_fields
    # Host, three special fields, and runs of plain ones: together never more than max_fields.
    before, after_host, after_special = most // 4, most // 2, most // 16
    target = rb"(/" + TARGET_BYTE + rb"{0,%d})" % (limits.max_request_line - MAX_METHOD - len("  /HTTP/1.1"))
    pattern = (
        rb"(?!CONNECT )([A-Z]{1,%d}) " % MAX_METHOD
        + target
        + rb" HTTP/1\.1\r\n"
        + _run_of_plain(before)
        + _HOST
        + _run_of_plain(after_host)
        + rb"(?:(?:"
        + _SPECIAL
        + rb")"
        + _run_of_plain(after_special)
        + rb"){0,3}\r\n"
    )
    return re.compile(pattern).match


def from_match(match: re.Match[bytes], raw: bytes) -> RequestHead | None:
    """The head that the fast regex matched as `raw`, or None if the slow way must decide after all."""
    if match.lastindex == _NOTHING_SPECIAL:
        method, target, host = match.group(1, 2, 3)
        return RequestHead(raw, method, target, target, host.lower(), 0, True)
    method, target, host, connection, length, coding = match.groups()
    if coding is not None and length is not None:
        return None
    body = CHUNKED if coding is not None else int(length or 0)
    if body != 0 and method in _SAFE_METHODS:
        return None
    keep_alive = connection is None or connection[0] in b"kK"
    return RequestHead(raw, method, target, target, host.lower(), body, keep_alive)


def read_request_head(raw: bytes, limits: Limits) -> RequestHead:
    """The facts of a whole head whose line breaks are checked; raises ParseError."""
    line = syntax.check_request(raw, limits)
    fields = split_fields(raw, raw.index(b"\r\n") + 2)
    http11 = line.version == b"1.1"
    path, host = _path_and_host(line, fields, http11)
    body = _body(line.method, fields, http11, limits)
    options = framing.connection_options(fields)
    expects_continue = _expects_continue(fields)
    upgrade = _asks_upgrade(fields, options)
    reference.agree(raw, reference.Reading(line.method, line.target, http11, fields), limits)
    return RequestHead(
        raw,
        line.method,
        line.target,
        path,
        host,
        body,
        framing.keeps_alive(options, http11),
        http11=http11,
        expects_continue=expects_continue and http11 and body != 0,
        upgrade=upgrade and http11,
    )


def _path_and_host(line: syntax.RequestLine, fields: Fields, http11: bool) -> tuple[bytes, bytes]:
    """What rules judge of the target and Host (RFC 9112 section 3.2 and 3.3)."""
    path, authority = split_target(line.method, line.target)
    hosts = framing.values_of(fields, b"host")
    if len(hosts) > 1:
        raise refusal("host_repeated", b", ".join(hosts))
    if not hosts:
        if http11:
            raise refusal("host_missing")
        return path, authority
    host = check_host(hosts[0])
    if authority and authority != host:
        raise refusal("host_mismatch", host + b" in Host, " + authority + b" in the target")
    return path, host


def _body(method: bytes, fields: Fields, http11: bool, limits: Limits) -> int:
    framing.check_look_alikes(fields)
    body = framing.body_of(fields, http11) or 0
    refused = _NEVER_WITH_BODY if limits.bodies_on_get else _SAFE_METHODS
    if body != 0 and method in refused:
        raise refusal("unexpected_body", method)
    return body


def _expects_continue(fields: Fields) -> bool:
    """Whether Expect is there, and the one expectation there is (RFC 9110 section 10.1.1)."""
    values = framing.values_of(fields, b"expect")
    if values and (len(values) > 1 or values[0].lower() != b"100-continue"):
        raise refusal("expect", b", ".join(values))
    return bool(values)


def _asks_upgrade(fields: Fields, options: list[bytes]) -> bool:
    """Whether another protocol is asked for; Upgrade counts only with its Connection option.

    An upgrade to HTTP/2 (RFC 7540 section 3.2) or to TLS (RFC 2817) would carry requests past the rules.
    """
    protocols = framing.list_of(framing.values_of(fields, b"upgrade"))
    for protocol in protocols:
        if protocol.startswith((b"h2", b"h3", b"http", b"tls")):
            raise refusal("upgrade_http", protocol)
    if framing.values_of(fields, b"http2-settings"):
        raise refusal("http2_settings")
    return bool(protocols) and b"upgrade" in options
