"""Calls without pause, in processes of their own, while a test does something else; and what became of them."""

from __future__ import annotations

import json
import mmap
import os
import signal
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from errno import errorcode

from kproxy.demo.network import Pod

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset, so that ports are free again at once
_TIMEOUT_S = 5.0

Call = Callable[[], str]


def tcp(address: object, port: int, ask: bytes = b"") -> Call:
    """Connect, and send `ask` if there is something; tell "open", the answer's status or the error's name."""

    def call() -> str:
        with _socket(address, socket.SOCK_STREAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            sock.connect((str(address), port))
            if not ask:
                return "open"
            sock.sendall(ask)
            return sock.recv(4096)[9:12].decode() or "end"

    return call


def keepalive(address: object, port: int, ask: bytes) -> Call:
    """Ask again and again on one connection, and on a new one where that has ended."""
    held: list[socket.socket] = []

    def call() -> str:
        if not held:
            sock = _socket(address, socket.SOCK_STREAM)
            sock.connect((str(address), port))
            held.append(sock)
        try:
            held[0].sendall(ask)
            return held[0].recv(4096)[9:12].decode() or held.pop().close() or "end"
        except OSError:
            held.pop().close()
            raise

    return call


def udp(address: object, port: int, *, connected: bool = False) -> Call:
    """Send a datagram from a new socket; tell "sent" or the error's name."""

    def call() -> str:
        with _socket(address, socket.SOCK_DGRAM) as sock:
            if connected:
                sock.connect((str(address), port))
                return "open"
            sock.sendto(b"x", (str(address), port))
        return "sent"

    return call


def _socket(address: object, kind: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in str(address) else socket.AF_INET, kind)
    sock.settimeout(_TIMEOUT_S)
    return sock


@contextmanager
def hammering(calls: Mapping[str, tuple[Pod, Call]]) -> Iterator[dict[str, Counter[str]]]:
    """Make each call from its pod again and again while the block runs; what came of them is there after it."""
    stop = mmap.mmap(-1, 1)
    children = {name: _start(pod, call, stop) for name, (pod, call) in calls.items()}
    told: dict[str, Counter[str]] = {}
    try:
        yield told
    finally:
        stop[0] = 1
        told.update((name, _end(*child)) for name, child in children.items())
        stop.close()


def _start(pod: Pod, call: Call, stop: mmap.mmap) -> tuple[int, int]:
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return child, reader
    try:
        signal.alarm(600)  # whatever becomes of the parent
        found: Counter[str] = Counter()
        with pod.inside():
            while not stop[0]:
                try:
                    found[call()] += 1
                except OSError as error:
                    found[errorcode.get(error.errno or 0, type(error).__name__)] += 1
        os.write(writer, json.dumps(found).encode())
    finally:
        os._exit(0)


def _end(child: int, reader: int) -> Counter[str]:
    with open(reader, "rb") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return Counter(json.loads(text))
