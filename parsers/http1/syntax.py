"""The line-by-line strictness that h11, the reference, does not have, each refusal with its own name."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from parsers.http1.grammar import TARGET_BYTE, TOKEN, control_re, token_re
from parsers.http1.limits import MAX_METHOD, Limits
from parsers.http1.reasons import name_in, refusal

_request_line_re: Final = re.compile(rb"(" + TOKEN + rb") (" + TARGET_BYTE + rb"+) HTTP/(1\.[01])")
_target_re: Final = re.compile(rb"[!-~]+")
_version_re: Final = re.compile(rb"HTTP/[0-9]\.[0-9]")
_PREFACE_LINE: Final = b"PRI * HTTP/2.0"


class RequestLine(NamedTuple):
    """The three words of a request line; version is `1.0` or `1.1`."""

    method: bytes
    target: bytes
    version: bytes


def check_request(raw: bytes, limits: Limits) -> RequestLine:
    """Check a whole head whose line breaks are all CRLF; returns its request line.

    Raises ParseError for anything that is not the strict form of RFC 9112.
    """
    control = control_re.search(raw)
    first, *lines = raw[: -len(b"\r\n\r\n")].split(b"\r\n")
    if control is not None and control.start() < len(first):
        raise refusal("control_character", first)
    line = _request_line(first)
    if control is not None:
        line_begins = raw.rfind(b"\r\n", 0, control.start()) + 2
        raise refusal("control_character", name_in(raw[line_begins:]) + control[0])
    check_fields(lines, limits.max_fields, "limit_fields")
    return line


def _request_line(line: bytes) -> RequestLine:
    match = _request_line_re.fullmatch(line)
    if match is None:
        raise refusal(_what_is_wrong(line), line)
    method, target, version = match.groups()
    if len(method) > MAX_METHOD:
        raise refusal("method", method)
    if method == b"CONNECT":
        raise refusal("connect", line)
    if method != method.upper():
        raise refusal("method_case", method)
    return RequestLine(method, target, version)


def _what_is_wrong(line: bytes) -> str:
    """The reason for a request line that is not of the strict form."""
    if line == _PREFACE_LINE:
        return "http2_preface"
    words = line.split(b" ")
    if len(words) != 3 or not all(words):
        return "request_line"
    method, target, version = words
    if not token_re.fullmatch(method):
        return "method"
    if not _target_re.fullmatch(target):
        return "target_bytes"
    if not _version_re.fullmatch(version):
        return "request_line"
    return "version" if version not in (b"HTTP/1.0", b"HTTP/1.1") else "fragment"


def check_fields(lines: list[bytes], limit: int, over_limit: str) -> None:
    """Check that every line is `token ":" value`, and that there are at most `limit`."""
    if len(lines) > limit:
        raise refusal(over_limit, name_in(lines[limit]))
    for line in lines:
        name, colon, _ = line.partition(b":")
        if line.startswith((b" ", b"\t")):
            raise refusal("obs_fold")
        if colon and name.endswith((b" ", b"\t")):
            raise refusal("space_before_colon", name)
        if not colon or not token_re.fullmatch(name):
            raise refusal("field_line", name_in(line))
