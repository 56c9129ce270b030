"""Why: the verdict on a described request, of each policy that is asked, and the rule that decided."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from ipaddress import ip_address, ip_network

from policy.candidates import Asked, Candidate, candidates
from policy.compilation import NodePolicy
from policy.errors import PolicyError
from policy.header_matches import Edited
from policy.identities import Address, Identity, Workload
from policy.model import TCP
from policy.verdicts import Action, Request


class UnknownParty(PolicyError):
    """What was named is neither a known workload nor an address; `mend` says what to write instead."""

    def __init__(self, message: str, mend: str) -> None:
        super().__init__(message)
        self.mend = mend


@dataclass(frozen=True, slots=True)
class Party:
    """One end of what is asked about."""

    identity: Identity
    workload: Workload | None

    @property
    def enforced(self) -> bool:
        """Whether its own policy is enforced on this node."""
        return self.workload is not None and self.workload.local


@dataclass(frozen=True, slots=True)
class Side:
    """The answer of one endpoint's policy.

    `enforced`: on this node; else it is what the rules mean for a workload that is elsewhere, and decides
    nothing here. `judged`: requests are judged one by one; `path_judged`: some rule in force looks at paths,
    `path_tried`: but only rules of policies in audit mode.
    `candidates` are the nearest rules, the deciding one first; `more` says how many others were
    looked at.
    """

    endpoint: str
    direction: str
    peer: str
    enforced: bool
    verdict: str
    rule: str
    reason: str
    judged: bool
    path_judged: bool
    candidates: tuple[Candidate, ...]
    more: int
    edits: tuple[str, ...] = ()
    """What is done to which header, without values: `add x-token`."""
    path_tried: bool = False
    guarded: frozenset[bytes] = frozenset()
    """Headers that rules edit: a request by which the client could undo that is refused."""

    @property
    def description(self) -> str:
        """What the deciding rule says of itself."""
        return next((one.description for one in self.candidates if one.rule == self.rule), "")


@dataclass(frozen=True, slots=True)
class Explanation:
    """The verdict of the policies enforced on this node: `allow`, `deny` or `audit`; and each side's own.

    `decided_by` is the side whose verdict it is, None where no policy was asked. `deciding` are all that were
    asked: those that are enforced on this node, or each of them where no workload is.
    """

    verdict: str
    rule: str
    reason: str
    sides: tuple[Side, ...]
    decided_by: Side | None = None
    deciding: tuple[Side, ...] = ()


def party(revision: NodePolicy, text: str) -> Party:
    """Who is meant, in the words of people and of the access log.

    `namespace/name`, a name that only one workload has, `host`, `world`, an address, or `cidr:` and a network.

    Raises:
        UnknownParty: it is none of these.
    """
    if text in ("host", "world"):
        return Party(revision.host if text == "host" else revision.world, None)
    named = [one for one in revision.workloads if text in (one.name, one.full_name)]
    if len(named) > 1:
        exact = [one for one in named if one.full_name == text]
        if len(exact) != 1:
            raise UnknownParty(f"{text} is ambiguous", _mean(one.full_name for one in named))
        named = exact
    if named:
        return Party(revision.identity_of(named[0].namespace, named[0].name), named[0])
    identity = revision.identify(_address(revision, text))
    workload = next((one for one in revision.workloads if identity.name == one.full_name), None)
    return Party(identity, workload)


def _address(revision: NodePolicy, text: str) -> Address:
    try:
        if text.startswith("cidr:"):
            return ip_network(text.removeprefix("cidr:")).network_address
        return ip_address(text)
    except ValueError:
        names = {one.name: one.full_name for one in revision.workloads}
        close = get_close_matches(text, [*names, *names.values()], 1)
        mend = _mean([names.get(close[0], close[0])]) if close else "name it as the endpoints file does"
        raise UnknownParty(f"{text} is neither a known workload, host, world, nor an address", mend) from None


def _mean(names: Iterable[str]) -> str:
    return f"did you mean {' or '.join(names)}?"


def explain(
    revision: NodePolicy,
    client: Party,
    server: Party,
    port: int,
    request: Request | None,
    protocol: int = TCP,
) -> Explanation:
    """What becomes of a connection, or of a request on it: the client's egress, then the server's ingress.

    Of a workload that is not enforced on this node the rules are explained too, but they decide nothing here;
    unless no workload is, as in files that are of no node: then the rules are asked as they stand.
    """
    if client.workload is not None and client.workload is server.workload:
        return Explanation("allow", "", "traffic inside one workload passes no hook: no policy is asked", ())
    anywhere = not any(one.local for one in revision.workloads)
    sides: list[Side] = []
    for direction, own, peer in (("egress", client, server), ("ingress", server, client)):
        if own.workload is not None and own.workload.namespace:
            side, forwarded = _side(revision, direction, own.workload, peer, port, protocol, request)
            sides.append(side)
            # What another node forwards is not known here, nor whether anything is enforced there.
            request = forwarded if side.enforced or anywhere else request
    deciding = tuple(side for side in sides if side.enforced or anywhere)
    if not deciding:
        return Explanation(
            "allow", "", "neither end is enforced on this node: no policy is asked", tuple(sides)
        )
    teller = max(deciding, key=_weight)
    return Explanation(teller.verdict, teller.rule, teller.reason, tuple(sides), teller, deciding)


_WEIGHT = {"allow": 0, "audit": 1, "deny": 2}


def _weight(side: Side) -> tuple[int, bool, bool, bool]:
    """The stricter one tells, and of equals the one that looked closer, at requests or by a rule.

    A connection that is denied never carries the request that another policy would deny.
    """
    denied = side.verdict == "deny"
    return _WEIGHT[side.verdict], denied and not side.judged, side.judged, bool(side.rule)


def _side(
    revision: NodePolicy,
    direction: str,
    endpoint: Workload,
    peer: Party,
    port: int,
    protocol: int,
    request: Request | None,
) -> tuple[Side, Request | None]:
    """The answer of one side, and the request as it goes on from there."""
    policy = getattr(revision.endpoint(endpoint.namespace, endpoint.name), direction)
    number = peer.identity.number
    answer = policy.decide(number, protocol, port, peer.identity.name)
    judged = answer.action is Action.REDIRECT
    verdict, rule, reason = _word(answer.action, answer.audit), answer.rule, answer.reason
    path_judged, path_tried, edits, forwarded = False, False, tuple[str, ...](), request
    guarded = frozenset[bytes]()
    if judged and request is not None:
        judgement = policy.http(number, port).judge(request)
        verdict, rule, reason = judgement.verdict, judgement.rule, judgement.reason
        edits, forwarded = tuple(map(str, judgement.edits)), Edited(request, judgement.edits)
        path_judged, path_tried = judgement.path_judged, judgement.path_tried
        guarded = judgement.guarded
    owner = endpoint if direction == "ingress" else peer.workload
    ports = {name.lower(): number for name, number in owner.ports.items()} if owner else {}
    asked = Asked(revision, peer.identity, port, protocol, request, ports)
    nearest, more = candidates(revision.selecting(endpoint), direction, asked, rule)
    side = Side(
        endpoint.full_name,
        direction,
        peer.identity.name,
        endpoint.local,
        verdict,
        rule,
        reason,
        judged,
        path_judged,
        nearest,
        more,
        edits,
        path_tried,
        guarded,
    )
    return side, forwarded


def _word(action: Action, audit: bool) -> str:
    if action is Action.DENY:
        return "deny"
    return "audit" if audit else "allow"
