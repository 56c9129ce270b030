"""Names and address prefixes that one network holds and no other, for as long as its process lives."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Interface, IPv4Network, IPv6Network

from kproxy.demo.errors import NetworkError

# Private prefixes that next to nobody uses: a /24 and a /64 of them for each network, by its number.
V4_POOL = IPv4Network("10.221.0.0/16")
V6_POOL = IPv6Network("fd0b:221::/32")
SUBNETS = 256


@contextmanager
def reserved(what: str, refusal: str) -> Iterator[None]:
    """Hold a name machine-wide, or raise NetworkError with this refusal.

    An abstract Unix address (unix(7)) serves: it dies with its holder, and is no file to be left behind.
    """
    with socket.socket(socket.AF_UNIX) as holder:
        try:
            holder.bind(f"\0kproxy/{what}")
        except OSError as error:
            raise NetworkError(refusal) from error
        yield


@contextmanager
def reserved_subnet(wanted: int | None) -> Iterator[int]:
    """Hold the wanted subnet's number, or the lowest that neither a network nor an interface has.

    Raises NetworkError where there is none.
    """
    taken = _subnets_on_links()
    for number in range(SUBNETS) if wanted is None else [wanted]:
        with ExitStack() as held:
            try:
                held.enter_context(reserved(f"subnet/{number}", f"subnet {number} is in use"))
            except NetworkError:
                continue
            if number not in taken:
                yield number
                return
    raise NetworkError(f"no free /24 of {V4_POOL}", "see `ip -4 address` for who has them")


def _subnets_on_links() -> frozenset[int]:
    """Numbers whose addresses some interface of this host has: a killed run's, or somebody's own."""
    shown = subprocess.run(["ip", "-json", "-4", "address"], capture_output=True, check=True, text=True)
    addresses = [
        IPv4Interface(f"{info['local']}/{info['prefixlen']}")
        for link in json.loads(shown.stdout)
        for info in link.get("addr_info", [])
    ]
    return frozenset((int(a.ip) >> 8) & 0xFF for a in addresses if a.ip in V4_POOL)
