"""What one endpoint may do in one direction: answers for connections, and who judges the requests."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from policy.errors import PolicyError
from policy.httprules import AuditedRules, HttpRules
from policy.intervals import Default, Interval
from policy.model import PROTOCOL_NAMES, TCP
from policy.verdicts import Action, L4Verdict

Judges = HttpRules | AuditedRules


class NotJudged(PolicyError):
    """Requests of this peer on this port are not judged: the kernel passes or denies the connection."""


@dataclass(frozen=True, slots=True)
class L4Entry:
    """One line of an endpoint's policy map: what becomes of these ports at this identity.

    `audit`: it passes, but a policy in audit mode would deny it; to be counted.
    """

    identity: int
    protocol: int
    first_port: int
    last_port: int
    action: Action
    rule: str
    reason: str
    audit: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """An interval of ports with its answer made, and what judges its requests if they are judged."""

    interval: Interval
    verdict: L4Verdict
    judges: Judges | None


class Ports:
    """The pieces of one class of peers."""

    __slots__ = ("_firsts", "pieces")

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.pieces = tuple(pieces)
        self._firsts = [(piece.interval.protocol, piece.interval.first) for piece in self.pieces]

    def at(self, protocol: int, port: int) -> Piece | None:
        """The piece that a port lies in."""
        index = bisect_right(self._firsts, (protocol, port)) - 1
        if index < 0:
            return None
        piece = self.pieces[index]
        inside = piece.interval.protocol == protocol and port <= piece.interval.last
        return piece if inside else None


class DirectionPolicy:
    """Immutable. `ports` holds the pieces for each identity that any rule speaks of."""

    def __init__(
        self, word: str, default: Default, ports: Mapping[int, Ports], names: Mapping[int, str]
    ) -> None:
        self._word = word
        self._basis = default
        self._ports = ports
        self._names = names
        self.enforced = not default.allows
        """Whether default deny is in force."""
        self.default = _default_verdict(word, default)
        """What becomes of a connection that no entry speaks of."""

    @cached_property
    def entries(self) -> tuple[L4Entry, ...]:
        """All lines of the policy map, with disjoint intervals for each identity and protocol."""
        return tuple(
            L4Entry(
                identity,
                piece.interval.protocol,
                piece.interval.first,
                piece.interval.last,
                piece.verdict.action,
                piece.verdict.rule,
                piece.verdict.reason,
                piece.verdict.audit,
            )
            for identity, ports in self._ports.items()
            for piece in ports.pieces
        )

    def decide(self, identity: int, protocol: int, port: int, peer_name: str = "") -> L4Verdict:
        """What becomes of a connection from (ingress) or to (egress) an identity on a port.

        Peers that rules do not tell apart share an identity: `peer_name` says which of them is meant, for the
        reason to name; without it, the reason names one of them.
        """
        ports = self._ports.get(identity)
        piece = ports.at(protocol, port) if ports else None
        if piece is not None:
            return piece.verdict
        if not self.enforced:
            return self.default
        who = peer_name or self._names.get(identity, "this peer")
        service = f"{port}/{PROTOCOL_NAMES.get(protocol, protocol)}"
        policy = self._basis.denied_by.partition("#")[0]
        reason = f"default deny: no {self._word} rule of {policy} allows {who} on {service}"
        return L4Verdict(Action.DENY, self._basis.denied_by, reason)

    def http(self, identity: int, port: int) -> Judges:
        """What judges the requests of a connection that `decide` redirects.

        Raises:
            NotJudged: the connection is not redirected.
        """
        ports = self._ports.get(identity)
        piece = ports.at(TCP, port) if ports else None
        if piece is None or piece.judges is None:
            raise NotJudged(f"no HTTP rules for identity {identity} on port {port}")
        return piece.judges

    def judges(self) -> list[tuple[int, Interval, Judges]]:
        """All that judges requests, by identity and ports."""
        return [
            (identity, piece.interval, piece.judges)
            for identity, ports in self._ports.items()
            for piece in ports.pieces
            if piece.judges is not None
        ]


def _default_verdict(word: str, default: Default) -> L4Verdict:
    if default.denied_by:
        return L4Verdict(Action.DENY, default.denied_by, f"default deny: no {word} rule allows it")
    if default.audited_by:
        return L4Verdict(Action.PASS, default.audited_by, f"audit: no {word} rule allows it", audit=True)
    return L4Verdict(Action.PASS, "", f"no policy brings default deny for {word}")
