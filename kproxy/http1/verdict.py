"""Verdicts of kproxy's own, and how a verdict is shown to the client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kproxy.judgement import Judgement
from parsers.http1 import RequestHead


class NoJudgement:
    """The verdict on nothing: what stands where no request was judged yet."""

    verdict, allowed, rule, reason, path_judged = "deny", False, "", "", False
    edits: Sequence[Any] = ()
    guarded: frozenset[bytes] = frozenset()


class AmbiguousPath:
    """The denial of a request that a rule allows, but whose path the server may read differently."""

    __slots__ = ("rule",)
    verdict, allowed, reason, path_judged = "deny", False, "ambiguous_path", True
    edits: Sequence[Any] = ()
    guarded: frozenset[bytes] = frozenset()

    def __init__(self, rule: str) -> None:
        self.rule = rule


def unless_ambiguous(head: RequestHead, judgement: Judgement) -> Judgement:
    """The judgement, or a denial where it would let through a path that servers read differently."""
    if judgement.verdict == "allow" and head.path_ambiguity is not None:
        return AmbiguousPath(judgement.rule)
    return judgement


def rule_field(name: bytes, judgement: Judgement) -> bytes:
    """The field line that names the rule, or nothing; whatever a rule is called, it is one line of ASCII."""
    if not name or not judgement.rule:
        return b""
    printable = "".join(c if " " <= c <= "~" else "?" for c in judgement.rule)
    return b"%b: %b\r\n" % (name, printable.encode("ascii"))
