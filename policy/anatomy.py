"""What a pattern says in plain text: the words it is, or the text it begins and ends with.

A pattern is cut into tokens, and only what is certain from them is used. A
pattern that this module does not understand has no anatomy, and is matched whole. That what is found is true
of RE2's matches is a property that the tests check on generated patterns.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest

import re2

# One character or escape of a pattern, a class, a group's bracket, an operator.
_TOKEN = re.compile(
    rb"""
      (?P<literal> [^\\\[\](){}|*+?.^$] | \\[^A-Za-z0-9] )
    | (?P<quantifier> [*+?] | \{[0-9]+(?:,[0-9]*)?\} )
    | (?P<class> \[\^?\]?(?:\[:\^?\w+:\]|\\.|[^\]\\])*\] | \\[dDsSwW] | \. )
    | (?P<open> \((?:\?:|(?!\?)) )
    | (?P<close> \) )
    | (?P<either> \| )
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Element:
    """Cut at each `/`, the part number `place` of every match is just `text` (0 is before the first `/`).

    `before` matches what stands before it, `after` what follows it (None: it is the last part), both without
    the `/` between.
    """

    place: int
    text: bytes
    before: bytes
    after: bytes | None


@dataclass(frozen=True, slots=True)
class Anatomy:
    """Every match is `head`, then something that `rest` matches whole.

    What `rest` matches is something that `middle` matches whole, then `suffix`. `words`: if not empty, all
    that the pattern matches.
    """

    head: bytes
    rest: bytes
    middle: bytes
    suffix: bytes
    words: tuple[bytes, ...] = ()
    elements: tuple[Element, ...] = ()


@dataclass(frozen=True, slots=True)
class Token:
    """One piece of a pattern."""

    kind: str
    text: bytes

    @property
    def plain(self) -> bytes:
        """The character that it stands for, if it is one."""
        return self.text[-1:] if self.kind == "literal" else b""


def anatomy(source: bytes) -> Anatomy:
    """The anatomy of a pattern, of which all of a value is matched."""
    source = _without_anchors(source)
    cut = tokens(source)
    if cut is None:
        return Anatomy(b"", source, source, b"")
    words = _words(cut)
    if words:
        return Anatomy(b"", source, source, b"", words)
    if _has_choice(cut):
        return Anatomy(b"", source, source, b"")
    count = _leading(cut)
    head = b"".join(token.plain for token in cut[:count])
    after = cut[count:]
    suffix = _trailing(after)
    middle = after[: len(after) - len(suffix)]
    return Anatomy(head, _text(after), _text(middle), suffix, elements=tuple(_elements(cut)))


def _without_anchors(source: bytes) -> bytes:
    """`^` and `$` at the ends say nothing where all of a value is matched, unless there is a choice."""
    if b"|" in source:
        return source
    start = 1 if source.startswith(b"^") else 0
    ends = source.endswith(b"$") and not re.search(rb"\\(?:\\\\)*\$\Z", source)
    return source[start:-1] if ends and len(source) > start else source[start:]


def tokens(source: bytes) -> list[Token] | None:
    """The tokens, or None where something else than they stands (flags, anchors, word ends, quoted text)."""
    found_all, at = [], 0
    while at < len(source):
        found = _TOKEN.match(source, at)
        if found is None:
            return None
        found_all.append(Token(str(found.lastgroup), found.group()))
        at = found.end()
    return found_all


def _words(tokens: list[Token]) -> tuple[bytes, ...]:
    """`GET|HEAD` is two words; so is a pattern without any operator one."""
    if any(token.kind not in ("literal", "either") for token in tokens):
        return ()
    words = [b""]
    for token in tokens:
        if token.kind == "either":
            words.append(b"")
        else:
            words[-1] += token.plain
    return tuple(words)


def _has_choice(tokens: list[Token]) -> bool:
    """Whether `|` stands outside of every group."""
    depth = 0
    for token in tokens:
        depth += (token.kind == "open") - (token.kind == "close")
        if token.kind == "either" and depth == 0:
            return True
    return False


def _leading(tokens: list[Token]) -> int:
    """How many tokens at the beginning are plain text; the last one is not if it is repeated."""
    count = 0
    while count < len(tokens) and tokens[count].kind == "literal":
        count += 1
    repeated = count < len(tokens) and tokens[count].kind == "quantifier"
    return count - 1 if repeated and count else count


def _elements(tokens: list[Token]) -> Iterator[Element]:
    """Path elements that are plain text and stand at a known place: as long as only `/` itself can match `/`."""
    begin = 0
    for place, end in enumerate(_slashes(tokens)):
        own = tokens[begin:end]
        text = b"".join(token.plain for token in own)
        if text and all(token.kind == "literal" for token in own):
            before = _text(tokens[: max(begin - 1, 0)])
            yield Element(place, text, before, _text(tokens[end + 1 :]) if end < len(tokens) else None)
        begin = end + 1


def _slashes(tokens: list[Token]) -> Iterator[int]:
    """Where each `/` of a match certainly stands, and the end, as far as that is certain.

    A group that holds no `/` stands in one element, whatever it matches.
    """
    depth = 0
    for at, (token, following) in enumerate(zip_longest(tokens, tokens[1:])):
        depth += (token.kind == "open") - (token.kind == "close")
        repeated = following is not None and following.kind == "quantifier"
        if token.plain == b"/" and (repeated or depth):
            return
        if token.kind == "class" and _may_be_slash(token.text):
            return
        if token.plain == b"/":
            yield at
    yield len(tokens)


@lru_cache(maxsize=1024)
def _may_be_slash(one: bytes) -> bool:
    """Whether a class matches `/`, in RE2's own reading of it."""
    return re2.compile(one).fullmatch(b"/") is not None


def _text(tokens: list[Token]) -> bytes:
    return b"".join(token.text for token in tokens)


def _trailing(tokens: list[Token]) -> bytes:
    """The plain text at the end, which no quantifier can follow."""
    plain: list[bytes] = []
    for token in reversed(tokens):
        if token.kind != "literal":
            break
        plain.append(token.plain)
    return b"".join(reversed(plain))
