"""The options that describe a connection or a request, and the rules that they are asked of."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from kproxy import config, host, reload
from kproxy.answers import Knowledge
from kproxy.http1 import HttpOptions


def add_question(parser: argparse.ArgumentParser) -> None:
    """Declare the options that `pairs` reads."""
    ends = "namespace/name, a name, host, world or an address"
    parser.add_argument("--from", dest="client", metavar="NAME|ADDRESS", help=f"who calls: {ends}")
    parser.add_argument("--to", dest="server", metavar="NAME|ADDRESS", help="who is called")
    parser.add_argument("--port", metavar="N", help="the server's port")
    parser.add_argument("--protocol", metavar="tcp|udp", help="tcp unless said")
    parser.add_argument("--method", metavar="M", help="of an HTTP request: GET unless said")
    parser.add_argument("--path", metavar="P", help="with its query string: / unless said")
    parser.add_argument("--host", metavar="H", help="the Host that the client sends: the server unless said")
    parser.add_argument(
        "--header", action="append", default=[], metavar="'K: V'", help="a header; may be given again"
    )


def pairs(arguments: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Yield what was said, in the words of `kproxy.questions`."""
    said = {
        "from": arguments.client,
        "to": arguments.server,
        "port": arguments.port,
        "protocol": arguments.protocol,
        "method": arguments.method,
        "path": arguments.path,
        "host": arguments.host,
    }
    yield from ((key, text) for key, text in said.items() if text is not None)
    yield from (("header", text) for text in arguments.header)


def knowledge(configuration: str) -> Knowledge:
    """Read what a configuration names, as its files are now.

    Raises FileError with every mistake.
    """
    settings = config.load(configuration)
    compiled = reload.read(settings).compile(settings, host.addresses(settings), 0)
    return Knowledge(settings.node, compiled, HttpOptions.of(settings))
