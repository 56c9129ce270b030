"""What the kernel decided by itself, told as the policy in force explains it."""

from __future__ import annotations

from kproxy.directory import Directory
from kproxy.observer import Observer, Side
from kproxy.revision import Revision
from sockmap.layout import Direction, Event

_PROTOCOLS = {6: "tcp", 17: "udp"}


class KernelEvents:
    """Turns records of the ring buffer into lines of the access log."""

    def __init__(self, directory: Directory, revision: Revision, observer: Observer) -> None:
        self._directory, self._revision, self._observer = directory, revision, observer

    def denied(self, event: Event) -> None:
        """Tell of a connection or datagram that was denied."""
        enforced = self._directory.by_number(event.slot_or_endpoint)
        if enforced is None:
            return
        policy = self._revision.policy
        both = policy.endpoint(*enforced.name)
        ingress = event.generation_or_direction == Direction.INGRESS
        half = both.ingress if ingress else both.egress
        peer = event.address.value()
        verdict = half.decide(event.reason_or_identity, event.protocol, event.port)
        identity = policy.identify(peer)
        # Of a peer that called, the address is known; of one that was called, its port too.
        bracketed = f"[{peer}]" if peer.version == 6 else str(peer)
        written = str(peer) if ingress else f"{bracketed}:{event.port}"
        side = Side(str(enforced.name), "ingress" if ingress else "egress", identity.name, written)
        protocol = _PROTOCOLS.get(event.protocol, str(event.protocol))
        self._observer.denied_l4(side, protocol, verdict.rule, verdict.reason)
