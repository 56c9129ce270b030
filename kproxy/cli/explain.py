"""`kproxy explain`: why a request is allowed or denied; without one, who may talk to whom."""

from __future__ import annotations

import argparse
import sys
from urllib.parse import urlencode

import msgspec

from kproxy import answers, questions
from kproxy.answer_shapes import Drawn, Explained
from kproxy.cli import asking, drawing, node
from kproxy.config import Address
from kproxy.errors import NodeUnreachableError, UsageError
from kproxy.questions import Question

DENIED = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("endpoint", nargs="?", metavar="NAME", help="draw whom this one may talk to")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--config", metavar="FILE", help="answer from the files that a configuration names")
    where.add_argument(
        "--admin", metavar="ADDRESS:PORT", help=f"ask the node at this address ({node.DEFAULT_ADMIN})"
    )
    parser.add_argument(
        "--running", action="store_true", help="with --config: ask the node that it describes"
    )
    asking.add_question(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def main(arguments: argparse.Namespace) -> int:
    """Print the answer: exit code 1 where it is a denial, else 0 (what is audited passes)."""
    pairs = _pairs(arguments)
    question = questions.read(pairs)
    if arguments.config and not arguments.running:
        found = answers.answer(asking.knowledge(arguments.config), question)
    else:
        found = _ask(node.address(arguments.admin, arguments.config), question, pairs)
    if arguments.json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(found), indent=2).decode() + "\n")
    else:
        print("\n".join(drawing.lines(found)))
    return DENIED if isinstance(found, Explained) and found.verdict == "deny" else 0


def _pairs(arguments: argparse.Namespace) -> list[tuple[str, str]]:
    """What was asked; a name alone is about that endpoint."""
    pairs = list(asking.pairs(arguments))
    if arguments.running and not arguments.config:
        raise UsageError("--running goes with --config", "or name the node's address with --admin")
    if arguments.endpoint is None:
        return pairs
    if pairs:
        raise UsageError(f"{arguments.endpoint} beside a question", "write it with --from or --to")
    return [("to", arguments.endpoint)]


def _ask(address: Address, question: Question, pairs: list[tuple[str, str]]) -> Explained | Drawn:
    """Have a running node answer; every way that can fail is wrong usage here, and raises UsageError."""
    target = "/explain?" + urlencode(pairs, errors="surrogateescape")
    try:
        status, text = node.get(address, target)
    except NodeUnreachableError as error:
        raise UsageError(error.message, f"{error.mend}; or read the files with --config") from error
    if status == 431:
        raise UsageError(f"the question is longer than {address} takes", "ask the files with --config")
    try:
        if status == 400:
            raise UsageError(*msgspec.json.decode(text, type=_Mistake).told)
        if status != 200:
            raise UsageError(f"{address} answers /explain with {status}", "is it a node of this version?")
        if question.port:
            return msgspec.json.decode(text, type=Explained)
        return msgspec.json.decode(text, type=Drawn)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UsageError(f"what answers at {address} is not kproxy", "check the address") from error


class _Mistake(msgspec.Struct):
    """What the node found wrong with the question."""

    error: str
    mend: str = ""

    @property
    def told(self) -> tuple[str, str]:
        return self.error, self.mend
