"""Answers: at L3/L4 for a connection, at L7 for a request; and what a request must tell to be judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol


class Action(Enum):
    """What the kernel does with a new connection or datagram."""

    PASS = "pass"
    DENY = "deny"
    REDIRECT = "redirect"
    """To the proxy, which judges each request."""


@dataclass(frozen=True, slots=True)
class L4Verdict:
    """What becomes of a connection, the rule that decided, and why.

    `audit`: it passes only because the policy that would deny it is in audit mode.
    """

    action: Action
    rule: str
    """`namespace/policy#direction[i].toPorts[j]`: whose it is, the direction, and its place there."""
    reason: str
    """Why, in a sentence that ends with the policy's description, if it has one."""
    audit: bool = False


@dataclass(frozen=True, slots=True)
class HeaderEdit:
    """A change that an allowed request needs before it is forwarded (headerMatches).

    `op`: `log` changes nothing; `add` appends a header; `delete` removes all headers of that name;
    `replace` puts one in the place of the first of them and removes the others. Values may be secrets: they are
    not shown and not logged; `str` tells what is done to which header.
    """

    op: str
    name: bytes
    value: bytes

    def __repr__(self) -> str:
        return f"HeaderEdit({self.op!r}, {self.name!r}, <not shown>)"

    def __str__(self) -> str:
        return f"{self.op} {self.name.decode()}"


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict on one request. Made once for each rule, not for each request (but for edits)."""

    verdict: str
    """`allow`, `deny`, or `audit`: would be denied, passes."""
    allowed: bool
    rule: str
    """`namespace/policy#direction[i].toPorts[j].http[k]`."""
    reason: str
    """Why, in a sentence that ends with the description of the rule, or else of its policy."""
    path_judged: bool
    """Whether a path rule is in force: then a path that servers may read differently must be refused."""
    edits: tuple[HeaderEdit, ...] = ()
    guarded: frozenset[bytes] = frozenset()
    """Headers that a rule in force may edit: what a server could take for one of them must be refused."""
    path_tried: bool = False
    """Only policies in audit mode look at paths: one that must be refused passes instead, as `audit`."""


class Request(Protocol):
    """What rules look at. `headers` is looked at only if a rule asks for headers."""

    @property
    def method(self) -> bytes:
        """As sent: `GET`."""

    @property
    def path(self) -> bytes:
        """With its query string: `/jobs/331?full=1`."""

    @property
    def host(self) -> bytes:
        """In lower case, with its port if one was sent."""

    @property
    def headers(self) -> Sequence[tuple[bytes, bytes]]:
        """(lower-case name, value) in order."""


# Every line of the access log repeats it.
_LONGEST_DESCRIPTION = 200


def described(reason: str, description: str) -> str:
    """A reason with what the author of the rule says it is for, on one line and cut if it is long."""
    text = " ".join(description.split())
    short = text if len(text) <= _LONGEST_DESCRIPTION else text[: _LONGEST_DESCRIPTION - 1] + "…"
    return f"{reason} ({short})" if short else reason
