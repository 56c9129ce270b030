"""The structures that the BPF programs and user space share, as ctypes: the mirror of ``bpf/layout.h``.

Integers are in host byte order unless named ``be_*``. An :class:`Address` holds network byte order, IPv4 as
``::ffff:a.b.c.d``. A test compiles the header and compares every size and offset.
"""

from __future__ import annotations

import ctypes as ct
from enum import IntEnum, IntFlag
from ipaddress import IPv4Address, IPv6Address

IPAddress = IPv4Address | IPv6Address

NO_SLOT = 0xFFFFFFFF


class Direction(IntEnum):
    """Seen from the endpoint."""

    INGRESS = 0
    EGRESS = 1


class Action(IntEnum):
    """What the policy map says of a connection; AUDIT: it passes, and is told, as a tried policy would deny it."""

    PASS = 0
    DENY = 1
    REDIRECT = 2
    AUDIT = 3


class Role(IntEnum):
    """Which of a flow's four sockets this is."""

    CLIENT = 1
    PROXY = 2
    UPSTREAM = 3
    SERVER = 4


class UpstreamFlag(IntFlag):
    """What is known of an upstream connection before it is made."""

    ANNOUNCE = 1
    SPLICE = 2


class SlotMode(IntEnum):
    """How a direction travels now."""

    SPLICING = 0
    BY_TCP = 1
    CLOSED = 2


class EventKind(IntEnum):
    """What a record of the ring buffer reports."""

    ASK = 1
    TO_TCP = 2
    DENIED = 3
    STRANGER = 4
    AUDITED = 5


class ToTcpReason(IntEnum):
    """Why a direction left the splice for TCP."""

    NO_CREDIT = 1
    NO_PEER = 2
    REDIRECT_FAILED = 3


class Address(ct.Structure):
    """16 bytes, network byte order."""

    _fields_ = [("bytes", ct.c_uint8 * 16)]

    @classmethod
    def of(cls, address: IPAddress) -> Address:
        """Wrap an address; IPv4 becomes IPv4-mapped."""
        return cls((ct.c_uint8 * 16).from_buffer_copy(mapped(address)))

    def value(self) -> IPAddress:
        """Unwrap it; an IPv4-mapped one is IPv4 again."""
        v6 = IPv6Address(bytes(self.bytes))
        return v6.ipv4_mapped or v6


def mapped(address: IPAddress) -> bytes:
    """Return the 16 bytes under which the maps know an address."""
    if isinstance(address, IPv4Address):
        return b"\0" * 10 + b"\xff\xff" + address.packed
    return address.packed


class Tuple(ct.Structure):
    """One TCP connection, source being the side that opens it."""

    _fields_ = [
        ("source", Address),
        ("destination", Address),
        ("source_port", ct.c_uint32),
        ("destination_port", ct.c_uint32),
    ]


class Control(ct.Structure):
    """The one element of map ``control``."""

    _fields_ = [("generation", ct.c_uint32), ("pad", ct.c_uint32), ("host_netns", ct.c_uint64)]


class Endpoint(ct.Structure):
    """An element of map ``endpoints``."""

    _fields_ = [
        ("source4", Address),
        ("source6", Address),
        ("egress_port4", ct.c_uint32),
        ("egress_port6", ct.c_uint32),
        ("splice", ct.c_uint32),
        ("pad", ct.c_uint32),
    ]


class IdentityKey(ct.Structure):
    """Longest-prefix key of map ``identities``: the prefix length counts the generation's 32 bits."""

    _fields_ = [("prefix_length", ct.c_uint32), ("generation", ct.c_uint32), ("address", Address)]


class DefaultsKey(ct.Structure):
    """Key of map ``defaults``."""

    _fields_ = [("generation", ct.c_uint32), ("endpoint", ct.c_uint32)]


class Defaults(ct.Structure):
    """What is done where no entry of ``policy`` matches, by :class:`Direction`, and who the host is."""

    _fields_ = [("action", ct.c_uint32 * 2), ("host_identity", ct.c_uint32), ("pad", ct.c_uint32)]


class PolicyKey(ct.Structure):
    """Longest-prefix key of map ``policy``: 112 exact bits, then 0 to 16 of the port."""

    _fields_ = [
        ("prefix_length", ct.c_uint32),
        ("generation", ct.c_uint32),
        ("endpoint", ct.c_uint32),
        ("identity", ct.c_uint32),
        ("direction", ct.c_uint8),
        ("protocol", ct.c_uint8),
        ("be_port", ct.c_uint8 * 2),
    ]


class PolicyValue(ct.Structure):
    """An :class:`Action`."""

    _fields_ = [("action", ct.c_uint32)]


class Listener(ct.Structure):
    """Marks a listener of kproxy; inherited by what it accepts."""

    _fields_ = [("endpoint", ct.c_uint32), ("direction", ct.c_uint32)]


class Upstream(ct.Structure):
    """Marks an upstream socket of kproxy before it connects."""

    _fields_ = [
        ("client", Address),
        ("client_port", ct.c_uint32),
        ("flags", ct.c_uint32),
        ("endpoint", ct.c_uint32),
        ("pad", ct.c_uint32),
    ]


