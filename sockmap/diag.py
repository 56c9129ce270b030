"""sock_diag(7): how much a socket holds unread, and ending a connection from outside.

Libraries for netlink build a message object per look; this is asked thousands of times a second for credit, so
the two exact requests are packed by hand. Layouts: ``include/uapi/linux/inet_diag.h`` and ``sock_diag.h``.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import NamedTuple

from sockmap.netns import NetworkNamespace

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY, _SOCK_DESTROY = 20, 21
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_DUMP = 1, 4, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
# include/net/tcp_states.h
_LISTEN = 1 << 10
_CONNECTED = 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 8  # established, SYN sent, FIN wait 1 and 2, close wait
_EXTENSION_INFO, _EXTENSION_SKMEMINFO = 2, 7
_TCP = 6
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBBI")  # family, protocol, extensions, pad, states
_PORTS = struct.Struct("!HH")
_MESSAGE_HEADER, _INET_DIAG_MESSAGE = 16, 72
_RQUEUE, _WQUEUE = 16 + 56, 16 + 60  # idiag_rqueue, idiag_wqueue
BYTES_RECEIVED = 128  # tcpi_bytes_received in struct tcp_info, include/uapi/linux/tcp.h
_RECEIVE_BYTES = 65536


class Name(NamedTuple):
    """A socket by its addresses, 16 bytes each (IPv4 as IPv4-mapped), seen from itself."""

    local: bytes
    local_port: int
    remote: bytes
    remote_port: int


class Progress(NamedTuple):
    """How far a reader has come: bytes that reached it by TCP, of these unread, and all unread memory."""

    received_by_tcp: int
    tcp_unread: int
    unread: int


class Connection(NamedTuple):
    """One TCP socket, as a dump shows it and a question names it.

    ``cookie`` is what SO_COOKIE would say (8 bytes, host order); ``device`` is the number of the device that it is
    bound to, or 0; ``accepted`` is false while it waits in a listener's queue.
    """

    name: Name
    cookie: bytes
    device: int
    accepted: bool = True


class SockDiag:
    """A sock_diag socket inside one network namespace.

    A socket that is bound to a device is found only where the question names that device. Where a connection is
    gone, its names would find a listener, or a later connection: so each question has the cookie too.
    """

    def __init__(self, namespace: NetworkNamespace) -> None:
        self._netlink = namespace.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)
        self._netlink.bind((0, 0))

    def unread(self, connection: Connection) -> int | None:
        """Return the memory charged to a socket's receive queue, in bytes; None where it is gone.

        For a spliced socket that is exactly the redirected bytes which it has not read.
        """
        reply = self._ask(connection, 1 << (_EXTENSION_SKMEMINFO - 1))
        if reply is None:
            return None
        memory = _attributes(reply).get(_EXTENSION_SKMEMINFO)
        return None if memory is None else int.from_bytes(memory[:4], "little")

    def progress(self, connection: Connection) -> Progress | None:
        """Return how far a reader has come; None where it is gone."""
        wanted = 1 << (_EXTENSION_SKMEMINFO - 1) | 1 << (_EXTENSION_INFO - 1)
        reply = self._ask(connection, wanted)
        if reply is None:
            return None
        found = _attributes(reply)
        memory, info = found.get(_EXTENSION_SKMEMINFO), found.get(_EXTENSION_INFO)
        if memory is None or info is None:
            return None
        received = int.from_bytes(info[BYTES_RECEIVED : BYTES_RECEIVED + 8], "little")
        queued = int.from_bytes(reply[_RQUEUE : _RQUEUE + 4], "little")
        return Progress(received, queued, int.from_bytes(memory[:4], "little"))

    def unacknowledged(self, connection: Connection) -> int | None:
        """Return how many bytes a socket's peer has not acknowledged, those not yet sent included; None: gone."""
        reply = self._ask(connection, 0)
        return None if reply is None else int.from_bytes(reply[_WQUEUE : _WQUEUE + 4], "little")

    def connections(self) -> list[Connection]:
        """Return every TCP connection here that can still carry bytes."""
        return self._dump(_CONNECTED)

    def listening_ports(self) -> set[int]:
        """Return the TCP ports that are listened on here."""
        return {listener.name.local_port for listener in self._dump(_LISTEN)}

    def destroy(self, connection: Connection) -> bool:
        """Reset one connection (SOCK_DESTROY); false where it is gone already.

        Raises:
            OSError: EOPNOTSUPP: the kernel was built without it.
        """
        self._netlink.send(_message(_SOCK_DESTROY, _NLM_F_REQUEST | _NLM_F_ACK, connection, 0))
        reply = self._netlink.recv(_RECEIVE_BYTES)
        code = -int(struct.unpack_from("=i", reply, _MESSAGE_HEADER)[0])
        if code in (0, errno.ENOENT):
            return code == 0
        raise OSError(code, "the kernel does not end the connection")

    def close(self) -> None:
        """Close it."""
        self._netlink.close()

    def _ask(self, connection: Connection, extensions: int) -> bytes | None:
        self._netlink.send(_message(_SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, connection, extensions))
        reply = self._netlink.recv(_RECEIVE_BYTES)
        return None if int.from_bytes(reply[4:6], "little") == _NLMSG_ERROR else reply

    def _dump(self, states: int) -> list[Connection]:
        found: list[Connection] = []
        for family in (socket.AF_INET, socket.AF_INET6):
            body = _REQUEST.pack(family, _TCP, 0, 0, states) + bytes(48)
            header = _HEADER.pack(
                _MESSAGE_HEADER + len(body), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST | _NLM_F_DUMP, 1, 0
            )
            self._netlink.send(header + body)
            found += self._receive_dump()
        return found

    def _receive_dump(self) -> list[Connection]:
        found: list[Connection] = []
        while True:
            data = self._netlink.recv(_RECEIVE_BYTES)
            at = 0
            while at + _MESSAGE_HEADER <= len(data):
                length, kind = struct.unpack_from("=IH", data, at)
                if kind in (_NLMSG_DONE, _NLMSG_ERROR):
                    return found
                found.append(_identify(data[at + _MESSAGE_HEADER : at + length]))
                at += (length + 3) & ~3


