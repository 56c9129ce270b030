"""The answers to why as JSON: what `kproxy explain --json` prints and the admin listener's /explain sends."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

import policy

MAX_ENDPOINTS = 200
"""Endpoints that are drawn at once: one node runs 110 pods by default (kubelet, maxPods)."""


class Asked(msgspec.Struct, frozen=True, kw_only=True, rename={"client": "from", "server": "to"}):
    """The question, as it was understood."""

    client: Annotated[str, Meta(description="Who calls: namespace/name, host, world, cidr:….")]
    server: Annotated[str, Meta(description="Who is called.")]
    port: Annotated[int, Meta(description="The server's port.")]
    protocol: Literal["tcp", "udp"]
    method: Annotated[str | None, Meta(description="null: a connection is asked about.")] = None
    path: str | None = None
    host: Annotated[str | None, Meta(description="As rules see it.")] = None
    host_assumed: Annotated[bool, Meta(description="The question named no host.")] = False
    headers: Annotated[tuple[str, ...], Meta(description="Names alone: values may be secrets.")] = ()


class CandidateAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that was looked at."""

    rule: str
    kind: Annotated[str, Meta(description="allow or deny, with (audit) behind it in audit mode.")]
    matches: bool
    failed: Annotated[tuple[str, ...], Meta(description="What kept it from matching.")]
    description: str = ""


class SideAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What one endpoint's policy says."""

    endpoint: str
    direction: Literal["ingress", "egress"]
    peer: str
    enforced: Annotated[bool, Meta(description="On this node; else it decides nothing here.")]
    verdict: Literal["allow", "deny", "audit"]
    rule: str
    reason: str
    judged: Annotated[bool, Meta(description="Requests are judged one by one.")]
    candidates: Annotated[tuple[CandidateAnswer, ...], Meta(description="Nearest first, 10 at most.")]
    more: Annotated[int, Meta(description="Further rules that were looked at.")]
    edits: Annotated[
        tuple[str, ...], Meta(description="Done to headers before it is forwarded, such as add x-role.")
    ] = ()


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of a connection or request, and why."""

    verdict: Annotated[
        Literal["allow", "deny", "audit"], Meta(description="audit: would be denied, but passes.")
    ]
    rule: Annotated[str, Meta(description="The rule that decided; empty where none did.")]
    reason: str
    description: Annotated[str, Meta(description="What the rule says of itself.")] = ""
    status: Annotated[
        int | None, Meta(description="The HTTP status with which the proxy answers; null: it does not.")
    ] = None
    judged: Annotated[
        bool, Meta(description="Requests on this connection are judged one by one, if it is allowed.")
    ]
    node: str
    revision: Annotated[int | None, Meta(description="In force on the running node; null: read from files.")]
    asked: Asked
    sides: Annotated[tuple[SideAnswer, ...], Meta(description="The client's egress, the server's ingress.")]
    notes: Annotated[tuple[str, ...], Meta(description="What to know when reading this.")] = ()


class EndpointReach(msgspec.Struct, frozen=True, kw_only=True):
    """Whom one endpoint may talk to, and who may talk to it."""

    endpoint: str
    enforced: Annotated[bool, Meta(description="On this node.")]
    lines: Annotated[
        tuple[policy.Reach, ...], Meta(description="The last one of each direction is its default.")
    ]


class Drawn(msgspec.Struct, frozen=True, kw_only=True):
    """Who may talk to whom."""

    node: str
    revision: Annotated[int | None, Meta(description="In force on the running node; null: read from files.")]
    endpoints: Annotated[tuple[EndpointReach, ...], Meta(description=f"{MAX_ENDPOINTS} at most.")]
    more: Annotated[int, Meta(description="Further endpoints.")] = 0
    notes: Annotated[tuple[str, ...], Meta(description="What to know when reading this.")] = ()
