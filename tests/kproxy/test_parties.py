"""What one or two policies say of a flow, and how it is told."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kproxy.connector import still
from kproxy.flow import Flow
from kproxy.http1 import HttpOptions
from kproxy.parties import EndpointName, Parties, rule
from kproxy.relay import Relay
from policy import Action
from sockmap.layout import Direction
from tests.kproxy.policies import CLIENT, PORT, SERVER, TWIN, allow, compiled
from tests.kproxy.recorded import Head, Recorded

CLIENT_NAME, SERVER_NAME = EndpointName("hr", "client"), EndpointName("hr", "server")
BOTH = Parties(
    Direction.EGRESS,
    CLIENT_NAME,
    CLIENT.addresses[0],
    40001,
    SERVER.addresses[0],
    PORT,
    CLIENT.addresses[0],
    False,
    SERVER_NAME,
    netns=1,
    client_netns=1,
)
EGRESS = replace(BOTH, server_endpoint=None)
INGRESS = replace(BOTH, direction=Direction.INGRESS, endpoint=SERVER_NAME, server_endpoint=None)

JUDGED = [{"path": "/jobs"}]
OUT, IN = allow("client", "egress", "server"), allow("server", "ingress", "client")
OUT_JUDGED = allow("client", "egress", "server", http=JUDGED)
IN_JUDGED = allow("server", "ingress", "client", http=JUDGED)
OUT_TRIED = allow("client", "egress", "nobody", mode="audit")
IN_TRIED = allow("server", "ingress", "nobody", mode="audit")
IN_DENIED = allow("server", "ingress", "nobody")


class Request:
    """A request that both rule sets allow."""

    method, path, host, headers = b"GET", b"/jobs", b"server", ()


@pytest.mark.parametrize(
    ("policies", "action", "verdict", "tellers"),
    [
        ([OUT, IN], Action.PASS, "allow", ["egress", "ingress"]),
        ([OUT_TRIED, IN], Action.PASS, "audit", ["egress", "ingress"]),
        ([OUT, IN_TRIED], Action.PASS, "audit", ["egress", "ingress"]),
        ([OUT_TRIED, IN_TRIED], Action.PASS, "audit", ["egress", "ingress"]),
        ([OUT_JUDGED, IN], Action.REDIRECT, "allow", ["egress", "ingress"]),
        ([OUT, IN_JUDGED], Action.REDIRECT, "allow", ["ingress", "egress"]),
        ([OUT_JUDGED, IN_TRIED], Action.REDIRECT, "audit", ["egress", "ingress"]),
        ([OUT_TRIED, IN_JUDGED], Action.REDIRECT, "audit", ["egress", "ingress"]),
        ([OUT_JUDGED, IN_JUDGED], Action.REDIRECT, "allow", ["egress", "ingress"]),
        ([OUT_JUDGED, IN_DENIED], Action.DENY, "deny", ["ingress", "egress"]),
    ],
)
def test_two_policies_on_one_flow(
    policies: list[dict[str, Any]], action: Action, verdict: str, tellers: list[str]
) -> None:
    """The stricter counts, and an audit of either is never lost behind an allowance of the other."""
    ruling = rule(compiled(*policies), BOTH)
    assert ruling.action is action
    assert (ruling.rules or ruling.whole).judge(Request()).verdict == verdict
    assert [side.direction for side in ruling.sides] == tellers
    assert {side.port for side in ruling.sides} == {PORT}


def test_the_reason_names_who_called() -> None:
    """Two workloads that no rule tells apart have one identity; a denial is about the one that was there."""
    revision = compiled(IN_DENIED)
    assert revision.identify(CLIENT.addresses[0]).number == revision.identify(TWIN.addresses[0]).number
    for workload in (CLIENT, TWIN):
        parties = replace(INGRESS, client=workload.addresses[0], client_known_as=workload.addresses[0])
        assert f"allows {workload.full_name} on" in rule(revision, parties).whole.judge(None).reason


@pytest.mark.parametrize("parties", [BOTH, INGRESS], ids=["server of two", "its own"])
def test_an_endpoint_that_is_no_more_allows_nothing(parties: Parties) -> None:
    """A flow of an endpoint that left the endpoints file is denied, by a sentence of its own."""
    ruling = rule(compiled(OUT, workloads=[CLIENT]), replace(parties, client_known_as=ip_address("1.2.3.4")))
    assert ruling.action is Action.DENY
    if parties is INGRESS:
        assert ruling.whole.judge(None).reason == "hr/server is no longer an endpoint of this node"


def flow_of(recorded: Recorded, parties: Parties, *policies: dict[str, Any]) -> Flow:
    """A flow that has moved 11 bytes up and 22 down when it ends."""
    flow = Flow(parties, rule(compiled(*policies), parties), recorded.observer, lambda _flow: None)
    relay = SimpleNamespace(downstream_in=11, downstream_out=22, reason="closed")
    flow.core(cast(Relay, relay), HttpOptions())
    return flow


@pytest.mark.parametrize(
    ("parties", "policies", "verdict", "endpoint"),
    [
        (EGRESS, [OUT], "allow", "hr/client"),
        (INGRESS, [IN_TRIED], "audit", "hr/server"),
        (BOTH, [OUT, IN_TRIED], "audit", "hr/server"),
    ],
)
def test_an_opaque_flow_is_told_at_its_end(
    parties: Parties, policies: list[dict[str, Any]], verdict: str, endpoint: str
) -> None:
    """One line with its bytes, and one in the counter of each policy that was asked."""
    recorded = Recorded()
    flow_of(recorded, parties, *policies).ended()
    line = recorded.last()
    assert (line.protocol, line.tier, line.verdict, line.endpoint) == ("tcp", "proxy", verdict, endpoint)
    assert (line.bytes_in, line.bytes_out, line.port) == (11, 22, PORT)
    assert (line.also is not None) == (parties is BOTH)
    assert sum(cell.value for cell in recorded.metrics.requests.values()) == 1 + (parties is BOTH)
    assert recorded.metrics.connection_row("hr/" + line.endpoint[3:], line.direction).active == 0


def test_an_opaque_flow_is_told_as_the_last_policy_has_it() -> None:
    """It goes on under a policy that passes it whole, and ends under one that would judge its requests."""
    recorded = Recorded()
    flow = flow_of(recorded, EGRESS, OUT)
    assert flow.policy_changed(compiled(OUT_TRIED), flow.parties)
    assert not flow.policy_changed(compiled(OUT_JUDGED), flow.parties)
    flow.ended()
    assert [line.verdict for line in recorded.read()] == ["audit"]


def test_a_judged_flow_whose_connection_became_an_audit() -> None:
    """Its requests pass, and each is an audit."""
    recorded = Recorded()
    flow = flow_of(recorded, EGRESS, OUT_JUDGED)
    assert flow.policy_changed(compiled(OUT_TRIED), flow.parties)
    flow.observer.request(Head(), flow.judge(cast(Any, Request())), 200, 1, 1, 1, 1)
    flow.ended()
    assert [(line.protocol, line.verdict) for line in recorded.read()] == [("http", "audit")]


def test_a_flow_that_is_denied_has_one_line() -> None:
    """Where the policy changed between the redirect and its arrival."""
    recorded = Recorded()
    Flow(INGRESS, rule(compiled(IN_DENIED), INGRESS), recorded.observer, lambda _flow: None).denied()
    line = recorded.last()
    assert (line.verdict, line.protocol, line.tier, line.port) == ("deny", "tcp", "proxy", PORT)
    assert recorded.metrics.connection_row("hr/server", "ingress").closed["denied"].value == 1


class Known:
    """What is known of namespaces and addresses: the client's is 1, the server's 2."""

    host_netns = 9

    def __init__(self, **names: str) -> None:
        self.holders = {
            netns: SimpleNamespace(
                name=EndpointName("hr", names.get(one.name, one.name)),
                endpoint=SimpleNamespace(addresses=one.addresses),
            )
            for netns, one in ((1, CLIENT), (2, SERVER))
        }

    def by_netns(self, cookie: int) -> Any:
        """Who holds a namespace."""
        return self.holders.get(cookie)

    def by_address(self, address: Any) -> Any:
        """Who has an address."""
        return next((one for one in self.holders.values() if address in one.endpoint.addresses), None)


def test_who_talks_to_whom_is_looked_at_anew() -> None:
    """A client is known by the address that its namespace has now, whatever its socket shows."""
    known = Known()
    assert still(known, BOTH) == BOTH
    known.holders[1].endpoint.addresses = TWIN.addresses
    now = still(known, replace(BOTH, direction=Direction.INGRESS, server_endpoint=None))
    assert now is not None
    assert now.client_known_as == TWIN.addresses[0]


def test_others_are_to_be_asked() -> None:
    """A namespace under another name, a server that left or came: the flow does not go on."""
    assert still(Known(client="other"), BOTH) is None
    assert still(Known(server="other"), BOTH) is None
    assert still(Known(), EGRESS) is None
    gone = Known()
    del gone.holders[1]
    assert still(gone, BOTH) is None
