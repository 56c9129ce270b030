"""What the kernel decided by itself, in the access log: whose policy, which peer, which rule, and why."""

from __future__ import annotations

from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kproxy.directory import Directory
from kproxy.kernel_events import KernelEvents
from kproxy.parties import EndpointName
from kproxy.revision import Revision
from sockmap.layout import Address, Direction, Event, EventKind
from tests.kproxy.policies import CLIENT, NODE, PORT, SERVER, TWIN, allow, compiled
from tests.kproxy.recorded import Recorded

NUMBERS = {0: EndpointName("hr", "client"), 1: EndpointName("hr", "server")}
TCP, UDP, ICMP = 6, 17, 1
DENIED, AUDITED = EventKind.DENIED, EventKind.AUDITED
ENFORCED, TRIED = (allow("server", "ingress", "nobody", mode=mode) for mode in ("", "audit"))
OUT_TRIED = allow("client", "egress", "nobody", mode="audit")


def told(event: Event, *policies: dict[str, Any]) -> Recorded:
    """What the log has of an event under these policies."""
    recorded = Recorded()

    def by_number(number: int) -> SimpleNamespace | None:
        return SimpleNamespace(name=NUMBERS[number]) if number in NUMBERS else None

    directory = cast(Directory, SimpleNamespace(by_number=by_number))
    revision = cast(Revision, SimpleNamespace(policy=compiled(*policies)))
    KernelEvents(directory, revision, recorded.observer).decided(event)
    return recorded


def event(
    kind: EventKind,
    number: int = 1,
    direction: Direction = Direction.INGRESS,
    peer: str = str(CLIENT.addresses[0]),
    *,
    identity: int = 12345,
    protocol: int = TCP,
    port: int = PORT + 1,
) -> Event:
    """A record as the programs write it; identity numbers are of a revision that may have been replaced."""
    return Event(kind, number, direction, identity, protocol, port, Address.of(ip_address(peer)))


@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize(
    ("kind", "rules", "verdict", "reason"),
    [(DENIED, ENFORCED, "deny", "default deny: "), (AUDITED, TRIED, "audit", "audit: ")],
)
def test_a_caller(protocol: int, kind: EventKind, rules: dict[str, Any], verdict: str, reason: str) -> None:
    """Of a peer that called, the address is known; the port is the server's own."""
    line = told(event(kind, protocol=protocol), rules).last()
    assert (line.endpoint, line.direction, line.peer) == ("hr/server", "ingress", "hr/client")
    assert (line.peer_address, line.port) == (str(CLIENT.addresses[0]), PORT + 1)
    assert (line.verdict, line.tier, line.rule) == (verdict, "kernel", "hr/of-server-ingress#ingress")
    assert line.reason.startswith(reason)
    assert line.protocol == {TCP: "tcp", UDP: "udp"}[protocol]


@pytest.mark.parametrize(
    ("peer", "written"),
    [(str(SERVER.addresses[0]), f"{SERVER.addresses[0]}:81"), ("2001:db8::1", "[2001:db8::1]:81")],
)
def test_whom_was_called(peer: str, written: str) -> None:
    """Of a peer that was called, its port is known too."""
    line = told(event(AUDITED, 0, Direction.EGRESS, peer), OUT_TRIED).last()
    assert (line.endpoint, line.direction, line.peer_address) == ("hr/client", "egress", written)
    assert (line.port, line.verdict) == (81, "audit")


@pytest.mark.parametrize("workload", [CLIENT, TWIN], ids=lambda one: one.name)
def test_the_reason_names_who_called(workload: Any) -> None:
    """Not another one with the same labels."""
    line = told(event(DENIED, peer=str(workload.addresses[0])), ENFORCED).last()
    assert f"allows {workload.full_name} on 81/TCP" in line.reason


def test_the_host_is_who_opened_the_socket() -> None:
    """The kernel knows that a connection was opened on the host, whatever address it has."""
    host = compiled(ENFORCED).host.number
    line = told(event(DENIED, peer=str(CLIENT.addresses[0]), identity=host), ENFORCED).last()
    assert line.peer == "host"


@pytest.mark.parametrize(("kind", "rules"), [(DENIED, ENFORCED), (AUDITED, TRIED)])
def test_another_protocol(kind: EventKind, rules: dict[str, Any]) -> None:
    """It has no port and no rules of its own: what keeps the peer from being allowed whole is named."""
    line = told(event(kind, protocol=ICMP, port=0), rules).last()
    assert (line.protocol, line.port, line.rule) == ("1", 0, "hr/of-server-ingress#ingress")


def test_a_policy_that_was_replaced_meanwhile() -> None:
    """What the policy in force would not say is not put into its mouth."""
    line = told(event(DENIED, peer=str(NODE.addresses[0]))).last()
    assert (line.verdict, line.rule) == ("deny", "")
    assert "replaced" in line.reason


def test_an_endpoint_that_has_left() -> None:
    """Its number may be another's soon: nothing is told."""
    assert told(event(DENIED, number=7), ENFORCED).lines == []
