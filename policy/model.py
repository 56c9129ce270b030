"""The rule language as values: what the forms of Cilium and Kubernetes are read into.

Nothing here knows of files or of addresses in use. Forms differ in how they are written (`policy.cilium`,
`policy.kubernetes`); from here on there is one language:

- a `Policy` selects endpoints (its `subject`) and has one `Direction` each way;
- a direction may bring default deny, and has `allow` and `deny` rules, each of which is ORed with all others
  of all policies; deny wins;
- a `Rule` names peers, and ports at those peers; a `PortRule` may go on to name requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum

from policy.errors import Problem
from policy.patterns import Pattern
from policy.selectors import PeerSelector, Selector

TCP = 6
UDP = 17
PROTOCOL_NAMES = {TCP: "TCP", UDP: "UDP"}
LAST_PORT = 65535


class Mode(Enum):
    """What becomes of what a policy would deny."""

    ENFORCE = "enforce"
    AUDIT = "audit"
    """It is let pass, logged and counted."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands."""

    file: str
    pointer: str
    line_of: Callable[[str], int] = field(compare=False, repr=False)

    @property
    def line(self) -> int:
        """The line, from 1; found only when asked for, as it is for few of many rules."""
        return self.line_of(self.pointer)

    def problem(self, message: str, mend: str = "") -> Problem:
        """Something that is wrong here."""
        return Problem(self.file, self.line, self.pointer, message, mend)


@dataclass(frozen=True, slots=True)
class PortSpec:
    """Ports by number (`first` to `last`) or by `name`, of some protocols."""

    protocols: tuple[int, ...]
    first: int = 0
    last: int = LAST_PORT
    name: str = ""

    def __str__(self) -> str:
        protocol = "ANY" if len(self.protocols) > 1 else PROTOCOL_NAMES[self.protocols[0]]
        if self.name:
            return f"{self.name}/{protocol}"
        if (self.first, self.last) == (0, LAST_PORT):
            return protocol
        return (
            f"{self.first}/{protocol}" if self.first == self.last else f"{self.first}-{self.last}/{protocol}"
        )


EVERY_PORT = PortSpec((TCP, UDP))


@dataclass(frozen=True, slots=True)
class HeaderTest:
    """A header that must be there (`value` None) or have exactly this value."""

    name: bytes
    value: bytes | None = None


class Mismatch(Enum):
    """What a headerMatch does where the header does not have its value (Cilium, MismatchAction)."""

    FAIL = "FAIL"
    LOG = "LOG"
    ADD = "ADD"
    DELETE = "DELETE"
    REPLACE = "REPLACE"


EDITING = (Mismatch.ADD, Mismatch.DELETE, Mismatch.REPLACE)
"""Those that change what is forwarded."""


@dataclass(frozen=True, slots=True)
class HeaderMatch:
    """A header with an expected value, from the rule or from a secret, and what to do where it differs."""

    name: bytes
    mismatch: Mismatch
    value: bytes = field(default=b"", repr=False)
    secret: str = ""
    """`namespace/name`; its value goes before `value`."""


@dataclass(frozen=True, slots=True)
class QueryTest:
    """A query parameter that must be there (`value` None), or whose decoded value must match."""

    name: bytes
    value: Pattern | None = None


@dataclass(frozen=True, slots=True)
class HttpRule:
    """Which requests: all that is said must hold; what is None or empty is not looked at."""

    name: str
    place: Place
    method: Pattern | None = None
    path: Pattern | None = None
    host: Pattern | None = None
    headers: tuple[HeaderTest, ...] = ()
    header_matches: tuple[HeaderMatch, ...] = ()
    path_exact: bytes | None = None
    path_prefix: bytes | None = None
    query: tuple[QueryTest, ...] = ()
    description: str = ""
    """Its own, or else its policy's."""

    @property
    def judges_path(self) -> bool:
        """Whether the verdict depends on how the target is read."""
        return bool(self.path or self.path_exact is not None or self.path_prefix is not None or self.query)

    @property
    def edits(self) -> bool:
        """Whether it may change or note the headers of a request that it matches."""
        return any(match.mismatch is not Mismatch.FAIL for match in self.header_matches)


@dataclass(frozen=True, slots=True)
class PortRule:
    """Ports, and if `http` is not None, the only requests that the rule is about."""

    name: str
    place: Place
    ports: tuple[PortSpec, ...]
    http: tuple[HttpRule, ...] | None = None
    description: str = ""
    """What the policy says it is for."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Peers, any one of which matches, and ports, any one of which matches.

    `peers` None: whoever it is. `ports` None: whatever port of any protocol.
    """

    name: str
    place: Place
    peers: tuple[PeerSelector, ...] | None
    ports: tuple[PortRule, ...] | None
    description: str = ""
    """What the policy says it is for."""


@dataclass(frozen=True, slots=True)
class Direction:
    """What a policy says about one direction."""

    default_deny: bool = False
    allow: tuple[Rule, ...] = ()
    deny: tuple[Rule, ...] = ()

    @property
    def says_something(self) -> bool:
        """Whether it can change any verdict."""
        return bool(self.default_deny or self.allow or self.deny)


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy (one of the `specs` of an object): whom it selects and what they may do."""

    name: str
    """`namespace/policy`, with `*` for the namespace where it holds in all of them."""
    kind: str
    place: Place
    subject: Selector
    ingress: Direction
    egress: Direction
    section: str = ""
    """`specs[i].` where an object has several; part of the names of its rules."""
    mode: Mode = Mode.ENFORCE
    description: str = ""


def all_http_rules(policies: Iterable[Policy]) -> Iterator[HttpRule]:
    """Every HTTP rule, of all directions, allowing and denying."""
    for policy in policies:
        for direction in (policy.ingress, policy.egress):
            for rule in (*direction.allow, *direction.deny):
                for port in rule.ports or ():
                    yield from port.http or ()
