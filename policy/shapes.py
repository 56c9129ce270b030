"""Shapes: one table of fields says how a part of a rule is read, what is wrong with it, and its JSON Schema.

A shape reads a plain value (from `policy.text`) into a value of the model. It never stops at the first
error: it reports each to the `Report` with its JSON pointer and goes on. `None` means "wrong, and reported".
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from policy.errors import Problem
from policy.model import Place
from policy.text import Doubled, escape

S = TypeVar("S")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Report:
    """Collects what is wrong in one document."""

    file: str
    line_of: Callable[[str], int]
    errors: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Owner:
    """The policy that is being read: the words of its rules depend on it."""

    policy: str = ""
    namespace: str | None = None
    """None where rules hold in all namespaces and selectors mean what they say (the classic list)."""
    root: str = ""
    """Pointer to where the policy begins."""
    section: str = ""
    """In front of the names of its rules: `specs[1].`."""
    description: str = ""
    """What its author says it is for; verdicts repeat it."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """A value under the eye, the pointer to it, whose it is, and where to report."""

    value: Any
    pointer: str
    report: Report
    owner: Owner = Owner()

    def at(self, key: str | int) -> Cursor:
        """The member `key` of this object or array."""
        pointer = f"{self.pointer}/{escape(str(key))}"
        return Cursor(self.value[key], pointer, self.report, self.owner)

    def owned_by(self, owner: Owner) -> Cursor:
        """The same, as part of a policy."""
        return Cursor(self.value, self.pointer, self.report, owner)

    @property
    def place(self) -> Place:
        """Where this stands, to be told later."""
        return Place(self.report.file, self.pointer, self.report.line_of)

    @property
    def rule_name(self) -> str:
        """`namespace/policy#ingress[0].toPorts[1].http[2]`, from where this stands in its policy."""
        parts = [part for part in self.pointer[len(self.owner.root) + 1 :].split("/") if part != "rules"]
        steps = "".join(f"[{part}]" if part.isdecimal() else f".{part}" for part in parts)
        return f"{self.owner.policy}#{self.owner.section}{steps[1:]}"

    def error(self, message: str, mend: str = "") -> None:
        """What is wrong here, and how to mend it."""
        if isinstance(self.value, str) and "{{" in self.value:
            mend = "render the template before it is read"
        self.report.errors.append(self.place.problem(message, mend))

    def warn(self, message: str, mend: str = "") -> None:
        """What was likely not meant here, and what else to write."""
        self.report.warnings.append(self.place.problem(message, mend))


class Shape(Protocol[T_co]):
    """What a field may hold."""

    def read(self, at: Cursor) -> T_co | None:
        """The value, or None once what is wrong was reported."""

    def schema(self) -> dict[str, Any]:
        """The same as JSON Schema (draft 2020-12)."""


def kind_of(value: object) -> str:
    """The JSON name of a value's type, for messages."""
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list"}
    return "null" if value is None else names.get(type(value), "an object")


@dataclass(frozen=True, slots=True)
class Text:
    """A string; `pattern` must match all of it, else `complaint` is reported."""

    pattern: str = ""
    complaint: str = ""
    description: str = ""

    def read(self, at: Cursor) -> str | None:
        """The string."""
        if not isinstance(at.value, str):
            mend = f'write "{at.value}" in quotes' if type(at.value) is int else ""
            mend = "put the word in quotes" if isinstance(at.value, bool) else mend
            at.error(f"must be a string, not {kind_of(at.value)}", mend)
            return None
        return at.value if self.check(at.value, at) else None

    def check(self, text: str, at: Cursor) -> bool:
        """Whether the text fits; reports if not."""
        if not self.pattern or re.fullmatch(self.pattern, text):
            return True
        at.error(f"{text!r} {self.complaint}")
        return False

    def schema(self) -> dict[str, Any]:
        """A string with its pattern."""
        pattern = {"pattern": f"^({self.pattern})$"} if self.pattern else {}
        return {"type": "string"} | pattern | _described(self.description)


