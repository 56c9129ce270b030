"""Asking a running node at its admin address."""

from __future__ import annotations

import http.client

from kproxy import config
from kproxy.config import Address, parse_address
from kproxy.errors import NodeUnreachableError, UsageError

DEFAULT_ADMIN = "127.0.0.1:9964"
MEND = "start it with kproxy run, or name its admin address with --admin"
WAIT_SECONDS = 5.0

MAX_BYTES = 64 * 1024 * 1024
"""Longest answer that is read: 100,000 endpoints of 300 bytes are 30 MB."""


def address(admin: str | None, configuration: str | None) -> Address:
    """Find a node's admin address: as it was named, or as its configuration names it; raises UsageError."""
    if configuration:
        found = config.load(configuration).admin_address
        if found is None:
            raise UsageError(f'{configuration} has "admin": null', "set an address, and restart the node")
        return found
    try:
        return parse_address(admin or DEFAULT_ADMIN)
    except ValueError as error:
        raise UsageError(f"--admin: {error}", f"such as {DEFAULT_ADMIN}") from error


def get(address: Address, target: str) -> tuple[int, bytes]:
    """Give the status and body of the node's answer; raises NodeUnreachableError."""
    connection = http.client.HTTPConnection(address.host, address.port, timeout=WAIT_SECONDS)
    try:
        connection.request("GET", target)
        response = connection.getresponse()
        return response.status, response.read(MAX_BYTES)
    except (OSError, http.client.HTTPException) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise NodeUnreachableError(f"no node answers at {address}: {why}", MEND) from error
    finally:
        connection.close()
