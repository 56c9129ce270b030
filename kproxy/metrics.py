"""What kproxy counts: plain integers that the request path may raise, and nothing else.

`kproxy.collector` turns them into Prometheus families when someone scrapes.  A label's value is always one
of kproxy's own words, an endpoint's or a rule's name: nothing that a client sends becomes a label, so that
varying paths, hosts or methods makes no series.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

K = TypeVar("K")

LATENCY_BOUNDS_NS = tuple(
    round(bound * 1e9)
    for bound in (
        *(10e-6, 15e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6),
        *(1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1.0),
    )
)
"""Upper bounds of the latency histograms in nanoseconds: 10 µs, where a spliced request is, to 1 s."""

OTHER = "other"
"""The rule under which requests are counted once a metric has as many series as it may have."""


class Cell:
    """One counter that its holder raises in place."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class Histogram:
    """Durations in nanoseconds, counted by bucket; the last bucket is what exceeds every bound."""

    __slots__ = ("counts", "sum_ns")

    def __init__(self) -> None:
        self.counts = [0] * (len(LATENCY_BOUNDS_NS) + 1)
        self.sum_ns = 0

    def observe(self, ns: int) -> None:
        """Count one duration."""
        self.counts[bisect_left(LATENCY_BOUNDS_NS, ns)] += 1
        self.sum_ns += ns


class Table(dict[K, Cell]):
    """Counters by their label values; a key that is asked for comes to be."""

    def __missing__(self, key: K) -> Cell:
        """Make the counter."""
        cell = self[key] = Cell()
        return cell


@dataclass(slots=True)
class Connections:
    """Connections of one endpoint and direction."""

    opened: int = 0
    closed: Table[str] = field(default_factory=Table)

    @property
    def active(self) -> int:
        """How many are open now."""
        return self.opened - sum(cell.value for cell in self.closed.values())


@dataclass(slots=True)
class Reloads:
    """What became of the rules and endpoints files when they were last read."""

    revision: int = 0
    succeeded: int = 0
    failed: int = 0
    last_ok: bool = False
    last_time: float = 0.0
    errors: int = 0


@dataclass(frozen=True, slots=True)
class KernelSnapshot:
    """What the BPF maps had counted at one moment.

    `bytes_moved` is keyed by path (`spliced` or `tcp`) and way (`request`, from downstream to upstream, or
    `response`); `fallbacks` by why a direction went by TCP; `verdicts` by endpoint, direction and verdict;
    `untold` counts, by verdict, decisions that were too many to be logged one by one.
    """

    bytes_moved: Mapping[tuple[str, str], int] = field(default_factory=dict)
    fallbacks: Mapping[str, int] = field(default_factory=dict)
    unclaimed_redirects: int = 0
    verdicts: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    untold: Mapping[str, int] = field(default_factory=dict)


class KernelCounters(Protocol):
    """Whoever can read the counters in BPF maps; called in the event loop's thread, once for each scrape."""

    def snapshot(self) -> KernelSnapshot:
        """Read them all."""


RequestKey = tuple[str, str, str, str, str]
"""Endpoint, direction, protocol, verdict, rule."""


class Metrics:
    """Every counter of one node; `series` bounds how many series one metric may have."""

    def __init__(self, series: int) -> None:
        self._series = series
        self.requests: Table[RequestKey] = Table()
        self.parse_errors: Table[tuple[str, str]] = Table()
        self.limits: Table[str] = Table()
        self.connections: dict[tuple[str, str], Connections] = {}
        self.direct_resets: Table[tuple[str, str, str]] = Table()
        """Connections around the proxy that were reset: endpoint, direction, why."""
        self.proxy_latency = Histogram()
        self.upstream_latency = Histogram()
        self.reloads = Reloads()
        self.fail_open_seconds = 0.0
        self.endpoints: Mapping[str, int] = {}
        """How many endpoints of this node are `enforced`, and how many `failed` to be."""

    def request_cell(self, key: RequestKey) -> Cell:
        """Give the counter of requests for `key`, or that of the rule "other" where there are too many."""
        if key in self.requests or len(self.requests) < self._series:
            return self.requests[key]
        self.limits["metricSeries"].value += 1
        return self.requests[(*key[:4], OTHER)]

    def connection_row(self, endpoint: str, direction: str) -> Connections:
        """Give the connection counters of one endpoint and direction."""
        row = self.connections.get((endpoint, direction))
        if row is None:
            row = self.connections[endpoint, direction] = Connections()
        return row

    def limit(self, name: str) -> None:
        """Count that the bound of this name bit; the name is the configuration's key."""
        self.limits[name].value += 1

    def reload_succeeded(self, now: float) -> None:
        """Note that rules and endpoints were read and are in force, at `now` seconds since 1970."""
        reloads = self.reloads
        reloads.succeeded += 1
        reloads.last_ok, reloads.last_time, reloads.errors = True, now, 0

    def reload_failed(self, errors: int, now: float) -> None:
        """Note that rules or endpoints were wrong, and the last good ones stay."""
        reloads = self.reloads
        reloads.failed += 1
        reloads.last_ok, reloads.last_time, reloads.errors = False, now, errors

    def retain(self, endpoints: Container[str], policies: Container[str]) -> None:
        """Drop the series of endpoints and policies that are no more, so that renaming makes no series for ever.

        A rule's name begins with its policy's, up to the "#".  Series without a rule, and those of the rule
        "other", go with their endpoint only.
        """
        for key in list(self.requests):
            policy = key[4].partition("#")[0]
            if key[0] not in endpoints or not (policy in policies or policy in ("", OTHER)):
                del self.requests[key]
        for pair in list(self.connections):
            if pair[0] not in endpoints:
                del self.connections[pair]
        for row in list(self.direct_resets):
            if row[0] not in endpoints:
                del self.direct_resets[row]
