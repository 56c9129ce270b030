"""What the kernel decided by itself, told as the policy in force explains it."""

from __future__ import annotations

from collections.abc import Callable

from kproxy.directory import Directory
from kproxy.observer import Observer, Side
from kproxy.parties import written
from kproxy.revision import Revision
from policy import TCP, UDP, Action, DirectionPolicy, Identity, L4Verdict, NodePolicy
from sockmap.layout import Direction, Event, EventKind, IPAddress

_PROTOCOLS = {TCP: "tcp", UDP: "udp"}
_VERDICTS = {EventKind.DENIED: "deny", EventKind.AUDITED: "audit"}


class KernelEvents:
    """Turns records of the ring buffer into lines of the access log."""

    def __init__(self, directory: Directory, revision: Revision, observer: Observer) -> None:
        self._directory, self._revision, self._observer = directory, revision, observer

    def decided(self, event: Event) -> None:
        """Tell of a connection or datagram that was denied, or let pass as an audit."""
        enforced = self._directory.by_number(event.slot_or_endpoint)
        if enforced is None:
            return
        policy = self._revision.policy
        both = policy.endpoint(*enforced.name)
        ingress = event.generation_or_direction == Direction.INGRESS
        address = event.address.value()
        peer = _peer(policy, event, address)
        # Of a peer that called, the address is known; of one that was called, its port too.
        shown = str(address) if ingress else written(address, event.port)
        direction = "ingress" if ingress else "egress"
        side = Side(str(enforced.name), direction, peer.name, shown, event.port)
        told = _VERDICTS[EventKind(event.kind)]
        verdict = _explained(both.ingress if ingress else both.egress, event, peer, told)
        protocol = _PROTOCOLS.get(event.protocol, str(event.protocol))
        self._observer.decided_l4(side, protocol, told, verdict.rule, verdict.reason)


def _peer(policy: NodePolicy, event: Event, address: IPAddress) -> Identity:
    """Who it was: who opened a connection on the host is known to the kernel, others by their address."""
    return policy.host if event.reason_or_identity == policy.host.number else policy.identify(address)


def _explained(half: DirectionPolicy, event: Event, peer: Identity, told: str) -> L4Verdict:
    """The verdict, as the policy in force gives it; another protocol is let pass by what lets all of both pass."""
    asked = (event.protocol,) if event.protocol in _PROTOCOLS else (TCP, UDP)
    matches: Callable[[L4Verdict], bool] = (
        (lambda one: one.audit) if told == "audit" else (lambda one: one.action is Action.DENY)
    )
    verdicts = (half.decide(peer.number, protocol, event.port, peer.name) for protocol in asked)
    return next(filter(matches, verdicts), _REPLACED)


_REPLACED = L4Verdict(Action.DENY, "", "decided by a policy that has been replaced since")
