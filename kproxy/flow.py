"""One flow: its parties, what the policy says of them, and its relay."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from kproxy.http1 import Http1Flow, HttpOptions
from kproxy.judgement import Judgement, Rules
from kproxy.observer import FlowObserver, Observer
from kproxy.opaque import OpaqueFlow
from kproxy.parties import Parties, Ruling, rule
from kproxy.relay import Core, Relay
from parsers.http1 import RequestHead
from policy import Action, NodePolicy


class Flow:
    """A connection that kproxy carries.

    Attributes:
        parties: who talks to whom.
        slots: the splice slots of kproxy's own two sockets.
    """

    __slots__ = ("_observer", "_relay", "_rules", "_whole", "on_end", "parties", "slots")

    def __init__(
        self,
        parties: Parties,
        ruling: Ruling,
        observer: Observer,
        on_end: Callable[[Flow], None],
    ) -> None:
        self.parties = parties
        self.on_end = on_end
        self.slots: Sequence[int] = ()
        self._rules: Rules | None = ruling.rules
        self._whole = ruling.whole
        self._observer: FlowObserver = observer.flow(ruling.sides, "http" if ruling.rules else "tcp")
        self._relay: Relay | None = None

    def core(self, wire: Relay, options: HttpOptions) -> Core:
        """Make what decides about the bytes: HTTP where requests are judged, opaque where they need not be."""
        self._relay = wire
        if self._rules is None:
            return OpaqueFlow(wire)
        return Http1Flow(wire, self.judge, self._observer, options, time.perf_counter_ns)

    def judge(self, head: RequestHead) -> Judgement:
        """Ask the policy in force about one request."""
        assert self._rules is not None
        return self._rules.judge(head)

    def policy_changed(self, policy: NodePolicy, parties: Parties) -> bool:
        """Put this flow under a new policy, as one of these parties; false where it is not allowed as it is."""
        self.parties = parties
        ruling = rule(policy, self.parties)
        if ruling.action is Action.DENY:
            return False
        if self._rules is None and ruling.rules is not None:
            return False  # from opaque to judged: where in the stream a request begins is not known
        self._observer.judged_by(ruling.sides)
        self._whole = ruling.whole
        if self._rules is not None:
            self._rules = ruling.rules or ruling.whole
        return True

    def denied(self) -> None:
        """Tell that the policy did not let it come about."""
        self._observer.connection(self._whole.judge(None), 0, 0)
        self._observer.closed("denied")

    def ended(self) -> None:
        """Tell of its end: of an opaque flow in a line, of another its requests have told."""
        if self._rules is None:
            relay = self.relay
            self._observer.connection(self._whole.judge(None), relay.downstream_in, relay.downstream_out)
        self._observer.closed(self.relay.reason)

    @property
    def relay(self) -> Relay:
        """The sockets; there once the core was made."""
        assert self._relay is not None
        return self._relay

    @property
    def observer(self) -> FlowObserver:
        """What tells of this flow."""
        return self._observer
