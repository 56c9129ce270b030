"""`kproxy policy diff`: which requests would be judged otherwise under other rules."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator

import msgspec

from kproxy import comparison, config, host, questions, reload, seen
from kproxy.answers import Knowledge
from kproxy.cli import asking
from kproxy.cli.text import cell, counted, indented, printable, table
from kproxy.comparison import ChangeAnswer, Compared
from kproxy.config import Config
from kproxy.endpoints import IPAddress
from kproxy.errors import UsageError
from kproxy.http1 import HttpOptions

CHANGED = 1

MAX_SHOWN = 100
"""Changes that are printed for people; JSON has them all."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("old", metavar="OLD", help="the rules as they are: a file or folder")
    parser.add_argument("new", metavar="NEW", help="the rules as they would be")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--config", metavar="FILE", help="a configuration: its endpoints and settings")
    which.add_argument("--endpoints", metavar="FILE", help="an endpoints file")
    parser.add_argument(
        "--log", action="append", default=[], metavar="LOG", help="an access log; may be given again"
    )
    asking.add_question(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def main(arguments: argparse.Namespace) -> int:
    """Print what changes: exit code 0 where nothing does, 1 where something does."""
    question = questions.read(asking.pairs(arguments))
    if not arguments.log and not question.port:
        raise UsageError(
            "nothing to compare by", "name a --log, or describe a request with --from, --to, --port"
        )
    settings, addresses = _settings(arguments)
    old, new = (_knowledge(settings, addresses, path) for path in (arguments.old, arguments.new))
    found = comparison.compare(old, new, seen.records(arguments.log, by_address=True), question)
    if arguments.json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(found), indent=2).decode() + "\n")
    else:
        print("\n".join(lines(found)))
    return CHANGED if found.changes else 0


def _settings(arguments: argparse.Namespace) -> tuple[Config, Iterable[IPAddress]]:
    """The node that both rules are asked for; an endpoints file alone says nothing of its addresses."""
    if arguments.config:
        settings = config.load(arguments.config)
        return settings, host.addresses(settings)
    return Config(node="", rules=(), endpoints=arguments.endpoints), ()


def _knowledge(settings: Config, addresses: Iterable[IPAddress], path: str) -> Knowledge:
    """The rules in one place; raises FileError with every mistake."""
    other = msgspec.structs.replace(settings, rules=(path,))
    compiled = reload.read(other).compile(other, addresses, 0)
    return Knowledge(settings.node, compiled, HttpOptions.of(settings))


def lines(found: Compared) -> Iterator[str]:
    """The changes for people; all of it is printable."""
    if found.changes:
        rows = [_row(change) for change in found.changes[:MAX_SHOWN]]
        yield table(("verdict", "seen", "whose policy", "request", "rule"), rows)
        if len(found.changes) > MAX_SHOWN:
            yield f"and {len(found.changes) - MAX_SHOWN} more: --json has them all"
        yield ""
    yield f"{counted(len(found.changes), 'change')}; {counted(found.unchanged, 'request')} unchanged"
    if any(change.headers_unknown for change in found.changes):
        yield "note: * a rule looks at headers, which the log does not hold: describe such requests to be sure"
    if found.unknown_count:
        yield f"note: {counted(found.unknown_count, 'request')} could not be asked:"
        yield from (indented(cell(told)) for told in found.unknown[:5])
    yield from (
        f"note: {counted(count, 'log line')} left out: {printable(why)}"
        for why, count in found.left_out.items()
    )


def _row(change: ChangeAnswer) -> tuple[str, ...]:
    unsure = " *" if change.headers_unknown else ""
    arrow = "from" if change.direction == "ingress" else "to"
    peers = [
        *change.peers[:3],
        *([f"{len(change.peers[3:]) + change.more_peers} more"] if change.peers[3:] else []),
    ]
    return (
        f"{change.before.verdict} -> {_loud(change.after.verdict)}{unsure}",
        str(change.count) if change.count else "described",
        cell(f"{change.endpoint} {change.direction}") + "\n" + cell(f"{arrow} {', '.join(peers)}"),
        cell(_what(change)),
        printable(_rule(change.before.rule)) + "\n-> " + printable(_rule(change.after.rule)),
    )


def _loud(verdict: str) -> str:
    return verdict.upper() if verdict == "deny" else verdict


def _what(change: ChangeAnswer) -> str:
    port = f"port {change.port}{'/udp' if change.protocol == 'udp' else ''}"
    return f"{port}: {change.method} {change.path}" if change.method else f"{port}: connection"


def _rule(rule: str) -> str:
    return rule or "no rule"
