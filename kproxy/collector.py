"""Prometheus families out of plain integers, made when someone scrapes.

Names follow Prometheus' conventions (base units, `_total` on counters); `promtool check metrics` is run on the
real output by the tests.  Each name and label is described for operators in docs/operations.md.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from kproxy.lines import LineWriter
from kproxy.metrics import LATENCY_BOUNDS_NS, Cell, Histogram, KernelCounters, KernelSnapshot, Metrics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The media type of the text exposition format."""


class NodeCollector(Collector):
    """Every metric of one node.

    `fail_mode` is the configured one.  `take_snapshot` belongs to the event loop's thread; `exposition` may run
    on another, as it only reads integers and copies each table whole before it walks it.
    """

    def __init__(
        self,
        metrics: Metrics,
        kernel: KernelCounters,
        access_log: LineWriter | None,
        fail_mode: str,
        version: str,
    ) -> None:
        self._metrics = metrics
        self._kernel = kernel
        self._access_log = access_log
        self._fail_mode = fail_mode
        self._version = version
        self._snapshot = KernelSnapshot()
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def take_snapshot(self) -> None:
        """Read the kernel's counters for the next exposition."""
        self._snapshot = self._kernel.snapshot()

    def exposition(self) -> bytes:
        """Write everything in the text exposition format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield all families."""
        yield from self._requests()
        yield from self._connections()
        yield from self._kernel_families()
        yield from self._policy()
        yield from self._log()
        yield from self._node()

    def _requests(self) -> Iterator[Metric]:
        metrics = self._metrics
        labels = ("endpoint", "direction", "protocol", "verdict", "rule")
        yield _counter("kproxy_requests", "Requests by verdict.", labels, _values(metrics.requests))
        yield _counter(
            "kproxy_parse_errors",
            "Requests refused because they could not be read with certainty.",
            ("protocol", "reason"),
            _values(metrics.parse_errors),
        )
        yield _histogram(
            "kproxy_request_proxy_seconds", "Time that kproxy added to a request.", metrics.proxy_latency
        )
        yield _histogram(
            "kproxy_request_upstream_seconds", "Time that the upstream took.", metrics.upstream_latency
        )
        yield _counter("kproxy_limits", "Times that a bound bit.", ("limit",), _values(metrics.limits))

    def _connections(self) -> Iterator[Metric]:
        rows = list(self._metrics.connections.items())
        where = ("endpoint", "direction")
        opened = {key: row.opened for key, row in rows}
        yield _counter("kproxy_connections_opened", "Connections that reached the proxy.", where, opened)
        closed = {(*key, reason[0]): n for key, row in rows for reason, n in _values(row.closed).items()}
        yield _counter("kproxy_connections_closed", "Connections ended, by why.", (*where, "reason"), closed)
        active = {key: row.active for key, row in rows}
        yield _counter(
            "kproxy_direct_connections_reset",
            "Connections around the proxy that were reset, by why policy does not let them go on.",
            (*where, "reason"),
            _values(self._metrics.direct_resets),
        )
        yield _gauge("kproxy_connections_active", "Connections open now.", where, active)

    def _kernel_families(self) -> Iterator[Metric]:
        kernel = self._snapshot
        yield _counter(
            "kproxy_bytes",
            "Bytes moved for proxied connections, spliced in the kernel or through TCP.",
            ("path", "direction"),
            kernel.bytes_moved,
        )
        yield _counter(
            "kproxy_splice_fallbacks",
            "Directions of connections that went by TCP, by why.",
            ("reason",),
            {(reason,): value for reason, value in kernel.fallbacks.items()},
        )
        yield _counter(
            "kproxy_redirects_unclaimed",
            "Connections marked for redirection that never reached the proxy.",
            (),
            {(): kernel.unclaimed_redirects},
        )
        yield _counter(
            "kproxy_l4_verdicts",
            "Connections and datagrams decided in the kernel.",
            ("endpoint", "direction", "verdict"),
            kernel.verdicts,
        )
        yield _counter(
            "kproxy_l4_untold",
            "Decisions of the kernel that were counted, and too many to be logged one by one.",
            ("verdict",),
            {(verdict,): value for verdict, value in kernel.untold.items()},
        )

    def _policy(self) -> Iterator[Metric]:
        reloads = self._metrics.reloads
        yield _gauge("kproxy_policy_revision", "Revision of the policy in force.", (), {(): reloads.revision})
        yield _counter(
            "kproxy_policy_reloads",
            "Times that rules and endpoints were read, by result.",
            ("result",),
            {("success",): reloads.succeeded, ("error",): reloads.failed},
        )
        yield _gauge(
            "kproxy_policy_reload_success",
            "1 where the last reading was good, 0 where the last good policy had to stay.",
            (),
            {(): int(reloads.last_ok)},
        )
        yield _gauge(
            "kproxy_policy_reload_timestamp_seconds",
            "When rules and endpoints were last read.",
            (),
            {(): reloads.last_time},
        )
        yield _gauge("kproxy_policy_errors", "Mistakes found in the last reading.", (), {(): reloads.errors})

    def _log(self) -> Iterator[Metric]:
        log = self._access_log
        if log is None:
            return
        yield _counter("kproxy_access_log_lines", "Access log lines written.", (), {(): log.written})
        yield _counter(
            "kproxy_access_log_lost",
            "Access log lines lost: the queue was full, or the file could not be written at the end.",
            ("reason",),
            {("queue_full",): log.lost_queue, ("write_error",): log.lost_write},
        )

    def _node(self) -> Iterator[Metric]:
        modes = {(mode,): int(mode == self._fail_mode) for mode in ("closed", "open")}
        told = "Endpoints of this node, by whether they are enforced."
        states = {(state,): count for state, count in self._metrics.endpoints.items()}
        yield _gauge("kproxy_endpoints", told, ("state",), states)
        yield _gauge("kproxy_fail_mode", "1 for the configured failMode.", ("mode",), modes)
        yield _counter(
            "kproxy_fail_open_seconds",
            "Time in which traffic passed unjudged because the proxy was down.",
            (),
            {(): self._metrics.fail_open_seconds},
        )
        build = {(self._version, platform.python_version(), platform.release()): 1}
        yield _gauge("kproxy_build_info", "What runs.", ("version", "python", "kernel"), build)


def _values(table: Mapping[Any, Cell]) -> dict[tuple[str, ...], int]:
    """Copy a table of cells; the copy of its items is one step that no other thread can come between."""
    return {key if isinstance(key, tuple) else (key,): cell.value for key, cell in list(table.items())}


def _counter(
    name: str, told: str, labels: tuple[str, ...], values: Mapping[Any, float]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, told, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _gauge(name: str, told: str, labels: tuple[str, ...], values: Mapping[Any, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, told, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _histogram(name: str, told: str, histogram: Histogram) -> HistogramMetricFamily:
    bounds = [*(repr(bound / 1e9) for bound in LATENCY_BOUNDS_NS), "+Inf"]
    buckets = list(zip(bounds, accumulate(list(histogram.counts)), strict=True))
    return HistogramMetricFamily(name, told, buckets=buckets, sum_value=histogram.sum_ns / 1e9)