@dataclass(frozen=True, slots=True)
class Flag:
    """A boolean."""

    def read(self, at: Cursor) -> bool | None:
        """The boolean."""
        if isinstance(at.value, bool):
            return at.value
        at.error(f"must be true or false, not {kind_of(at.value)}")
        return None

    def schema(self) -> dict[str, Any]:
        """A boolean."""
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class Number:
    """A whole number from `first` to `last`."""

    first: int
    last: int

    def read(self, at: Cursor) -> int | None:
        """The number."""
        if type(at.value) is int and self.first <= at.value <= self.last:
            return at.value
        shown = at.value if type(at.value) is int else kind_of(at.value)
        at.error(f"must be a whole number from {self.first} to {self.last}, not {shown}")
        return None

    def schema(self) -> dict[str, Any]:
        """An integer within its bounds."""
        return {"type": "integer", "minimum": self.first, "maximum": self.last}


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words; `unsupported` ones are refused with their own sentence."""

    words: tuple[str, ...]
    unsupported: Mapping[str, str] = field(default_factory=dict)
    fold: Callable[[str], str] = str

    def read(self, at: Cursor) -> str | None:
        """The word, in the spelling of `words`."""
        if not isinstance(at.value, str):
            at.error(f"must be one of {', '.join(self.words)}, not {kind_of(at.value)}")
            return None
        word = self.fold(at.value)
        if word in self.words:
            return word
        if word in self.unsupported:
            at.error(f"{at.value}: {self.unsupported[word]}")
        else:
            at.error(f"{at.value!r} is not known", suggest(word, self.words))
        return None

    def schema(self) -> dict[str, Any]:
        """An enumeration."""
        return {"enum": list(self.words)}


@dataclass(frozen=True, slots=True)
class ListOf(Generic[T]):
    """A list whose items have one shape; items that are wrong are reported and left out."""

    item: Shape[T]
    empty: str = ""

    def read(self, at: Cursor) -> tuple[T, ...] | None:
        """The items."""
        if not isinstance(at.value, list):
            at.error(f"must be a list, not {kind_of(at.value)}")
            return None
        if not at.value and self.empty:
            at.error(self.empty)
        read = (self.item.read(at.at(i)) for i in range(len(at.value)))
        return tuple(item for item in read if item is not None)

    def schema(self) -> dict[str, Any]:
        """An array."""
        least = {"minItems": 1} if self.empty else {}
        return {"type": "array", "items": self.item.schema()} | least


@dataclass(frozen=True, slots=True)
class MapOf(Generic[T]):
    """An object with keys of the user's own."""

    key: Text
    item: Shape[T]

    def read(self, at: Cursor) -> dict[str, T] | None:
        """The members."""
        if not is_object(at):
            return None
        for key in at.value:
            self.key.check(key, at.at(key))
        read = {key: self.item.read(at.at(key)) for key in at.value}
        return {key: item for key, item in read.items() if item is not None}

    def schema(self) -> dict[str, Any]:
        """An object with any keys."""
        names = {"propertyNames": {"pattern": f"^({self.key.pattern})$"}} if self.key.pattern else {}
        return {"type": "object", "additionalProperties": self.item.schema()} | names


@dataclass(frozen=True, slots=True)
class Then(Generic[S, T]):
    """A shape whose value is turned into another, or refused, by a function."""

    shape: Shape[S]
    turn: Callable[[Cursor, S], T | None]

    def read(self, at: Cursor) -> T | None:
        """The turned value."""
        value = self.shape.read(at)
        return None if value is None else self.turn(at, value)

    def schema(self) -> dict[str, Any]:
        """The schema of what is written."""
        return self.shape.schema()


@dataclass(frozen=True, slots=True)
class Anything:
    """What says nothing about traffic (object metadata, a status): read by nobody."""

    def read(self, at: Cursor) -> Any:
        """The value as it is."""
        return at.value if at.value is not None else ()

    def schema(self) -> dict[str, Any]:
        """No constraint."""
        return {}


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A field that Cilium or Kubernetes know and kproxy refuses, with the sentence that says why."""

    why: str
    mend: str = ""

    def read(self, at: Cursor) -> None:
        """Report it."""
        at.error(self.why, self.mend)

    def schema(self) -> dict[str, Any]:
        """Nothing is valid here."""
        return {"not": {}, "description": self.why}


@dataclass(frozen=True, slots=True)
class Record(Generic[T]):
    """An object with known fields; `build` makes the model's value once all of them are right.

    `check` looks at what was read, right or not whole, for fields that contradict each other.
    `hints` names the right field for keys that are often written in its place.
    """

    fields: Mapping[str, Shape[Any]]
    build: Callable[[Cursor, dict[str, Any]], T | None]
    required: tuple[str, ...] = ()
    check: Callable[[Cursor, dict[str, Any]], None] | None = None
    hints: Mapping[str, str] = field(default_factory=dict)
    description: str = ""

    def read(self, at: Cursor) -> T | None:
        """The value that `build` makes, once every field was read."""
        before = len(at.report.errors)
        if not is_object(at):
            return None
        read: dict[str, Any] = {}
        for key, value in at.value.items():
            self._read_field(at.at(key), key, value, read)
        for key in self.required:
            if key not in at.value:
                at.error(f"{key} is missing")
        if self.check is not None:
            self.check(at, read)
        # A rule with an error in it is never built from what is left of it.
        return self.build(at, read) if len(at.report.errors) == before else None

    def _read_field(self, at: Cursor, key: str, value: object, read: dict[str, Any]) -> None:
        shape = self.fields.get(key)
        if shape is None:
            hint = self.hints.get(key)
            usable = [name for name, known in self.fields.items() if _usable(known)]
            at.error(f"{key} is not a field of this object", hint or suggest(key, usable))
        elif value is None and not isinstance(shape, Anything | Unsupported):
            at.error(f"{key} is null", "give it a value, or leave it out")
        elif (item := shape.read(at)) is not None:
            read[key] = item

    def schema(self) -> dict[str, Any]:
        """An object with exactly these properties."""
        properties = {key: shape.schema() for key, shape in self.fields.items() if _usable(shape)}
        schema: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
        required = {"required": list(self.required)} if self.required else {}
        return schema | required | _described(self.description)


def is_object(at: Cursor) -> bool:
    """Whether the value is an object without doubled keys; reports if not."""
    if not isinstance(at.value, dict):
        at.error(f"must be an object, not {kind_of(at.value)}")
        return False
    if isinstance(at.value, Doubled):
        for key in at.value.keys_doubled:
            at.at(key).error(f"{key} is written twice: only one of them could count")
    return True


def suggest(word: str, known: list[str] | tuple[str, ...]) -> str:
    """`did you mean …?`, or the words that are known if there are few."""
    by_case = [one for one in known if one.lower() == word.lower()]
    near = by_case or difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]}?"
    return f"known are {', '.join(known)}" if len(known) <= 12 else ""


def _usable(shape: Shape[Any]) -> bool:
    return not isinstance(shape, Unsupported)


def _described(text: str) -> dict[str, str]:
    return {"description": text} if text else {}
