"""Changing fields of a head that was read with certainty, and nothing else of it.

What an edit promises, the client must not be able to take back by what servers do with other bytes of its
message:

- CGI-like servers make one name of `x-user` and `X_User`, so a field that differs from an edited one in
  punctuation alone is refused;
- whoever comes next drops what Connection names (RFC 9110 section 7.6.1), so an edited field may not be named
  there, whether the client sent it or the edit adds it;
- some servers merge trailers into the headers (RFC 9110 section 6.5.1), so no trailer may bear its name;
- TRACE is answered with the request as it arrived (RFC 9110 section 9.3.8), which would hand the client a
  credential that a rule puts in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Protocol

from parsers.http1 import framing
from parsers.http1.framing import canonical
from parsers.http1.heads import RequestHead
from parsers.http1.limits import Limits
from parsers.http1.reasons import refusal

Names = frozenset[bytes]


class Edit(Protocol):
    """One change.

    op: `add` appends a field line, `delete` removes all of that name, `replace` puts one in the place of the first
    and removes the others (appends it where there is none), `log` changes nothing.
    name: in lower case, and none that frames or routes. value: of a field, without outer white space.
    """

    @property
    def op(self) -> str:
        """What is done."""

    @property
    def name(self) -> bytes:
        """To which field."""

    @property
    def value(self) -> bytes:
        """The value that is put in."""


@lru_cache(maxsize=64)
def _canonical(names: Names) -> Names:
    return frozenset(canonical(name) for name in names)


def check_head(head: RequestHead, guarded: Names) -> None:
    """Refuse a head by which the edits of the `guarded` fields (lower case) could be undone, evaded or read back.

    Raises ParseError edit_trace, edit_look_alike, connection_option.
    """
    if head.method == b"TRACE":
        raise refusal("edit_trace")
    alike = _canonical(guarded)
    for name, _ in head.headers:
        if name not in guarded and canonical(name) in alike:
            raise refusal("edit_look_alike", name)
    for option in framing.list_of(framing.values_of(head.headers, b"connection")):
        if canonical(option) in alike:
            raise refusal("connection_option", option)


def check_trailers(names: Iterable[bytes], guarded: Names) -> None:
    """Refuse trailers, given by their names in lower case, that a server could take for a guarded field.

    Raises ParseError trailer_field.
    """
    alike = _canonical(guarded)
    for name in names:
        if canonical(name) in alike:
            raise refusal("trailer_field", name)


def edited(head: RequestHead, edits: Iterable[Edit], limits: Limits) -> bytes:
    """The bytes of the head with the edits made in turn; every other line is the original one.

    Raises ParseError limit_head, limit_fields.
    """
    first, *lines = head.raw[: -len(b"\r\n\r\n")].split(b"\r\n")
    fields = [(name, line) for (name, _), line in zip(head.headers, lines, strict=True)]
    for edit in edits:
        fields = _edited(fields, edit)
    if len(fields) > limits.max_fields:
        raise refusal("limit_fields")
    raw = b"\r\n".join([first, *(line for _, line in fields), b"", b""])
    if len(raw) > limits.max_head:
        raise refusal("limit_head")
    return raw


def _edited(fields: Sequence[tuple[bytes, bytes]], edit: Edit) -> list[tuple[bytes, bytes]]:
    """Field lines by name, after one edit."""
    name = edit.name
    line = (name, name + b": " + edit.value)
    match edit.op:
        case "add":
            return [*fields, line]
        case "delete":
            return [field for field in fields if field[0] != name]
        case "replace":
            place = next((i for i, field in enumerate(fields) if field[0] == name), len(fields))
            rest = [field for field in fields[place:] if field[0] != name]
            return [*fields[:place], line, *rest]
        case "log":
            return list(fields)
    raise ValueError(f"no header edit is called {edit.op}")
