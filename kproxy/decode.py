"""JSON files into typed values, with every mistake of a file named at once.

msgspec decodes and checks, and stops at the first mistake.  When it finds one, the document is walked again,
type by type, so that a person sees all of them in one go, each with its JSON pointer, its line and a mend.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar, get_args, get_origin

import msgspec
import yaml

from kproxy.errors import FileError, Problem

T = TypeVar("T")

# libyaml's, where PyYAML was built with it: a file of 10,000 endpoints takes a tenth of the time.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Mistake(NamedTuple):
    """One thing wrong in a document, before it has a file and a line."""

    pointer: str
    message: str
    mend: str = ""


class DuplicateKeyError(ValueError):
    """An object that names one key twice: JSON readers differ on which one counts (RFC 8259 section 4)."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the key {json.dumps(key)} stands twice in one object")
        self.key = key


def decode(text: str, file: str, kind: type[T], checks: Callable[[T], Iterator[Mistake]]) -> T:
    """Decode a JSON text as `kind` and run `checks` on the value.

    Beyond RFC 8259 a key may stand only once in an object, and escapes may not leave half a surrogate pair,
    as no log can hold such a string.  Raises FileError with every mistake; `file` names the text there.
    """
    document = _document(text, file)
    try:
        value = msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise FileError(_placed(text, file, mistakes(document, kind))) from error
    if wrong := _placed(text, file, checks(value)):
        raise FileError(wrong)
    return value


def _document(text: str, file: str) -> Any:
    try:
        document = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
        json.dumps(document, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        told = f"not JSON: {error.msg} (column {error.colno})"
        raise FileError([Problem(file, error.lineno, "", told)]) from error
    except (ValueError, RecursionError) as error:
        raise FileError([_whole(text, file, error)]) from error
    return document


def _placed(text: str, file: str, found: Iterable[Mistake]) -> tuple[Problem, ...]:
    """Give each mistake its file and line."""
    told = tuple(found)
    line = locator(text) if told else None
    return tuple(Problem(file, line(pointer), pointer, *rest) for pointer, *rest in told) if line else ()


def mistakes(value: Any, kind: Any, pointer: str = "") -> Iterator[Mistake]:
    """Yield everything that keeps `value` from being a `kind`."""
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        inner = list(_inner(value, _strip(kind), pointer))
        yield from inner or [Mistake(pointer, _sentence(error))]


def token(key: Hashable) -> str:
    """Escape one reference token of a JSON pointer (RFC 6901 section 3)."""
    return str(key).replace("~", "~0").replace("/", "~1")


def _inner(value: Any, kind: Any, pointer: str) -> Iterator[Mistake]:
    """Yield the mistakes that lie deeper than `value` itself."""
    origin, arguments = get_origin(kind), get_args(kind)
    if isinstance(value, dict) and isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield from _struct(value, kind, pointer)
    elif isinstance(value, list) and origin in (list, tuple):
        for index, item in enumerate(value):
            yield from mistakes(item, arguments[0], f"{pointer}/{index}")
    elif isinstance(value, dict) and origin is dict:
        for key, item in value.items():
            yield from mistakes(item, arguments[1], f"{pointer}/{token(key)}")


def _struct(value: dict[str, Any], kind: type[msgspec.Struct], pointer: str) -> Iterator[Mistake]:
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    for key in value:
        if key not in fields:
            yield _unknown(key, list(fields), pointer)
    for name, field in fields.items():
        if name in value:
            yield from mistakes(value[name], field.type, f"{pointer}/{token(name)}")
        elif field.required:
            yield Mistake(pointer, f"the key {json.dumps(name)} is missing", "add it")


def _unknown(key: str, known: list[str], pointer: str) -> Mistake:
    close = difflib.get_close_matches(key, known, 1) or [
        name for name in known if name.lower() == key.lower()
    ]
    mend = f'did you mean "{close[0]}"?' if close else f"known keys: {', '.join(known)}"
    return Mistake(f"{pointer}/{token(key)}", f"unknown key {json.dumps(key)}", mend)


def _strip(kind: Any) -> Any:
    """Take `Annotated[…]` and `… | None` off a type."""
    if hasattr(kind, "__metadata__"):
        return _strip(kind.__origin__)
    inner = [option for option in get_args(kind) if option is not type(None)]
    return _strip(inner[0]) if len(inner) == 1 and type(None) in get_args(kind) else kind


def _sentence(error: msgspec.ValidationError) -> str:
    """Drop msgspec's own place from its message: the pointer says it."""
    told = str(error).split(" - at `", 1)[0]
    return told[:1].lower() + told[1:]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [key for key, _ in pairs]
        raise DuplicateKeyError(next(key for key in names if names.count(key) > 1))
    return value


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _whole(text: str, file: str, error: ValueError | RecursionError) -> Problem:
    """Give a mistake that has no pointer the best line there is."""
    if isinstance(error, RecursionError):
        return Problem(file, 0, "", "nested too deeply")
    if isinstance(error, DuplicateKeyError):
        needle = json.dumps(error.key)
        return Problem(file, text[: text.rfind(needle)].count("\n") + 1, "", str(error), "keep one of them")
    if isinstance(error, UnicodeEncodeError):
        return Problem(file, 0, "", "a string holds half a surrogate pair", "write the character itself")
    return Problem(file, 0, "", str(error))


def locator(text: str) -> Callable[[str], int]:
    """Give a function from JSON pointers to lines of `text` (from 1), or of the nearest enclosing value.

    JSON is read here as YAML, whose node tree carries line marks; tabs are JSON's white space but not YAML's.
    """
    try:
        root = yaml.compose(text.replace("\t", " "), Loader=_LOADER)
    except (yaml.YAMLError, RecursionError):
        return lambda pointer: 0
    return lambda pointer: _line(root, pointer)


def _line(node: yaml.Node | None, pointer: str) -> int:
    line = 0 if node is None else node.start_mark.line + 1
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(node, yaml.MappingNode):
            entry = next(((k, v) for k, v in node.value if k.value == key), None)
            if entry is None:
                break
            line, node = entry[0].start_mark.line + 1, entry[1]
        elif isinstance(node, yaml.SequenceNode) and key.isdigit() and int(key) < len(node.value):
            node = node.value[int(key)]
            line = node.start_mark.line + 1
        else:
            break
    return line
