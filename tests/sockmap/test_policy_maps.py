"""The tables in the kernel: they answer as a plain reading of them does, and one revision at a time."""

from __future__ import annotations

import errno
import random
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_network

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_rig import (
    AUDIT,
    DENY,
    EGRESS,
    HOST,
    INGRESS,
    PASS,
    REDIRECT,
    TCP,
    UDP,
    Rig,
    Rule,
    abort,
    accept_all,
)

from sockmap.layout import Action, Direction
from sockmap.tables import Entry, Tables

pytestmark = pytest.mark.bpf

IDENTITIES = st.integers(10, 14)
ACTIONS = st.sampled_from([PASS, DENY, REDIRECT, AUDIT])
PORTS = st.one_of(
    st.integers(1, 65535), st.sampled_from([1, 79, 80, 81, 1023, 1024, 8080, 32767, 32768, 65535])
)


@dataclass(frozen=True)
class Question:
    """A call, and how it is made."""

    address: IPv4Address
    port: int
    protocol: int


def plain(tables: Tables, direction: Direction, question: Question) -> Action:
    """Read the tables as they are meant: the longest prefix names the peer, an entry decides, else the default."""
    ranges = [(net, who) for net, who in tables.prefixes if net.version == 4 and question.address in net]
    identity = max(ranges, key=lambda one: one[0].prefixlen, default=(None, 0))[1]
    for entry in tables.entries:
        key = (entry.endpoint, entry.direction, entry.identity, entry.protocol)
        matches = key == (0, direction, identity, question.protocol)
        if matches and entry.first_port <= question.port <= entry.last_port:
            return entry.action
    return tables.defaults[0][direction]


@st.composite
def intervals(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Port intervals that do not overlap."""
    edges = sorted(draw(st.sets(PORTS, min_size=0, max_size=6)))
    return list(zip(edges[::2], edges[1::2], strict=False))


@st.composite
def tables(draw: st.DrawFn, addresses: list[IPv4Address]) -> Tables:
    """Ranges around the addresses that will be called, entries for the identities behind them, and defaults."""
    prefixes = {ip_network("0.0.0.0/0"): 10}
    for _ in range(draw(st.integers(0, 6))):
        length, address = draw(st.integers(1, 32)), draw(st.sampled_from(addresses))
        prefixes[ip_network((address, length), strict=False)] = draw(IDENTITIES)
    entries = [
        Entry(0, EGRESS, identity, protocol, first, last, draw(ACTIONS))
        for identity in range(10, 15)
        for protocol in (TCP, UDP)
        for first, last in draw(intervals())
    ]
    defaults = {0: (PASS, draw(st.sampled_from([PASS, DENY, AUDIT]))), 1: (PASS, PASS)}
    return Tables(tuple(prefixes.items()), defaults, tuple(entries), HOST)


ADDRESSES = [
    IPv4Address(text)
    for text in ("198.51.100.1", "198.51.100.200", "198.18.0.1", "192.0.2.77", "203.0.113.9")
]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_call_is_answered_as_the_tables_read(rig: Rig, data: st.DataObject) -> None:
    """Generated tables, real connect(): the programs and a plain reading in Python say, and count, the same."""
    made = data.draw(tables(ADDRESSES))
    rig.hooks.policy.apply(made)
    edges = sorted({port for entry in made.entries for port in (entry.first_port, entry.last_port)}) or [80]
    for _ in range(8):
        question = Question(
            data.draw(st.sampled_from(ADDRESSES)),
            data.draw(st.one_of(st.sampled_from(edges), PORTS)),
            data.draw(st.sampled_from([TCP, UDP])),
        )
        expected = plain(made, EGRESS, question)
        if question.protocol == UDP and expected == REDIRECT:
            expected = DENY  # datagrams are never redirected
        with rig.answering("client") as counted:
            assert answer(rig, question) == (PASS if expected == AUDIT else expected)
        assert counted == {(EGRESS, expected): 1}


def answer(rig: Rig, question: Question) -> Action:
    """Make the call from the client's pod; tell what became of it."""
    kind = socket.SOCK_STREAM if question.protocol == TCP else socket.SOCK_DGRAM
    with rig.namespace("client").socket(socket.AF_INET, kind) as caller:
        caller.setblocking(False)
        error = caller.connect_ex((str(question.address), question.port))
        if error == errno.EPERM:
            return DENY
        state = rig.marks.state(caller.fileno())
    if state is None:
        return PASS
    assert (state.shown.value(), state.shown_port) == (question.address, question.port)
    return REDIRECT


def test_ingress_is_answered_as_egress_is(rig: Rig) -> None:
    """The same tables, asked by sk_lookup: a sample of peers, ports and actions."""
    seed = random.Random(5)
    listener = rig.server("server", 8080)
    proxy = rig.endpoints["server"].listeners[INGRESS, 4]
    for _ in range(40):
        first, last = sorted(seed.sample(range(1, 65536), 2))
        action, default = seed.choice([PASS, DENY, REDIRECT, AUDIT]), seed.choice([PASS, DENY, AUDIT])
        peer = seed.choice(["client", "other"])
        rig.policy(
            Rule("server", INGRESS, action, peer=peer, ports=(first, last)),
            defaults={"server": (default, PASS)},
        )
        for caller in ("client", "other"):
            expected = action if caller == peer and first <= 8080 <= last else default
            with rig.namespace(caller).socket(socket.AF_INET, socket.SOCK_STREAM) as c:
                with rig.answering("server") as counted:
                    error = c.connect_ex((str(rig.network["server"].v4), 8080))
                reached = {PASS: list(accept_all(listener)), REDIRECT: list(accept_all(proxy))}
            assert error == (errno.ECONNREFUSED if expected == DENY else 0)
            assert len(reached[PASS]) == (expected in (PASS, AUDIT))
            assert len(reached[REDIRECT]) == (expected == REDIRECT)
            assert counted == {(INGRESS, expected): 1}
            for sock in (*reached[PASS], *reached[REDIRECT]):
                abort(sock)
