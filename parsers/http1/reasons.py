"""Every reason for which a message is refused: its stable name, the status that answers it, what it means.

The names are metric labels and log words; docs/http.md is checked against this table.
"""

from __future__ import annotations

from typing import Final

from parsers.errors import ParseError

_BAD = 400  # Bad Request (RFC 9110 section 15.5.1)
_URI = 414  # URI Too Long
_LARGE = 431  # Request Header Fields Too Large (RFC 6585 section 5)

# Of what was seen, a person is shown this much, quoted.
MAX_QUOTED = 60

REASONS: Final[dict[str, tuple[int, str]]] = {
    # another protocol
    "tls": (_BAD, "a TLS record where an HTTP request should begin"),
    "http2_preface": (_BAD, "the HTTP/2 connection preface"),
    # lines
    "bare_line_break": (_BAD, "a CR or LF that is not part of CRLF"),
    "control_character": (_BAD, "NUL, another control character or DEL in a head or trailer"),
    "empty_lines": (_BAD, "more than one empty line before a request"),
    "request_line": (_BAD, "a request line that is not method, target and version with one space between"),
    "method": (_BAD, "a method that is not a token of at most 32 characters"),
    "method_case": (_BAD, "a method with small letters, which some servers take for the one in capitals"),
    "connect": (_BAD, "CONNECT, which would open a tunnel nobody could judge"),
    "version": (_BAD, "a version other than HTTP/1.0 and HTTP/1.1"),
    "obs_fold": (_BAD, "a field line that begins with white space (obsolete line folding)"),
    "space_before_colon": (_BAD, "white space between a field name and its colon"),
    "field_line": (_BAD, "a field line without a colon or with a name that is no token"),
    "malformed": (_BAD, "a head that the reference parser does not accept"),
    # target and host
    "target_bytes": (_BAD, "a target with bytes outside 0x21-0x7e"),
    "target_form": (_BAD, "a target that is not a path, an absolute http URI or the * of OPTIONS"),
    "fragment": (_BAD, "a target with a fragment"),
    "host_missing": (_BAD, "an HTTP/1.1 request without Host"),
    "host_repeated": (_BAD, "more than one Host"),
    "host_malformed": (_BAD, "a Host that is not a name or address with an optional port"),
    "host_mismatch": (_BAD, "a Host other than the authority of the absolute target"),
    # framing
    "content_length": (_BAD, "a Content-Length that is not one plain decimal number"),
    "content_length_repeated": (_BAD, "more than one Content-Length"),
    "transfer_encoding": (_BAD, "a Transfer-Encoding other than chunked"),
    "transfer_encoding_repeated": (_BAD, "more than one Transfer-Encoding"),
    "transfer_encoding_http10": (_BAD, "Transfer-Encoding in an HTTP/1.0 message"),
    "length_and_chunked": (_BAD, "both Content-Length and Transfer-Encoding"),
    "field_look_alike": (_BAD, "a field that some servers take for a framing field"),
    "edit_look_alike": (_BAD, "a field that some servers take for one that a rule edits"),
    "edit_trace": (_BAD, "TRACE, whose answer would show the client what a rule puts into its headers"),
    "unexpected_body": (_BAD, "a body on GET, HEAD, OPTIONS or TRACE, which servers may read as a request"),
    "chunk_size": (_BAD, "a chunk size that is not 1 to 8 hexadecimal digits, or too large"),
    "chunk_extension": (_BAD, "a malformed chunk extension"),
    "chunk_end": (_BAD, "chunk data that is not followed by CRLF"),
    "trailer": (_BAD, "a malformed trailer section"),
    "trailer_field": (
        _BAD,
        "a trailer that frames, routes or authenticates, or that a rule edits, when taken for a header",
    ),
    # connection
    "connection_option": (
        _BAD,
        "a Connection option that is malformed or names a field of the request, or one that a rule edits",
    ),
    "expect": (_BAD, "an Expect other than 100-continue"),
    "upgrade_http": (_BAD, "an Upgrade to another HTTP or to TLS, whose requests nobody would judge"),
    "http2_settings": (_BAD, "HTTP2-Settings, which belongs to an upgrade to HTTP/2"),
    "long_list": (_BAD, "a Connection or Upgrade of more than 32 members"),
    # limits
    "limit_request_line": (_URI, "a request line over the limit"),
    "limit_head": (_LARGE, "a head over the limit"),
    "limit_fields": (_LARGE, "more fields than the limit"),
    "limit_chunk_framing": (_BAD, "chunk framing over the limit"),
    "limit_trailers": (_LARGE, "a trailer section over the limit"),
    # ends
    "truncated": (_BAD, "the connection ended within a request"),
}


def name_in(line: bytes) -> bytes:
    """What is shown of a field line, whole or not: its name, as its value may be a credential."""
    name, colon, _ = line.partition(b":")
    return name if colon and not name.startswith((b" ", b"\t")) else b""


def refusal(reason: str, seen: bytes | bytearray | memoryview = b"") -> ParseError:
    """The exception for `reason`, a key of REASONS, with what was seen quoted and bounded."""
    status, meaning = REASONS[reason]
    quoted = f": {bytes(seen[:MAX_QUOTED])!r}" if seen else ""
    return ParseError(reason, meaning + quoted, status)
