"""Request targets and Host: from the forms of RFC 9112 section 3.2 to the path and host that rules judge."""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv6Address
from typing import Final

from parsers.http1.grammar import PORT, REG_NAME, TARGET_BYTE
from parsers.http1.reasons import refusal

_MAX_PORT = 65535

_host_re: Final = re.compile(rb"(?:" + REG_NAME + rb"|\[([0-9A-Fa-f:.]{2,45})\])(" + PORT + rb")?")
# User information, "@", is in no authority; an empty path is taken only without a query, where every
# server reads "/".
_absolute_re: Final = re.compile(rb"[Hh][Tt][Tt][Pp]://([^/?@]+)((?:/" + TARGET_BYTE + rb"*)?)")


def check_host(value: bytes) -> bytes:
    """The authority in lower case; raises ParseError host_malformed unless all servers split it alike."""
    match = _host_re.fullmatch(value)
    if match is None or (match[2] is not None and int(match[2][1:]) > _MAX_PORT):
        raise refusal("host_malformed", value)
    if match[1] is not None:
        try:
            IPv6Address(match[1].decode("ascii"))
        except AddressValueError:
            raise refusal("host_malformed", value) from None
    return value.lower()


def split_target(method: bytes, target: bytes) -> tuple[bytes, bytes]:
    """(path, authority) of a target whose bytes are checked; the authority is empty unless absolute-form.

    Raises ParseError target_form, host_malformed.
    """
    if target.startswith(b"/"):
        return target, b""
    if target == b"*" and method == b"OPTIONS":
        return target, b""
    match = _absolute_re.fullmatch(target)
    if match is None:
        raise refusal("target_form", target)
    return match[2] or b"/", check_host(match[1])
