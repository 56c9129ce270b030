"""What is told of flows and requests, in the log and in the counters at once."""

from __future__ import annotations

from kproxy.accesslog import Also
from kproxy.judgement import PairJudgement
from kproxy.observer import Observer
from policy import HeaderEdit
from tests.kproxy.recorded import ALLOW, DENY, EGRESS, INGRESS, NOW_NS, Head, Recorded, Verdict


def test_an_allowed_request() -> None:
    """One request is one line with everything that a reader may rely on, and one count."""
    recorded = Recorded()
    flow = recorded.observer.flow([EGRESS])
    flow.request(Head(), ALLOW, 200, 120, 4500, 15_900, 123_000)
    line = recorded.last()
    assert line.time == "2026-01-02T03:04:05.678901Z"
    assert (line.endpoint, line.direction, line.peer) == ("hr/turtletweets", "egress", "hr/jobs-api")
    assert (line.peer_address, line.flow, line.protocol, line.tier) == ("10.0.0.2:80", 1, "http", "proxy")
    assert (line.verdict, line.rule, line.reason, line.status) == ("allow", ALLOW.rule, ALLOW.reason, 200)
    assert (line.method, line.path, line.host) == ("GET", "/jobs/331", "jobs-api.hr")
    assert (line.bytes_in, line.bytes_out, line.proxy_us, line.upstream_us) == (120, 4500, 15, 123)
    assert (line.also, line.truncated, line.detail) == (None, False, None)
    assert counted(recorded) == {("hr/turtletweets", "egress", "http", "allow", ALLOW.rule): 1}


def counted(recorded: Recorded) -> dict[tuple[str, ...], int]:
    """Give the request counters that are not zero."""
    return {key: cell.value for key, cell in recorded.metrics.requests.items() if cell.value}


def test_requests_of_one_connection_with_changing_verdicts() -> None:
    """What is encoded once for a verdict never tells of another: each line names its own rule."""
    recorded = Recorded()
    flow = recorded.observer.flow([EGRESS])
    other = Verdict(rule="hr/tweets#egress[0].toPorts[0].http[1]")
    verdicts = [ALLOW, ALLOW, DENY, other, ALLOW, DENY, DENY, other]
    for verdict in verdicts:
        flow.request(Head(), verdict, 200 if verdict.allowed else 403, 1, 1, 1, 1)
    assert [(line.verdict, line.rule) for line in recorded.read()] == [(v.verdict, v.rule) for v in verdicts]
    assert sorted(counted(recorded).values()) == [2, 3, 3]


def test_edits_are_named_without_their_values() -> None:
    """A line tells what was done to which header, in turn; one of another verdict on the flow tells its own."""
    recorded = Recorded()
    flow = recorded.observer.flow([EGRESS])
    edits = (HeaderEdit("add", b"x-token", b"s3cret"), HeaderEdit("log", b'x-"', b"s3cret"))
    for verdict in (Verdict(edits=edits), ALLOW, DENY):
        flow.request(Head(), verdict, 200, 1, 1, 1, 1)
    assert [line.edits for line in recorded.read()] == [("add x-token", 'log x-"'), (), ()]
    assert b"s3cret" not in b"".join(recorded.lines)


def test_edits_of_both_policies_are_on_one_line() -> None:
    """Of a connection between two endpoints, what either policy did is told in turn, beside the other's rule."""
    recorded = Recorded()
    flow = recorded.observer.flow([EGRESS, INGRESS])
    out = Verdict(edits=(HeaderEdit("delete", b"x-a", b""),))
    into = Verdict(rule="in", edits=(HeaderEdit("replace", b"x-b", b"s3cret"),))
    flow.request(Head(), PairJudgement(out, into), 200, 1, 1, 1, 1)
    assert recorded.last().edits == ("delete x-a", "replace x-b")
    assert recorded.last().also == Also("hr/jobs-api", "ingress", "allow", "in")


def test_hosts_of_one_connection() -> None:
    """A kept connection may carry requests to several hosts, each logged under its own."""
    recorded = Recorded()
    flow = recorded.observer.flow([EGRESS])
    for host in (b"a", b"a", b"b", b"", b"a"):
        flow.request(Head(host=host), ALLOW, 200, 1, 1, 1, 1)
    assert [line.host for line in recorded.read()] == ["a", "a", "b", "", "a"]


