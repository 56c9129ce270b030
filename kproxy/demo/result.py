"""What the demonstration found, as plain values: shown as tables, or as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Seen:
    """One call as it went: the status (0: refused), and what each side believes of the other's address.

    `client_is` and `server_is` are the client's own two ends, as getsockname and getpeername tell it;
    the server tells what accept and getpeername told it, empty where the request did not reach it.
    """

    status: int
    client_is: str
    server_is: str
    accept: str
    getpeername: str
    connects: int


@dataclass(frozen=True)
class Judged:
    """What the access log says of one call; all empty where it was not judged as HTTP."""

    verdict: str = ""
    rule: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Row:
    """One call, before and after."""

    conversation: str
    client: str
    request: str
    before: Seen
    after: Seen
    judged: Judged


@dataclass(frozen=True)
class SceneResult:
    """One run of kproxy.

    `counted` are its HTTP requests by verdict, as its metrics count them; `held` tells what it held in the
    kernel; `metrics` maps each sample, written as Prometheus does, to its value.
    """

    name: str
    title: str
    policy: str
    rows: list[Row]
    bytes_spliced: int
    bytes_tcp: int
    counted: dict[str, int]
    held: str
    access_log: list[dict[str, Any]]
    metrics: dict[str, float]


@dataclass
class Result:
    """The whole demonstration; `failures` holds one sentence for whatever is not as it should be."""

    scenes: list[SceneResult] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether everything was as it should be."""
        return not self.failures
