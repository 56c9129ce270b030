"""Regular expressions of rules: RE2, full match, linear time, bounded at load.

Cilium hands `method`, `path` and `host` to Envoy, which matches all of the value with RE2 (Envoy,
StringMatcher safe_regex). kproxy does the same with google-re2: no backtracking, so no path can be made to
cost more than its length times the size of the compiled program.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import re2

from policy.errors import PolicyError

# The matcher walks, for each byte, at most all instructions of the program: about 3 ns each when nothing of
# the automaton is cached. A pattern of 4,000 on a path of 8 KiB then costs 100 ms; one of 1,000, 25 ms,
# and people's patterns have 10 to 100.
MAX_PROGRAM = 1_000
# A literal prefix longer than this tells rules apart no better, and RE2 computes it in quadratic time.
MAX_PREFIX = 96

_ANCHORED = b"^(?:%b)$"


class BadPattern(PolicyError):
    """RE2 does not accept the pattern, or it could stall the node."""


def options(*, fold_case: bool = False, dot_newline: bool = False, memory: int = 8 << 20) -> Any:
    """RE2's options for bytes of HTTP: Latin-1, so that one byte is one character; silent; no captures."""
    chosen = re2.Options()
    chosen.encoding = re2.Options.Encoding.LATIN1
    chosen.log_errors = False
    chosen.never_capture = True
    chosen.case_sensitive = not fold_case
    chosen.dot_nl = dot_newline
    chosen.max_mem = memory
    return chosen


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern that was accepted, and what is known of it. Equal if text and kind are."""

    text: str
    fold_case: bool = False
    dot_newline: bool = False
    literals: tuple[bytes, ...] = field(compare=False, default=())
    """All that it matches, where that is a few plain strings."""
    prefix: bytes = field(compare=False, default=b"")
    """What each string that it matches begins with (lower case if `fold_case`)."""
    program: int = field(compare=False, default=0)
    """Size of the compiled program: instructions per byte, at the worst."""
    source: bytes = field(compare=False, default=b"", repr=False)

    def matcher(self) -> Any:
        """A function of bytes; its answer is true where all of them match."""
        single = re2.Set.FullMatchSet(options(fold_case=self.fold_case, dot_newline=self.dot_newline))
        single.Add(self.source)
        single.Compile()
        return single.Match

    def __str__(self) -> str:
        return self.text


@lru_cache(maxsize=65536)
def pattern(text: str, *, fold_case: bool = False, dot_newline: bool = False) -> Pattern:
    """Check and measure a pattern.

    Raises:
        BadPattern: it is not RE2 syntax, or not made of ASCII, or too large to be matched in bounded time.
    """
    if not text.isascii():
        raise BadPattern(f"{text!r}: a request's bytes are ASCII; write other characters percent-encoded")
    source = text.encode()
    chosen = options(fold_case=fold_case, dot_newline=dot_newline)
    try:
        compiled = re2.compile(source, chosen)
    except re2.error as error:
        raise BadPattern(f"{text!r} is not an RE2 pattern: {_reason(error)}") from None
    size = compiled.programsize
    if size > MAX_PROGRAM:
        raise BadPattern(
            f"the pattern compiles to {size} instructions, {MAX_PROGRAM} are allowed: "
            "each byte of a long path may visit them all; use shorter repetitions, or several rules"
        )
    literals, prefix = _plain_words(source) or (), b""
    if fold_case:
        literals = tuple(word.lower() for word in literals)
    if not literals:
        literals, prefix = _range(source, fold_case=fold_case)
    return Pattern(text, fold_case, dot_newline, literals, prefix, size, source)


def _reason(error: Exception) -> str:
    first = error.args[0] if error.args else error
    return first.decode("latin-1") if isinstance(first, bytes) else str(first)


_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/_-|")


def _plain_words(source: bytes) -> tuple[bytes, ...] | None:
    """`GET|HEAD` without any other operator is the two words."""
    return tuple(source.split(b"|")) if source and _PLAIN.issuperset(source) else None


# Where case is folded, a plain word is one only if folding cannot add to what the pattern itself says.
_FOLDS_ALIKE = re.compile(rb"(?:[^A-Z\\\[(]|\((?!\?)|\\(?:[dswb]|[^A-Za-z0-9]))*")


def _range(source: bytes, *, fold_case: bool) -> tuple[tuple[bytes, ...], bytes]:
    """The one word it matches, or the prefix of all that it matches, from RE2's range of possible matches.

    All matches lie between the two bounds, so they begin with what the bounds have in common.
    """
    if fold_case and not _FOLDS_ALIKE.fullmatch(source):
        return (), b""
    anchored = re2.compile(_ANCHORED % source, options())
    try:
        low, high = anchored.possiblematchrange(MAX_PREFIX)
    except re2.error:
        return (), b""
    if low == high and len(low) < MAX_PREFIX and anchored.fullmatch(low):
        return (low,), b""
    return (), _common(low, high, high_matches=bool(anchored.fullmatch(high)))


def _common(low: bytes, high: bytes, *, high_matches: bool) -> bytes:
    """What everything from `low` to `high` begins with."""
    if high and high[-1] and not high_matches:
        # The upper bound is often the first string after all with some prefix: `/v10` after `/v1/`.
        before = high[:-1] + bytes((high[-1] - 1,))
        if low.startswith(before):
            return before
    same = 0
    while same < min(len(low), len(high)) and low[same] == high[same]:
        same += 1
    return low[:same]
