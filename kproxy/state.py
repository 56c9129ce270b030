"""What a running node says of itself: the answers of /readyz, /status and /explain, and of `kproxy status`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from kproxy.answers import Knowledge


class ReloadStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The last reading of rules and endpoints.

    `time` is RFC 3339 in UTC; `errors` holds a line for each mistake, and is empty where `ok`.
    """

    ok: bool
    time: str
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class EndpointStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint: `state` is `enforced`, `peer` (known by its addresses only) or `failed`."""

    name: str
    state: str
    addresses: tuple[str, ...] = ()
    detail: str = ""
    splice: bool = False
    flows: int = 0


class FeatureStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One kernel feature that was probed for; `cost` says what is missing without it, empty where found."""

    name: str
    found: bool
    cost: str = ""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The whole state of a node.

    `not_ready` gives the reasons why it is not, empty where it is; `limits` are the bounds in force, and
    `limits_bit` how often each bit so far.
    """

    node: str
    version: str
    not_ready: tuple[str, ...]
    fail_mode: str
    policy_revision: int
    reload: ReloadStatus
    endpoints: tuple[EndpointStatus, ...]
    flows: int
    features: tuple[FeatureStatus, ...]
    limits: dict[str, float | dict[str, float]]
    limits_bit: dict[str, int]
    access_log_lost: int
    access_log_trouble: str = ""

    @property
    def ready(self) -> bool:
        """True where hooks are attached and a policy is in force."""
        return not self.not_ready


class NodeState(Protocol):
    """The running service, as the admin listener sees it; called in the event loop's thread."""

    def not_ready(self) -> Sequence[str]:
        """Give the reasons why the node is not ready, each a short sentence; none where it is."""

    def status(self) -> Status:
        """Describe everything."""

    def knowledge(self) -> Knowledge:
        """Give what is in force, to answer questions from on another thread."""