def _message(kind: int, flags: int, connection: Connection, extensions: int) -> bytes:
    name = connection.name
    body = (
        # The IPv6 form finds sockets of either family.
        _REQUEST.pack(socket.AF_INET6, _TCP, extensions, 0, 0xFFFFFFFF)
        + _PORTS.pack(name.local_port, name.remote_port)
        + name.local
        + name.remote
        + connection.device.to_bytes(4, "little")
        + connection.cookie
    )
    return _HEADER.pack(_MESSAGE_HEADER + len(body), kind, flags, 1, 0) + body


def _identify(message: bytes) -> Connection:
    """Read an inet_diag_msg: ports at 4, addresses at 8 and 24, device at 40, cookie at 44, inode at 68."""
    local_port, remote_port = _PORTS.unpack_from(message, 4)
    local, remote = message[8:24], message[24:40]
    if message[0] == socket.AF_INET:
        prefix = bytes(10) + b"\xff\xff"
        local, remote = prefix + local[:4], prefix + remote[:4]
    name = Name(local, local_port, remote, remote_port)
    device = int.from_bytes(message[40:44], "little")
    return Connection(name, message[44:52], device, message[68:72] != bytes(4))


def _attributes(reply: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = _MESSAGE_HEADER + _INET_DIAG_MESSAGE
    while at + 4 <= len(reply):
        length, kind = struct.unpack_from("=HH", reply, at)
        if length < 4:
            break
        found[kind] = reply[at + 4 : at + length]
        at += (length + 3) & ~3
    return found
