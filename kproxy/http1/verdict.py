"""Verdicts of kproxy's own, and how a verdict is shown to the client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kproxy.judgement import Judgement, PairJudgement
from parsers.http1 import RequestHead


class NoJudgement:
    """The verdict on nothing: what stands where no request was judged yet."""

    verdict, allowed, rule, reason, path_judged, path_tried = "deny", False, "", "", False, False
    edits: Sequence[Any] = ()
    guarded: frozenset[bytes] = frozenset()


class AmbiguousPath:
    """The denial of a request that a rule allows, but whose path the server may read differently."""

    __slots__ = ("rule",)
    verdict, allowed, reason, path_judged, path_tried = "deny", False, "ambiguous_path", True, False
    edits: Sequence[Any] = ()
    guarded: frozenset[bytes] = frozenset()

    def __init__(self, rule: str) -> None:
        self.rule = rule


class AmbiguousPathTried:
    """The same, where all that looks at paths is in audit mode: it passes as it was allowed, and is told."""

    __slots__ = ("edits", "guarded", "rule")
    verdict, allowed, reason, path_judged, path_tried = "audit", True, "audit: ambiguous_path", True, True

    def __init__(self, allowed: Judgement, rule: str) -> None:
        self.rule, self.edits, self.guarded = rule, allowed.edits, allowed.guarded


def unless_ambiguous(head: RequestHead, judgement: Judgement) -> Judgement:
    """The judgement, or what becomes of a path that servers read differently where rules look at paths.

    That a policy in audit mode would deny the request for another reason changes nothing of it.
    """
    if not judgement.allowed or head.path_ambiguity is None:
        return judgement
    asked = judgement.asked if isinstance(judgement, PairJudgement) else (judgement,)
    looking = [one for one in asked if one.path_judged]
    refusing = next((one for one in looking if not one.path_tried), None)
    if refusing is not None:
        return AmbiguousPath(refusing.rule)
    return AmbiguousPathTried(judgement, looking[0].rule) if judgement.verdict == "allow" else judgement


def rule_field(name: bytes, judgement: Judgement) -> bytes:
    """The field line that names the rule, or nothing; whatever a rule is called, it is one line of ASCII."""
    if not name or not judgement.rule:
        return b""
    printable = "".join(c if " " <= c <= "~" else "?" for c in judgement.rule)
    return b"%b: %b\r\n" % (name, printable.encode("ascii"))
