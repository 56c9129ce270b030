"""Text into plain values that know where they stand: JSON, and the same as YAML, many documents in a file.

Two readers that read one text differently are a hole in a policy, so what they could disagree on is refused
here: keys written twice, YAML tags and merge keys, nesting without end, values that YAML guesses.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import yaml

from policy.errors import Problem

# A YAML file of a kilobyte can name 10^9 nodes through aliases ("billion laughs"). 10,000 rules of 30 nodes
# are 300,000; each costs about 1 us and 200 bytes.
MAX_NODES = 1_000_000
# A policy is 12 deep at the most; Python's recursion ends at 1,000.
MAX_DEPTH = 64
# The composer behind PyYAML recurses on the C stack, where 25,000 levels end the process, and enforcement with it.
# So many levels are certainly safe, also on a thread's small stack.
_SAFE_DEPTH = 1000

# Editors put it in front of a file; a reader may pass it over (RFC 8259 section 8.1, YAML 1.2 section 5.2).
_BOM = "\ufeff"
# No number in a rule has more digits than a port; what is longer is out of range, whatever it is exactly.
_MOST_DIGITS = 32

_CORE = "tag:yaml.org,2002:"
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Doubled(dict[str, Any]):
    """An object in which a key stands more than once; `keys_doubled` says which."""

    keys_doubled: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a file: its value, and the line of each JSON pointer that begins with `root`."""

    value: Any
    root: str
    line_of: Callable[[str], int]


def escape(key: str) -> str:
    """One part of a JSON pointer (RFC 6901 section 3)."""
    return key.replace("~", "~0").replace("/", "~1")


def read(file: str, text: str) -> tuple[list[Document], list[Problem]]:
    """The documents of a file; by its name, or else by its first character, it is JSON or YAML."""
    text = text.removeprefix(_BOM)
    is_json = file.endswith(".json") or (
        not file.endswith((".yaml", ".yml")) and text.lstrip()[:1] in ("{", "[")
    )
    return _read_json(file, text) if is_json else _read_yaml(file, text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) == len(pairs):
        return value
    seen: set[str] = set()
    doubled = Doubled(value)
    doubled.keys_doubled = tuple(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
    return doubled


def _whole_number(digits: str) -> int:
    """Without the quadratic time that Python takes for a million digits."""
    return int(digits[:_MOST_DIGITS])


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _read_json(file: str, text: str) -> tuple[list[Document], list[Problem]]:
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_constant=_no_constant, parse_int=_whole_number
        )
    except json.JSONDecodeError as error:
        return [], [Problem(file, error.lineno, "", f"not JSON: {error.msg} (column {error.colno})")]
    except RecursionError:
        return [], [Problem(file, 0, "", "nested too deeply to be a policy")]
    except ValueError as error:
        return [], [Problem(file, 0, "", f"not JSON: {error}")]
    if _SURROGATE.search(text) and _has_half_a_character(value):
        return [], [
            Problem(file, 0, "", "not JSON: a \\u escape stands for half a character (RFC 8259 section 8.2)")
        ]
    return [Document(value, "", JsonLines(text).line_of)], []


