"""Metrics: what Prometheus reads is what was counted, well formed, and bounded."""

from __future__ import annotations

import subprocess
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from kproxy.collector import NodeCollector
from kproxy.lines import LineWriter, Sink
from kproxy.metrics import OTHER, KernelSnapshot, Metrics
from tests.kproxy.recorded import ALLOW, DENY, EGRESS, INGRESS, Head, Recorded

SNAPSHOT = KernelSnapshot(
    bytes_moved={("spliced", "request"): 1000, ("tcp", "response"): 7},
    fallbacks={"no_credit": 2},
    unclaimed_redirects=3,
    verdicts={("hr/turtletweets", "egress", "deny"): 4},
    untold={"audit": 5},
)


class Kernel:
    """Counters as the BPF maps would have them."""

    def __init__(self, snapshot: KernelSnapshot = SNAPSHOT) -> None:
        self.current = snapshot

    def snapshot(self) -> KernelSnapshot:
        """Read them."""
        return self.current


def collector(metrics: Metrics, log: LineWriter | None = None, kernel: Kernel | None = None) -> NodeCollector:
    """Make a collector that has taken its snapshot."""
    made = NodeCollector(metrics, kernel or Kernel(), log, "closed", "0.1.0")
    made.take_snapshot()
    return made


def samples(text: bytes) -> dict[str, float]:
    """Give every sample of an exposition by its name and labels, labels in order."""
    return {
        sample.name
        + "".join(f" {name}={value}" for name, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def busy() -> Recorded:
    """Count something of everything."""
    recorded = Recorded()
    flow = recorded.observer.flow([EGRESS])
    flow.request(Head(), ALLOW, 200, 1, 1, 12_000, 1_500_000)
    flow.request(Head(), DENY, 403, 1, 1, 9_000, 0)
    flow.refused("limit_head", "a head over the limit", None, 431)
    flow.closed("client_closed")
    recorded.observer.flow([INGRESS])
    recorded.metrics.direct_resets["hr/turtletweets", "egress", "not_allowed"].value += 6
    recorded.metrics.reloads.revision = 7
    recorded.metrics.reload_succeeded(1_767_323_045.5)
    recorded.metrics.reload_failed(3, 1_767_323_046.5)
    return recorded


def test_everything_that_was_counted_is_exposed(tmp_path: Path) -> None:
    """Each figure stands under the name that the documentation gives it."""
    log = LineWriter(Sink.open(str(tmp_path / "log")), 1 << 20, print)
    log.write(b"{}\n")
    assert log.close(20)
    found = samples(collector(busy().metrics, log).exposition())
    who = "direction=egress endpoint=hr/turtletweets"
    expected = {
        f"kproxy_requests_total {who} protocol=http rule={ALLOW.rule} verdict=allow": 1,
        f"kproxy_requests_total {who} protocol=http rule= verdict=deny": 1,
        f"kproxy_requests_total {who} protocol=http rule= verdict=error": 1,
        "kproxy_parse_errors_total protocol=http reason=limit_head": 1,
        "kproxy_limits_total limit=headBytes": 1,
        "kproxy_request_proxy_seconds_count": 2,
        "kproxy_request_proxy_seconds_sum": 21e-6,
        "kproxy_request_proxy_seconds_bucket le=1e-05": 1,
        "kproxy_request_proxy_seconds_bucket le=1.5e-05": 2,
        "kproxy_request_proxy_seconds_bucket le=1.0": 2,
        "kproxy_request_proxy_seconds_bucket le=+Inf": 2,
        "kproxy_request_upstream_seconds_count": 1,
        f"kproxy_connections_opened_total {who}": 1,
        f"kproxy_connections_closed_total {who} reason=client_closed": 1,
        f"kproxy_connections_active {who}": 0,
        "kproxy_connections_active direction=ingress endpoint=hr/jobs-api": 1,
        "kproxy_bytes_total direction=request path=spliced": 1000,
        "kproxy_bytes_total direction=response path=tcp": 7,
        "kproxy_splice_fallbacks_total reason=no_credit": 2,
        "kproxy_redirects_unclaimed_total": 3,
        f"kproxy_l4_verdicts_total {who} verdict=deny": 4,
        "kproxy_l4_untold_total verdict=audit": 5,
        f"kproxy_direct_connections_reset_total {who} reason=not_allowed": 6,
        "kproxy_policy_revision": 7,
        "kproxy_policy_reloads_total result=success": 1,
        "kproxy_policy_reloads_total result=error": 1,
        "kproxy_policy_reload_success": 0,
        "kproxy_policy_reload_timestamp_seconds": 1_767_323_046.5,
        "kproxy_policy_errors": 3,
        "kproxy_access_log_lines_total": 1,
        "kproxy_access_log_lost_total reason=queue_full": 0,
        "kproxy_access_log_lost_total reason=write_error": 0,
        "kproxy_fail_mode mode=closed": 1,
        "kproxy_fail_mode mode=open": 0,
        "kproxy_fail_open_seconds_total": 0,
    }
    assert {name: found.get(name) for name in expected} == expected
    names = {name.split(" ")[0] for name in found}
    assert {"kproxy_build_info", "process_cpu_seconds_total", "process_open_fds"} <= names


def test_promtool_has_nothing_to_say(tmp_path: Path) -> None:
    """Prometheus' own linter finds no fault with the real output."""
    log = LineWriter(Sink.open(str(tmp_path / "log")), 1 << 20, print)
    text = collector(busy().metrics, log).exposition()
    log.close(20)
    run = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert (run.returncode, run.stdout + run.stderr) == (0, b"")


def test_every_metric_is_documented(tmp_path: Path) -> None:
    """docs/operations.md names each metric that is exposed."""
    log = LineWriter(Sink.open(str(tmp_path / "log")), 1 << 20, print)
    text = collector(busy().metrics, log).exposition().decode()
    log.close(20)
    docs = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    families = {line.split(" ")[2] for line in text.splitlines() if line.startswith("# TYPE kproxy_")}
    assert {name for name in families if f"`{name}`" not in docs} == set()


def test_names_with_quotes_are_escaped() -> None:
    """A rule's name may hold what must be escaped in the exposition format."""
    metrics = Metrics(10)
    odd = 'hr/a"b\\c\nd'
    metrics.request_cell(("e", "egress", "http", "allow", odd)).value += 1
    found = samples(collector(metrics).exposition())
    assert (
        found[f"kproxy_requests_total direction=egress endpoint=e protocol=http rule={odd} verdict=allow"]
        == 1
    )


def test_no_client_can_make_series() -> None:
    """However paths, hosts and methods vary, the number of series stays the same."""
    recorded = Recorded()
    flow = recorded.observer.flow([EGRESS])
    flow.request(Head(), ALLOW, 200, 1, 1, 1, 1)
    before = len(samples(collector(recorded.metrics).exposition()))
    for number in range(500):
        odd = b"%d" % number
        flow.request(Head(b"M" + odd, b"/" + odd, odd), ALLOW, 200 + number, number, number, number, number)
    assert len(samples(collector(recorded.metrics).exposition())) == before


def test_series_are_bounded() -> None:
    """Past the bound requests count for the rule "other" of their endpoint, and the bound is seen to bite."""
    metrics = Metrics(5)
    for number in range(20):
        metrics.request_cell(("e", "egress", "http", "allow", f"rule {number}")).value += 1
    assert len(metrics.requests) == 6
    assert metrics.requests["e", "egress", "http", "allow", OTHER].value == 15
    assert metrics.limits["metricSeries"].value == 15


def test_series_of_what_is_gone_go() -> None:
    """Endpoints and policies that are no more leave no series; what has no rule stays with its endpoint."""
    metrics = Metrics(100)
    for endpoint in ("stays", "goes"):
        metrics.connection_row(endpoint, "egress").opened += 1
        metrics.direct_resets[endpoint, "egress", "needs_judging"].value += 1
        for rule in ("hr/old#egress[0]", "hr/new#egress[0]", "hr/new#egress[1]", "", OTHER):
            metrics.request_cell((endpoint, "egress", "http", "allow", rule)).value += 1
    metrics.retain({"stays"}, {"hr/new"})
    left = {key[4] for key in metrics.requests}
    assert left == {"hr/new#egress[0]", "hr/new#egress[1]", "", OTHER}
    assert {key[0] for key in metrics.requests} == {"stays"}
    assert set(metrics.connections) == {("stays", "egress")}
    assert set(metrics.direct_resets) == {("stays", "egress", "needs_judging")}


def test_connection_that_outlives_its_endpoint() -> None:
    """A connection that closes after its endpoint has gone makes no series with a negative count."""
    recorded = Recorded()
    flow = recorded.observer.flow([EGRESS])
    recorded.metrics.retain(set(), set())
    flow.closed("endpoint_gone")
    assert not recorded.metrics.connections


def test_kernel_is_read_once_for_each_scrape() -> None:
    """An exposition shows the snapshot that was taken for it."""
    kernel = Kernel()
    made = collector(Metrics(10), kernel=kernel)
    kernel.current = KernelSnapshot(unclaimed_redirects=9)
    assert samples(made.exposition())["kproxy_redirects_unclaimed_total"] == 3
    made.take_snapshot()
    assert samples(made.exposition())["kproxy_redirects_unclaimed_total"] == 9


def test_without_an_access_log() -> None:
    """Where there is no log there are no figures of it."""
    assert b"access_log" not in collector(Metrics(10)).exposition()
