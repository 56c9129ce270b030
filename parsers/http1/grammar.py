"""The pieces of the HTTP/1.1 grammar that several rooms need, as bytes-regex source and compiled.

Sources: RFC 9110 section 5.6.2 (token), 5.5 (field values), RFC 9112 section 5 (field lines).
Stricter than both where servers are known to differ: no control character but HTAB, no folding.
Every repeat here is over one character class and is followed by a character outside that class, and
no repeated group can begin in two ways: matching is linear in the input.
"""

from __future__ import annotations

import re
from typing import Final

TCHAR: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
TOKEN: Final = TCHAR + rb"+"
OWS: Final = rb"[ \t]*"
# HTAB, SP, VCHAR and obs-text: any byte but controls and DEL.
VALUE: Final = rb"[\t -~\x80-\xff]*"
FIELD_LINE: Final = TOKEN + rb":" + VALUE + rb"\r\n"

# A request target's bytes, "#" and its fragment excluded (RFC 9112 section 3.2 has none).
TARGET_BYTE: Final = rb"[!-\"$-~]"

# RFC 9110 section 7.2 takes any uri-host. Taken here: a registered name of letters, digits, "-", "_"
# and non-empty labels, or an IPv6 literal, with a plain port: what every server splits alike.
# Percent-encoding, sub-delims and user information are not taken. 127 labels fit in a 255-byte name.
REG_NAME: Final = rb"[A-Za-z0-9_\-]+(?:\.[A-Za-z0-9_\-]+){0,127}\.?"
PORT: Final = rb":(?:0|[1-9][0-9]{0,4})"

token_re: Final = re.compile(TOKEN)
control_re: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
# One field of a head that is known to be well-formed: name, and value without its outer white space.
field_re: Final = re.compile(rb"([^:\r\n]+):[ \t]*((?:[^\r\n \t]+(?:[ \t]+[^\r\n \t]+)*)?)[ \t]*\r\n")
# A plain decimal number: no sign, no leading zero (some readers take it for octal), no list.
length_re: Final = re.compile(rb"0|[1-9][0-9]{0,17}")


def split_fields(raw: bytes, start: int) -> tuple[tuple[bytes, bytes], ...]:
    """The fields of a well-formed head whose first field line begins at `start`.

    Names in lower case, values without their outer white space, in their order.
    """
    return tuple([(name.lower(), value) for name, value in field_re.findall(raw, start)])