_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def _has_half_a_character(value: Any) -> bool:
    """Whether a text in it cannot be written anew: nor could what is told of it."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


_scan = json.JSONDecoder(parse_int=_whole_number).raw_decode


class JsonLines:
    """Where each value of a JSON text stands, found in one pass when it is first asked for."""

    def __init__(self, text: str) -> None:
        self._text = text

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *(found.end() for found in re.finditer("\n", self._text))]

    @cached_property
    def _offsets(self) -> dict[str, int]:
        offsets: dict[str, int] = {}
        self._walk(_blank(self._text, 0), "", 0, offsets)
        return offsets

    def line_of(self, pointer: str) -> int:
        """The line of the value that a pointer names (of its nearest parent, if it is not there)."""
        while pointer not in self._offsets and pointer:
            pointer = pointer.rpartition("/")[0]
        return bisect_right(self._starts, self._offsets[pointer])

    def _walk(self, at: int, pointer: str, depth: int, offsets: dict[str, int]) -> int:
        """Note the value that begins at `at` and all below it; returns where it ends."""
        text, offsets[pointer] = self._text, at
        opening = text[at]
        if opening not in "{[" or depth > MAX_DEPTH:
            return int(_scan(text, at)[1])
        at, index = _blank(text, at + 1), 0
        while text[at] not in "}]":
            name = str(index)
            if opening == "{":
                name, at = _scan(text, at)
                at = _blank(text, _blank(text, at) + 1)
            at = _blank(text, self._walk(at, f"{pointer}/{escape(name)}", depth + 1, offsets))
            at, index = (_blank(text, at + 1) if text[at] == "," else at), index + 1
        return at + 1


_BLANK = re.compile(r"[ \t\r\n]*")


def _blank(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    return found.end() if found else at


class _Refused(Exception):
    """A YAML construct that is not read."""

    def __init__(self, place: yaml.Node | yaml.Event, message: str) -> None:
        super().__init__(message)
        self.line = place.start_mark.line + 1 if place.start_mark else 0


def _read_yaml(file: str, text: str) -> tuple[list[Document], list[Problem]]:
    try:
        _check_depth(text)
        nodes = [node for node in yaml.compose_all(text, Loader=_LOADER) if not _is_empty(node)]
        plain = _Plain()
        many = len(nodes) > 1
        documents = []
        for number, node in enumerate(nodes):
            root = f"/{number}" if many else ""
            documents.append(Document(plain.value(node, root, 0), root, plain.line_of))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        return [], [Problem(file, line, "", f"not YAML: {error.problem}")]
    except yaml.YAMLError as error:
        return [], [Problem(file, 0, "", f"not YAML: {str(error).splitlines()[0]}")]
    except _Refused as refused:
        return [], [Problem(file, refused.line, "", str(refused))]
    except RecursionError:
        return [], [Problem(file, 0, "", "nested too deeply to be a policy")]
    return documents, []


def _check_depth(text: str) -> None:
    """Refuse what is nested too deeply, before it is composed."""
    # Each level takes a bracket, or a column of one line; two share a column where a list stands below its key.
    brackets, columns = text.count("[") + text.count("{"), max(map(len, text.split("\n")))
    if brackets + 2 * columns <= _SAFE_DEPTH:
        return  # as nearly every file, which then need not be read twice
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise _Refused(event, "nested too deeply to be a policy")


def _is_empty(node: yaml.Node | None) -> bool:
    return node is None or node.tag == _CORE + "null"


class _Plain:
    """YAML nodes into plain values, with the line of each."""

    def __init__(self) -> None:
        self._lines: dict[str, int] = {}
        self._left = MAX_NODES

    def line_of(self, pointer: str) -> int:
        """The line of a pointer, or of its nearest parent."""
        while pointer not in self._lines and pointer:
            pointer = pointer.rpartition("/")[0]
        return self._lines.get(pointer, 1)

    def value(self, node: yaml.Node, pointer: str, depth: int) -> Any:
        """The plain value of a node."""
        self._left -= 1
        if self._left < 0 or depth > MAX_DEPTH:
            raise _Refused(node, "too many values, or nested too deeply (aliases?), to be a policy")
        self._lines[pointer] = node.start_mark.line + 1
        if isinstance(node, yaml.SequenceNode) and node.tag == _CORE + "seq":
            return [self.value(item, f"{pointer}/{i}", depth + 1) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode) and node.tag == _CORE + "map":
            return _object([self._pair(key, item, pointer, depth) for key, item in node.value])
        return self._scalar(node)

    def _pair(self, key: yaml.Node, item: yaml.Node, pointer: str, depth: int) -> tuple[str, Any]:
        if key.tag == _CORE + "merge":
            raise _Refused(key, "merge keys (<<) are not read: write the fields out")
        if key.tag != _CORE + "str":
            raise _Refused(key, f"the key {key.value!r} is not a string: put it in quotes")
        name: str = key.value
        below = f"{pointer}/{escape(name)}"
        value = self.value(item, below, depth + 1)
        self._lines[below] = key.start_mark.line + 1
        return name, value

    def _scalar(self, node: yaml.Node) -> Any:
        kind = node.tag.removeprefix(_CORE)
        match kind:
            case "str":
                return str(node.value)
            case "null":
                return None
            case "bool":
                return node.value.lower() in ("yes", "true", "on")
            case "int" if node.value.removeprefix("-").isdecimal() and (
                len(node.value) == 1 or not node.value.startswith("0")
            ):
                return _whole_number(node.value)
        if kind in ("int", "float", "timestamp"):
            # Octal, sexagesimal (22:22), 1e3, dates: YAML versions disagree on what these are.
            raise _Refused(node, f"YAML versions read {node.value} differently: put it in quotes")
        raise _Refused(node, f"the YAML tag {node.tag} is not read")