def test_flows_are_numbered() -> None:
    """Lines of one connection share a number, and no two connections do."""
    recorded = Recorded()
    one, two = (recorded.observer.flow([EGRESS]) for _ in range(2))
    for flow in (one, two, one):
        flow.request(Head(), ALLOW, 200, 1, 1, 1, 1)
    assert [line.flow for line in recorded.read()] == [1, 2, 1]


def test_a_request_without_a_head() -> None:
    """What has no head to show, such as an opaque connection, has a line without those fields."""
    recorded = Recorded()
    recorded.observer.flow([EGRESS], "tcp").request(None, ALLOW, 0, 7, 8, 0, 0)
    line = recorded.last()
    assert (line.protocol, line.status, line.bytes_in, line.bytes_out) == ("tcp", 0, 7, 8)
    assert line.method is line.path is line.host is None


def test_refused_requests() -> None:
    """A request that could not be read is an error by its reason, counted as such, with what was seen."""
    recorded = Recorded()
    flow = recorded.observer.flow([EGRESS])
    flow.refused("host_repeated", 'more than one Host: b"\x00"', None, 400)
    flow.refused("limit_head", "a head over the limit", Head(), 431)
    first, second = recorded.read()
    assert (first.verdict, first.rule, first.reason, first.status) == ("error", "", "host_repeated", 400)
    assert first.detail == 'more than one Host: b"\x00"'
    assert (first.method, second.method) == (None, "GET")
    assert counted(recorded) == {("hr/turtletweets", "egress", "http", "error", ""): 2}
    reasons = {key: cell.value for key, cell in recorded.metrics.parse_errors.items()}
    assert reasons == {("http", "host_repeated"): 1, ("http", "limit_head"): 1}
    assert {key: cell.value for key, cell in recorded.metrics.limits.items()} == {"headBytes": 1}


def test_long_details_are_cut() -> None:
    """What a parser quotes of a request is bounded like any other field."""
    recorded = Recorded(field_bytes=100)
    recorded.observer.flow([EGRESS]).refused("malformed", "\x00" * 10_000, None, 400)
    assert len(recorded.lines[0]) < 1000


def test_two_policies_that_agree() -> None:
    """Between two endpoints here one line names both rules, and each policy's verdict is counted."""
    recorded = Recorded()
    flow = recorded.observer.flow([EGRESS, INGRESS])
    egress, ingress = Verdict(rule="e"), Verdict(rule="i")
    flow.request(Head(), PairJudgement(egress, ingress), 200, 1, 1, 1, 1)
    line = recorded.last()
    assert (line.endpoint, line.direction, line.rule) == ("hr/turtletweets", "egress", "e")
    assert line.also == Also("hr/jobs-api", "ingress", "allow", "i")
    assert counted(recorded) == {
        ("hr/turtletweets", "egress", "http", "allow", "e"): 1,
        ("hr/jobs-api", "ingress", "http", "allow", "i"): 1,
    }


def test_denied_by_the_server_side() -> None:
    """A line of a denial is told by the endpoint whose policy denied, with the peer that it saw."""
    recorded = Recorded()
    flow = recorded.observer.flow([EGRESS, INGRESS])
    flow.request(Head(), PairJudgement(ALLOW, DENY), 403, 1, 1, 1, 0)
    line = recorded.last()
    assert (line.endpoint, line.direction, line.verdict) == ("hr/jobs-api", "ingress", "deny")
    assert (line.peer, line.peer_address) == ("hr/turtletweets", "10.0.0.3:40001")
    assert line.also is None
    assert [key[3] for key in counted(recorded)] == ["allow", "deny"]


def test_denied_by_the_client_side() -> None:
    """What egress denied, ingress was not asked about: it counts nothing."""
    recorded = Recorded()
    flow = recorded.observer.flow([EGRESS, INGRESS])
    flow.request(Head(), PairJudgement(DENY, None), 403, 1, 1, 1, 0)
    assert recorded.last().endpoint == "hr/turtletweets"
    assert counted(recorded) == {("hr/turtletweets", "egress", "http", "deny", ""): 1}


