"""How a head frames its body, and what else decides where a message ends: RFC 9112 section 6 and 9.

Requests: every doubt is a ParseError. Responses use the same rules and treat the exception as doubt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from parsers.http1.events import CHUNKED
from parsers.http1.grammar import length_re, token_re
from parsers.http1.heads import Fields
from parsers.http1.reasons import refusal

# CGI and some frameworks make one name of content-length, content_length and content.length.
FRAMING_NAMES: Final = frozenset((b"content-length", b"transfer-encoding"))
_LOOK_ALIKE: Final = bytes(c if chr(c).isalnum() and c < 128 else ord("-") for c in range(256))

# Connection and Upgrade lists have a few members; 32 KiB of commas would cost milliseconds to look at.
MAX_LIST: Final = 32

# Fields that may be named in Connection because they concern one hop only (RFC 9110 section 7.6.1).
_ONE_HOP: Final = frozenset(
    (b"keep-alive", b"te", b"upgrade", b"proxy-connection", b"close", b"http2-settings")
)
# An intermediary behind us drops what Connection names: these would change framing or routing.
_NEVER_NAMED: Final = frozenset((b"content-length", b"transfer-encoding", b"host"))


def values_of(fields: Fields, name: bytes) -> list[bytes]:
    """The values of every field called `name` (lower case), in order."""
    return [value for found, value in fields if found == name]


def list_of(values: Sequence[bytes]) -> list[bytes]:
    """The members of a comma-separated list field in lower case (RFC 9110 section 5.6.1), empty ones dropped.

    Raises ParseError long_list.
    """
    if sum(value.count(b",") for value in values) >= MAX_LIST:
        raise refusal("long_list", values[0])
    members = (part.strip(b" \t") for value in values for part in value.lower().split(b","))
    return [member for member in members if member]


def canonical(name: bytes) -> bytes:
    """A lower-case field name as a CGI-like reader sees it: all punctuation is one."""
    return name.translate(_LOOK_ALIKE)


def check_look_alikes(fields: Fields) -> None:
    """Raise ParseError field_look_alike where a name is a framing name but for its punctuation."""
    for name, _ in fields:
        if name not in FRAMING_NAMES and canonical(name) in FRAMING_NAMES:
            raise refusal("field_look_alike", name)


def body_of(fields: Fields, http11: bool) -> int | None:
    """What the fields say of the body: its length, CHUNKED, or None if they say nothing."""
    lengths = values_of(fields, b"content-length")
    codings = values_of(fields, b"transfer-encoding")
    if lengths and codings:
        raise refusal("length_and_chunked")
    if codings:
        return _chunked(codings, http11)
    if lengths:
        return _length(lengths)
    return None


def _length(values: Sequence[bytes]) -> int:
    if len(values) > 1:
        raise refusal("content_length_repeated", b", ".join(values))
    if not length_re.fullmatch(values[0]):
        raise refusal("content_length", values[0])
    return int(values[0])


def _chunked(values: Sequence[bytes], http11: bool) -> int:
    if not http11:
        raise refusal("transfer_encoding_http10", values[0])
    if len(values) > 1:
        raise refusal("transfer_encoding_repeated", b", ".join(values))
    if values[0].lower() != b"chunked":
        raise refusal("transfer_encoding", values[0])
    return CHUNKED


def connection_options(fields: Fields) -> list[bytes]:
    """The options of Connection, lower case; refuses those that would take a field from the message."""
    options = list_of(values_of(fields, b"connection"))
    present = {name for name, _ in fields}
    for option in options:
        if not token_re.fullmatch(option) or option in _NEVER_NAMED:
            raise refusal("connection_option", option)
        if option not in _ONE_HOP and option in present:
            raise refusal("connection_option", option)
    return options


def keeps_alive(options: Sequence[bytes], http11: bool) -> bool:
    """Whether the connection persists (RFC 9112 section 9.3)."""
    if b"close" in options:
        return False
    return http11 or b"keep-alive" in options
