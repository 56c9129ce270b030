"""The configuration file: what is taken, what is refused, and how a person is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kproxy import config
from kproxy.config import Address, Config, parse_address
from kproxy.errors import FileError, Problem
from kproxy.limits import LIMIT_REASONS, HttpLimits, Limits
from kproxy.lines import STDOUT
from parsers.http1.reasons import REASONS

LEAST: dict[str, Any] = {"node": "n1", "rules": ["rules"], "endpoints": "endpoints.json"}


def written(tmp_path: Path, **more: Any) -> Path:
    """Write a configuration that holds LEAST and more."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LEAST | more, indent=1))
    return path


def refused(path: Path) -> tuple[Problem, ...]:
    """Load a file that must be refused, and give what it is told."""
    with pytest.raises(FileError) as caught:
        config.load(path)
    return caught.value.problems


def test_example_of_the_design(tmp_path: Path) -> None:
    """The published example loads, with every relative path taken from the file's own folder."""
    example = {
        **LEAST,
        "failMode": "closed",
        "admin": "127.0.0.1:9964",
        "accessLog": "access.jsonl",
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(example))
    loaded = config.load(path)
    assert loaded.rules == (str(tmp_path / "rules"),)
    assert loaded.endpoints == str(tmp_path / "endpoints.json")
    assert loaded.access_log == str(tmp_path / "access.jsonl")
    assert loaded.admin_address == Address("127.0.0.1", 9964)
    assert loaded.fail_mode == "closed"


def test_defaults(tmp_path: Path) -> None:
    """Access log and metrics are on, and the node fails closed, unless one says otherwise."""
    loaded = config.load(written(tmp_path))
    assert loaded.access_log == STDOUT
    assert loaded.admin_address is not None
    assert loaded.admin_address.loopback
    assert loaded.fail_mode == "closed"
    assert not loaded.detach_on_exit


def test_absolute_paths_stay(tmp_path: Path) -> None:
    """An absolute path is not moved into the file's folder."""
    loaded = config.load(written(tmp_path, rules=["/etc/kproxy/rules"], accessLog="/var/log/x"))
    assert loaded.rules == ("/etc/kproxy/rules",)
    assert loaded.access_log == "/var/log/x"


def test_log_and_admin_can_be_switched_off(tmp_path: Path) -> None:
    """Null means none, for the access log and for the admin listener."""
    loaded = config.load(written(tmp_path, accessLog=None, admin=None))
    assert loaded.access_log is None
    assert loaded.admin_address is None


