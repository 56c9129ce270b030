"""Regular expressions of rules: RE2, full match, linear time, bounded at load.

Cilium hands `method`, `path` and `host` to Envoy, which matches all of the value with RE2 (Envoy,
StringMatcher safe_regex). kproxy does the same with google-re2: no backtracking, so no path can be made to
cost more than its length times the size of the compiled program.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import re2

from policy.anatomy import Anatomy, Element, anatomy
from policy.errors import PolicyError

# The matcher walks, for each byte, at most all instructions of the program: 3 to 10 ns each where nothing of
# the automaton can be cached (measured). One of 900 on a path of 8 KiB costs 70 ms at the very worst, on
# paths made for it; people's patterns have 10 to 100.
MAX_PROGRAM = 900


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
    """A pattern that was accepted, and what is known of it. Equal if text and kind are.

    Where `fold_case` is set, the values matched are in lower case already, and so are the plain texts here.
    """

    text: str
    fold_case: bool = False
    dot_newline: bool = False
    program: int = field(compare=False, default=0)
    """Size of the compiled program: instructions per byte, at the worst."""
    source: bytes = field(compare=False, default=b"", repr=False)
    parts: Anatomy = field(compare=False, default=Anatomy(b"", b"", b"", b""), repr=False)

    @property
    def words(self) -> tuple[bytes, ...]:
        """All that it matches, where that is a few plain words."""
        return self.parts.words

    @property
    def head(self) -> bytes:
        """The plain text that each match begins with."""
        return self.parts.head

    @property
    def suffix(self) -> bytes:
        """The plain text that each match ends with, if it is not all head."""
        return self.parts.suffix

    def matcher(self) -> Callable[[bytes], Any]:
        """A function of bytes; its answer is true where all of them match."""
        if self.words:
            return frozenset(self.words).__contains__
        return _full_match(self.source, self.fold_case, self.dot_newline)

    def rest_matcher(self) -> Callable[[bytes], Any]:
        """The same for what comes after `head`; patterns with equal rests share it (and its automaton)."""
        if not self.head:
            return self.matcher()
        plain = _PLAIN_RESTS.get(self.parts.rest)
        return plain or _full_match(self.parts.rest, self.fold_case, self.dot_newline)

    def middle_matcher(self) -> Callable[[bytes], Any]:
        """The same for what stands between `head` and `suffix`."""
        plain = _PLAIN_RESTS.get(self.parts.middle)
        return plain or _full_match(self.parts.middle, self.fold_case, self.dot_newline)

    def around_matchers(
        self, element: Element
    ) -> tuple[Callable[[bytes], Any], Callable[[bytes], Any] | None]:
        """The same for what stands before and after a plain path element."""
        sources = (element.before, element.after)
        before, after = (
            None
            if source is None
            else _PLAIN_RESTS.get(source) or _full_match(source, self.fold_case, self.dot_newline)
            for source in sources
        )
        assert before is not None
        return before, after

    def __str__(self) -> str:
        return self.text


def _anything(value: bytes) -> bool:
    return b"\n" not in value


def _one_element(value: bytes) -> bool:
    return bool(value) and b"/" not in value


# What most path patterns end with, said in Python: five times as fast as RE2's answer.
_PLAIN_RESTS: dict[bytes, Callable[[bytes], Any]] = {
    b"[0-9]+": bytes.isdigit,
    rb"\d+": bytes.isdigit,
    b".*": _anything,
    b"[^/]+": _one_element,
}


@lru_cache(maxsize=65536)
def _full_match(source: bytes, fold_case: bool, dot_newline: bool) -> Callable[[bytes], Any]:
    # A set of one pattern: its answer costs less than a match object. Sets have no other way than their automaton
    # to fall back on: compiling raises if it could not hold twenty of its states, and when they fill its memory
    # it begins anew, so that no value is answered wrongly for want of memory.
    single = re2.Set.FullMatchSet(options(fold_case=fold_case, dot_newline=dot_newline))
    single.Add(source)
    single.Compile()
    match: Callable[[bytes], Any] = single.Match
    return match


@lru_cache(maxsize=65536)
def pattern(text: str, *, fold_case: bool = False, dot_newline: bool = False) -> Pattern:
    """Check and measure a pattern.

    Raises:
        BadPattern: it is not RE2 syntax, or not made of ASCII, or too large to be matched in bounded time.
    """
    if not text.isascii():
        raise BadPattern(f"{text!r}: a request's bytes are ASCII; write other characters percent-encoded")
    source = text.encode()
    try:
        compiled = re2.compile(source, options(fold_case=fold_case, dot_newline=dot_newline))
    except re2.error as error:
        raise BadPattern(f"{text!r} is not an RE2 pattern: {_reason(error)}") from None
    size, parts = compiled.programsize, anatomy(source)
    # Plain words are looked up, not run.
    if size > MAX_PROGRAM and not parts.words:
        raise BadPattern(
            f"the pattern compiles to {size} instructions, {MAX_PROGRAM} are allowed: "
            "each byte of a long path may visit them all; use shorter repetitions, or several rules"
        )
    return Pattern(text, fold_case, dot_newline, size, source, _folded(parts) if fold_case else parts)


def _folded(parts: Anatomy) -> Anatomy:
    words = tuple(word.lower() for word in parts.words)
    return Anatomy(parts.head.lower(), parts.rest, parts.middle, parts.suffix.lower(), words)


def _reason(error: Exception) -> str:
    first = error.args[0] if error.args else error
    return first.decode("latin-1") if isinstance(first, bytes) else str(first)
