"""Paths that servers read differently: what a rule matched may not be what the server serves.

Only the path counts, not the query string. Whoever has a path rule in force decides what to do.
"""

from __future__ import annotations

import re
from typing import Final

# In order of the test: the first that fits is named.
AMBIGUITIES: Final[dict[str, str]] = {
    "dot_segment": "a segment of one or two dots, which servers resolve (RFC 3986 section 5.2.4)",
    "empty_segment": "two slashes in a row, which many servers merge",
    "backslash": "a backslash, which some servers take for a slash",
    "encoded_separator": "a percent-encoded slash or backslash, decoded before or after routing",
    "encoded_control": "a percent-encoded NUL or other control character, which may end the path",
    "encoded_plain": "a percent-encoded letter, digit or one of -._~, which is the same as the plain character",
    "double_encoding": "a percent-encoded percent sign before two hexadecimal digits: decoded once or twice",
    "malformed_escape": "a percent sign without two hexadecimal digits",
}

# A segment of dots counts with a parameter behind it too: Java servers cut "..;x" to "..".
# No group is referred to: the name of the one that matched is the answer.
_AMBIGUOUS: Final = re.compile(
    rb"(?P<dot_segment>/\.{1,2}(?=[/;]|\Z))"
    rb"|(?P<empty_segment>//)"
    rb"|(?P<backslash>\\)"
    rb"|%(?:(?P<encoded_separator>2[Ff]|5[Cc])"
    rb"|(?P<encoded_control>[01][0-9A-Fa-f]|7[Ff])"
    rb"|(?P<encoded_plain>3[0-9]|4[1-9A-Fa-f]|5[0-9Aa]|6[1-9A-Fa-f]|7[0-9Aa]|2[DdEe]|5[Ff]|7[Ee])"
    rb"|(?P<double_encoding>25[0-9A-Fa-f]{2})"
    rb"|(?P<malformed_escape>(?![0-9A-Fa-f]{2})))"
)


def path_ambiguity(path: bytes) -> str | None:
    """A key of AMBIGUITIES for what stands first in `path` (query string allowed), or None.

    Cheap for plain paths: four substring searches.
    """
    if b"%" in path or b"/." in path or b"//" in path or b"\\" in path:
        match = _AMBIGUOUS.search(path.partition(b"?")[0])
        return match.lastgroup if match else None
    return None