class SocketState(ct.Structure):
    """What the programs know of one socket of a flow."""

    _fields_ = [
        ("cookie", ct.c_uint64),
        ("peer_cookie", ct.c_uint64),
        ("peer_netns", ct.c_uint64),
        ("handshake", ct.c_uint64),
        ("shown", Address),
        ("shown_port", ct.c_uint32),
        ("role", ct.c_uint32),
        ("endpoint", ct.c_uint32),
        ("direction", ct.c_uint32),
        ("slot", ct.c_uint32),
        ("slot_generation", ct.c_uint32),
        ("announced", ct.c_uint32),
        ("paired", ct.c_uint32),
        ("splice", ct.c_uint32),
        ("in_sockhash", ct.c_uint32),
        ("peer_in_map", ct.c_uint32),
        ("pad", ct.c_uint32),
        ("tuple", Tuple),
    ]


class Handshake(ct.Structure):
    """What the active end of a connection leaves for the passive one."""

    _fields_ = [
        ("cookie", ct.c_uint64),
        ("netns", ct.c_uint64),
        ("shown", Address),
        ("shown_port", ct.c_uint32),
        ("role", ct.c_uint32),
        ("endpoint", ct.c_uint32),
        ("slot", ct.c_uint32),
        ("slot_generation", ct.c_uint32),
        ("splice", ct.c_uint32),
        ("kept", ct.c_uint32),
        ("kept_generation", ct.c_uint32),
        ("pad", ct.c_uint32),
    ]


class Pair(ct.Structure):
    """An element of map ``pairs``: an upstream socket's server, and the slot taken for the upstream socket."""

    _fields_ = [
        ("server_cookie", ct.c_uint64),
        ("slot", ct.c_uint32),
        ("slot_generation", ct.c_uint32),
    ]


class Slot(ct.Structure):
    """One direction of a spliced pair; see ``layout.h`` for who writes which word."""

    _fields_ = [
        ("bytes", ct.c_uint64),
        ("messages", ct.c_uint64),
        ("settled_bytes", ct.c_uint64),
        ("settled_messages", ct.c_uint64),
        ("tcp_bytes", ct.c_uint64),
        ("grant_seen", ct.c_uint64),
        ("ask_at", ct.c_uint64),
        ("mode_generation", ct.c_uint64),
        ("peer_cookie", ct.c_uint64),
        ("cookie", ct.c_uint64),
        ("netns", ct.c_uint64),
        ("peer_slot", ct.c_uint64),
        ("local", Address),
        ("remote", Address),
        ("local_port", ct.c_uint32),
        ("remote_port", ct.c_uint32),
        ("device", ct.c_uint32),
        ("role", ct.c_uint32),
        ("endpoint", ct.c_uint32),
        ("told", ct.c_uint32),
        ("message_end", ct.c_uint64 * 16),
        ("in_map", ct.c_uint64),
        ("granted", ct.c_uint64),
        ("reopen", ct.c_uint64),
    ]


class Event(ct.Structure):
    """A record of the ring buffer."""

    _fields_ = [
        ("kind", ct.c_uint32),
        ("slot_or_endpoint", ct.c_uint32),
        ("generation_or_direction", ct.c_uint32),
        ("reason_or_identity", ct.c_uint32),
        ("protocol", ct.c_uint32),
        ("port", ct.c_uint32),
        ("address", Address),
    ]


class Counter(IntEnum):
    """Index into map ``counters``."""

    SPLICED_BYTES = 0  # and the three after it, by role - 1
    TCP_BYTES = 4  # likewise
    TO_TCP_NO_CREDIT = 8
    TO_TCP_NO_PEER = 9
    TO_TCP_REDIRECT_FAILED = 10
    REOPENED = 11
    NO_SLOT = 12
    NOT_IN_SOCKHASH = 13
    HANDSHAKES_FULL = 14
    EVENTS_LOST = 15
    REDIRECTED = 16
    REDIRECTS_ARRIVED = 17
    REDIRECTS_LOST = 18
    STORAGE_FULL = 19
    PAIRED = 20
    NO_POLICY = 21
    LISTENER_MISSING = 22
    DENIALS_UNTOLD = 23
    AUDITS_UNTOLD = 24


COUNTERS = 25


class Verdicts(ct.Structure):
    """What the hooks answered for one endpoint, by :class:`Direction` and :class:`Action`."""

    _fields_ = [("count", (ct.c_uint64 * 4) * 2)]


# Every structure that has a twin of the same (lower-case) name in layout.h; the layout test walks it.
MIRRORED: tuple[tuple[str, type[ct.Structure]], ...] = (
    ("address", Address),
    ("tuple", Tuple),
    ("control", Control),
    ("endpoint", Endpoint),
    ("identity_key", IdentityKey),
    ("defaults_key", DefaultsKey),
    ("defaults", Defaults),
    ("policy_key", PolicyKey),
    ("policy_value", PolicyValue),
    ("listener", Listener),
    ("upstream", Upstream),
    ("socket_state", SocketState),
    ("handshake", Handshake),
    ("pair", Pair),
    ("slot", Slot),
    ("event", Event),
    ("verdicts", Verdicts),
)