@pytest.mark.parametrize(
    ("more", "pointer", "told"),
    [
        ({"failmode": "open"}, "/failmode", 'did you mean "failMode"?'),
        ({"endpoint": "e"}, "/endpoint", 'did you mean "endpoints"?'),
        ({"zzz": 1}, "/zzz", "known keys: node, rules"),
        ({"failMode": "ajar"}, "/failMode", "invalid enum value 'ajar'"),
        ({"rules": []}, "/rules", "length >= 1"),
        ({"rules": "rules"}, "/rules", "expected `array`"),
        ({"rules": ["a", ""]}, "/rules/1", "not a path"),
        ({"endpoints": "a\0b"}, "/endpoints", "not a path"),
        ({"accessLog": ""}, "/accessLog", "not a path"),
        ({"node": "a b"}, "/node", "not a node name"),
        ({"admin": "localhost:9964"}, "/admin", "is not ADDRESS:PORT"),
        ({"admin": ":9964"}, "/admin", "is not ADDRESS:PORT"),
        ({"admin": "127.0.0.1:65536"}, "/admin", "is not a port"),
        ({"nodeAddresses": ["10.0.0.1", "x"]}, "/nodeAddresses/1", "is not an IP address"),
        ({"denyRuleHeader": "x kproxy"}, "/denyRuleHeader", "not a header name"),
        ({"limits": {"connections": 0}}, "/limits/connections", "expected `int` >= 1"),
        ({"limits": {"http": {"headBytes": "1k"}}}, "/limits/http/headBytes", "expected `int`"),
        ({"limits": {"http": {"head": 1}}}, "/limits/http/head", "unknown key"),
        ({"log": {"level": "loud"}}, "/log/level", "invalid enum value"),
    ],
)
def test_each_mistake_is_named(tmp_path: Path, more: dict[str, Any], pointer: str, told: str) -> None:
    """A mistake is told by its JSON pointer, with what would be right."""
    path = written(tmp_path, **more)
    (problem,) = refused(path)
    assert problem.pointer == pointer
    assert told in str(problem)
    assert str(problem).startswith(f"{path}:{problem.line}: ")


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    """Mistakes in different places and depths are told together, each on its own line of the file."""
    path = tmp_path / "config.json"
    path.write_text(
        '{\n "node": 3,\n "rules": ["r"],\n "limits": {\n  "http": {"headBytes": 1}},\n "x": 1\n}'
    )
    told = {(problem.line, problem.pointer) for problem in refused(path)}
    assert told == {(2, "/node"), (1, ""), (5, "/limits/http/headBytes"), (6, "/x")}


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        (b'{"node": "n1",\n "rules": [}', 2, "not JSON"),
        (b'{"node": "a",\n "node": "b"}', 2, 'the key "node" stands twice'),
        (b'{"limits": NaN}', 0, "NaN is not JSON"),
        (b'{"node": "\\ud800"}', 0, "half a surrogate pair"),
        (b'{"a": \n"\xff"}', 2, "not UTF-8"),
        (b"[" * 100_000, 0, "nested too deeply"),
        (b"[]", 1, "expected `object`"),
    ],
)
def test_what_is_not_one_json_object(tmp_path: Path, text: bytes, line: int, told: str) -> None:
    """What two readers could read differently, or none could, is refused whole."""
    path = tmp_path / "config.json"
    path.write_bytes(text)
    (problem,) = refused(path)
    assert told in problem.message
    assert problem.line == line


def test_byte_order_mark_is_taken(tmp_path: Path) -> None:
    """Some editors put a byte order mark before UTF-8; no one misreads it."""
    path = tmp_path / "config.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(LEAST).encode())
    assert config.load(path).node == "n1"


def test_missing_file_and_folder(tmp_path: Path) -> None:
    """A path that is not there, or is a folder, is told as such and not as a traceback."""
    assert "No such file" in refused(tmp_path / "none.json")[0].message
    assert "Is a directory" in refused(tmp_path)[0].message


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9964", Address("127.0.0.1", 9964)),
        ("[::1]:80", Address("::1", 80)),
        ("0.0.0.0:0", Address("0.0.0.0", 0)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    """IPv4 and bracketed IPv6 addresses are taken, and written back as they were."""
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text", ["", "9964", "::1:80", "[127.0.0.1]:80", "1.2.3.4:", "1.2.3.4:x", "1.2.3.4:-1"]
)
def test_not_addresses(text: str) -> None:
    """Anything that needs a guess or a name server is refused."""
    with pytest.raises(ValueError, match="is not"):
        parse_address(text)


def test_reasons_of_the_parser_that_mean_a_bound() -> None:
    """Each of the parser's limits is counted under the key that would move it, and by no other name."""
    keys = {field.encode_name for kind in (Limits, HttpLimits) for field in msgspec.structs.fields(kind)}
    assert set(LIMIT_REASONS.values()) <= keys
    assert {reason for reason in REASONS if reason.startswith("limit_")} <= LIMIT_REASONS.keys()


def test_every_limit_says_why() -> None:
    """Each limit has a description, which its JSON Schema carries into editors."""
    definitions = msgspec.json.schema(Config)["$defs"]
    for kind in ("Limits", "HttpLimits"):
        for name, field in definitions[kind]["properties"].items():
            assert name == "http" or field.get("description"), name
