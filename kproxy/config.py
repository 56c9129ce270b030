"""The configuration file of `kproxy run`: one JSON object, unknown keys refused, paths relative to it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from kproxy.decode import Mistake, decode
from kproxy.files import read_text
from kproxy.limits import Limits
from kproxy.lines import STDOUT

_NODE_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_FIELD_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")


class Address(NamedTuple):
    """An IP address and port to listen on or to connect to."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """True where only this host can reach it."""
        return ipaddress.ip_address(self.host).is_loopback

    def __str__(self) -> str:
        """Write it as in a URL: IPv6 in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class LogConfig(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What kproxy says of itself on standard error."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="The least severe message shown.")
    ] = "info"
    format: Annotated[
        Literal["text", "json"], Meta(description="A line for people, or a JSON object a line.")
    ] = "text"


class Config(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Everything that `kproxy run` is told; as loaded, every path is absolute and every address checked."""

    node: Annotated[str, Meta(description="This node's name, for status and logs.")]
    rules: Annotated[
        tuple[str, ...], Meta(min_length=1, description="Folders and files of rules (*.json, *.yaml, *.yml).")
    ]
    endpoints: Annotated[str, Meta(description="The endpoints file.")]
    secrets: Annotated[
        str | None,
        Meta(description="Folder of the secrets that headerMatches name, as NAMESPACE/NAME; null: none."),
    ] = None
    fail_mode: Annotated[
        Literal["closed", "open"],
        Meta(description="What happens to redirected connections while the proxy is down."),
    ] = "closed"
    admin: Annotated[
        str | None, Meta(description="ADDRESS:PORT of metrics, liveness, readiness and status; null: none.")
    ] = "127.0.0.1:9964"
    access_log: Annotated[
        str | None, Meta(description='Path of the access log; "-" is standard output; null: none.')
    ] = STDOUT
    node_addresses: Annotated[
        tuple[str, ...], Meta(description="This node's own addresses; those of its links where empty.")
    ] = ()
    allow_localhost: Annotated[
        Literal["always", "policy"],
        Meta(description="Whether the node may always reach its own endpoints, as in Kubernetes."),
    ] = "always"
    splice: Annotated[bool, Meta(description="Splice local sockets in the kernel where possible.")] = True
    deny_rule_header: Annotated[
        str | None, Meta(description="Response header that names the rule in a denial; null: none.")
    ] = None
    refuse_ambiguous_paths: Annotated[
        bool,
        Meta(
            description="Where a path rule applies, deny paths that servers may read differently: dot segments, "
            "//, encoded slash, dot, backslash or NUL."
        ),
    ] = True
    detach_on_exit: Annotated[
        bool,
        Meta(description="Remove every hook at exit, and enforce nothing after: for demos and tests."),
    ] = False
    log: Annotated[LogConfig, Meta(description="What kproxy says of itself.")] = LogConfig()
    limits: Annotated[Limits, Meta(description="Bounds.")] = Limits()

    @property
    def admin_address(self) -> Address | None:
        """The admin listener's address, or None where there is to be none."""
        return None if self.admin is None else parse_address(self.admin)


def load(path: str | Path) -> Config:
    """Read and check a configuration file.

    Raises FileError with every mistake in it.
    """
    config = decode(read_text(path), str(path), Config, _checks)
    return _resolve(config, Path(path).absolute().parent)


def parse_address(text: str) -> Address:
    """Parse `127.0.0.1:9964` or `[::1]:9964`; raises ValueError with a sentence.

    Names are not resolved: what kproxy listens on must not depend on a name server.
    """
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        raise ValueError(f'"{text}" is not ADDRESS:PORT') from None
    if not colon or bracketed != (address.version == 6):
        raise ValueError(f'"{text}" is not ADDRESS:PORT')
    if not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError(f'"{port}" is not a port')
    return Address(str(address), int(port))


def _checks(config: Config) -> Iterator[Mistake]:
    """Yield what the types alone do not see."""
    if not _NODE_NAME.fullmatch(config.node):
        yield Mistake("/node", "not a node name", "use letters, digits, '-', '_' and '.', 253 at most")
    if config.admin is not None:
        yield from _admin(config.admin)
    if config.deny_rule_header is not None and not _FIELD_NAME.fullmatch(config.deny_rule_header):
        yield Mistake("/denyRuleHeader", "not a header name (RFC 9110 section 5.1)", "such as x-kproxy-rule")
    for index, address in enumerate(config.node_addresses):
        if not _is_address(address):
            yield Mistake(f"/nodeAddresses/{index}", f'"{address}" is not an IP address')
    yield from _paths(config)


def _admin(text: str) -> Iterator[Mistake]:
    try:
        parse_address(text)
    except ValueError as error:
        yield Mistake("/admin", str(error), 'write it as "127.0.0.1:9964" or "[::1]:9964"')


def _paths(config: Config) -> Iterator[Mistake]:
    named = {"/endpoints": config.endpoints, "/accessLog": config.access_log, "/secrets": config.secrets}
    named |= {f"/rules/{index}": path for index, path in enumerate(config.rules)}
    for pointer, path in named.items():
        if path is not None and (not path or "\0" in path):
            yield Mistake(pointer, "not a path", "name a file or folder, relative to this file or absolute")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _resolve(config: Config, folder: Path) -> Config:
    """Make every path absolute, from the configuration file's own folder."""
    log = config.access_log
    return msgspec.structs.replace(
        config,
        rules=tuple(str(folder / path) for path in config.rules),
        endpoints=str(folder / config.endpoints),
        secrets=None if config.secrets is None else str(folder / config.secrets),
        access_log=log if log in (None, STDOUT) else str(folder / str(log)),
    )