def test_audited_by_the_server_side() -> None:
    """A would-be denial is told by the side that would deny, and still names the rule that agreed."""
    recorded = Recorded()
    flow = recorded.observer.flow([EGRESS, INGRESS])
    flow.request(Head(), PairJudgement(ALLOW, Verdict("audit", "", "no rule matches")), 200, 1, 1, 1, 1)
    line = recorded.last()
    assert (line.endpoint, line.verdict) == ("hr/jobs-api", "audit")
    assert line.also == Also("hr/turtletweets", "egress", "allow", ALLOW.rule)


def test_new_policy_with_other_sides() -> None:
    """After a policy change the next request is told from the sides that judge it then."""
    recorded = Recorded()
    flow = recorded.observer.flow([EGRESS])
    flow.request(Head(), ALLOW, 200, 1, 1, 1, 1)
    flow.judged_by([EGRESS, INGRESS])
    flow.request(Head(), PairJudgement(ALLOW, DENY), 403, 1, 1, 1, 0)
    flow.judged_by([INGRESS])
    flow.request(Head(), ALLOW, 200, 1, 1, 1, 1)
    assert [line.endpoint for line in recorded.read()] == ["hr/turtletweets", "hr/jobs-api", "hr/jobs-api"]


def test_connections_are_counted_at_both_ends() -> None:
    """A connection is open until it is closed, for each policy that judges it, whatever policies came after."""
    recorded = Recorded()
    flows = [recorded.observer.flow([EGRESS, INGRESS]), recorded.observer.flow([EGRESS])]
    flows[0].judged_by([INGRESS])
    flows[0].closed("client_closed")
    rows = recorded.metrics.connections
    assert {key: (row.opened, row.active) for key, row in rows.items()} == {
        ("hr/turtletweets", "egress"): (2, 1),
        ("hr/jobs-api", "ingress"): (1, 0),
    }


def test_bounds_that_bite() -> None:
    """A connection that idles too long, or a head that takes too long, counts under the bound's key."""
    recorded = Recorded()
    flow = recorded.observer.flow([EGRESS])
    flow.refused("head_timeout", "the head did not end in time", None, 408)
    flow.closed("idle_timeout")
    bit = {key: cell.value for key, cell in recorded.metrics.limits.items()}
    assert bit == {"headSeconds": 1, "idleSeconds": 1}


def test_denied_in_the_kernel() -> None:
    """A connection that never reached the proxy has a line as well."""
    recorded = Recorded()
    recorded.observer.decided_l4(EGRESS, "udp", "deny", "hr/tweets#egress", "default deny")
    line = recorded.last()
    assert (line.tier, line.verdict, line.protocol, line.flow, line.status) == ("kernel", "deny", "udp", 0, 0)
    assert (line.rule, line.reason) == ("hr/tweets#egress", "default deny")


def test_latencies() -> None:
    """Both histograms take each request once; one that went nowhere has no upstream time."""
    recorded = Recorded()
    flow = recorded.observer.flow([EGRESS])
    flow.request(Head(), ALLOW, 200, 1, 1, 10_000, 2_000_000_000)
    flow.request(Head(), DENY, 403, 1, 1, 10_001, 0)
    proxy, upstream = recorded.metrics.proxy_latency, recorded.metrics.upstream_latency
    assert (proxy.counts[:2], sum(proxy.counts), proxy.sum_ns) == ([1, 1], 2, 20_001)
    assert (upstream.counts[-1], sum(upstream.counts)) == (1, 1)


def test_counters_without_a_log() -> None:
    """With the access log switched off everything is still counted."""
    recorded = Recorded()
    observer = Observer(recorded.metrics, None, 2048, lambda: NOW_NS)
    flow = observer.flow([EGRESS])
    flow.request(Head(), ALLOW, 200, 1, 1, 1, 1)
    flow.refused("method", "", None, 400)
    observer.decided_l4(EGRESS, "tcp", "audit", "", "default deny")
    assert sum(counted(recorded).values()) == 2
    assert not recorded.lines
