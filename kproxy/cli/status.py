"""`kproxy status`: what a running node says of itself."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

import msgspec

from kproxy.cli import node
from kproxy.cli.node import DEFAULT_ADMIN
from kproxy.cli.text import printable
from kproxy.config import Address
from kproxy.errors import NodeUnreachableError
from kproxy.state import Status


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--admin", metavar="ADDRESS:PORT", help=f"the node's admin address ({DEFAULT_ADMIN})")
    which.add_argument("--config", metavar="FILE", help="the node's configuration, which names it")
    parser.add_argument("--json", action="store_true", help="print the node's answer as it is")


def main(arguments: argparse.Namespace) -> int:
    """Print the status: exit code 0 where the node is ready, else 1."""
    address = node.address(arguments.admin, arguments.config)
    text = fetch(address)
    try:
        status = msgspec.json.decode(text, type=Status)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise NodeUnreachableError(f"what answers at {address} is not kproxy", "check the address") from error
    if arguments.json:
        sys.stdout.write(text.decode())
    else:
        print("\n".join(map(printable, lines(status))))
    return 0 if status.ready else 1


def fetch(address: Address) -> bytes:
    """Ask a node for its status; raises NodeUnreachableError."""
    code, text = node.get(address, "/status")
    if code != 200:
        raise NodeUnreachableError(f"{address} answers /status with {code}", node.MEND)
    return text


def lines(status: Status) -> Iterator[str]:
    """Write a status for people."""
    yield f"{status.node}: {'ready' if status.ready else 'NOT READY'} (kproxy {status.version})"
    yield from (f"  not ready: {reason}" for reason in status.not_ready)
    yield f"policy: revision {status.policy_revision}, failMode {status.fail_mode}"
    yield from _reload(status)
    yield f"flows: {status.flows}"
    yield "endpoints:"
    for endpoint in status.endpoints:
        detail = f" ({endpoint.detail})" if endpoint.detail else ""
        spliced = ", spliced" if endpoint.splice else ""
        flows = f", {endpoint.flows} flows" if endpoint.state == "enforced" else ""
        yield f"  {endpoint.name}: {endpoint.state}{detail}{flows}{spliced} [{' '.join(endpoint.addresses)}]"
    missing = [feature for feature in status.features if not feature.found]
    yield f"kernel: {len(status.features) - len(missing)} of {len(status.features)} features found"
    yield from (f"  missing {feature.name}: {feature.cost}" for feature in missing)
    yield from (f"limit {name} bit {count} times" for name, count in status.limits_bit.items())
    yield from _log(status)


def _reload(status: Status) -> Iterator[str]:
    result = "ok" if status.reload.ok else "FAILED, the last good policy stays"
    yield f"last reload: {result} at {status.reload.time}"
    yield from (f"  error: {line}" for line in status.reload.errors)
    yield from (f"  warning: {line}" for line in status.reload.warnings)


def _log(status: Status) -> Iterator[str]:
    if status.access_log_lost or status.access_log_trouble:
        trouble = f": {status.access_log_trouble}" if status.access_log_trouble else ""
        yield f"access log: {status.access_log_lost} lines lost{trouble}"
