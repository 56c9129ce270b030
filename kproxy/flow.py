"""One flow: its parties, what the policy says of them, and its relay."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from kproxy.http1 import Http1Flow, HttpOptions
from kproxy.judgement import Judgement, Rules
from kproxy.observer import FlowObserver, Observer
from kproxy.opaque import OpaqueFlow
from kproxy.parties import Parties, Ruling, rule
from kproxy.relay import Core, Relay
from parsers.http1 import RequestHead
from policy import Action, NodePolicy


class Allowed:
    """The verdict, and the rules, of a flow whose connection became allowed whole while requests were judged."""

    __slots__ = ("reason", "rule")

    verdict, allowed, path_judged = "allow", True, False
    edits: Sequence[Any] = ()
    guarded: frozenset[bytes] = frozenset()

    def __init__(self, rule: str, reason: str) -> None:
        self.rule, self.reason = rule, reason

    def judge(self, _request: object, /) -> Allowed:
        """Allow any request."""
        return self


class Flow:
    """A connection that kproxy carries.

    Attributes:
        parties: who talks to whom.
        slots: the splice slots of kproxy's own two sockets.
    """

    __slots__ = ("_observer", "_relay", "_rules", "on_end", "parties", "slots")

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

    def policy_changed(self, policy: NodePolicy) -> bool:
        """Put this flow under a new policy; false where that no longer allows it as it is."""
        ruling = rule(policy, self.parties)
        if ruling.verdict.action is Action.DENY:
            return False
        if self._rules is None:
            # From opaque to judged: where in the stream a request begins is not known.
            return ruling.rules is None
        self._observer.judged_by(ruling.sides)
        self._rules = ruling.rules or Allowed(ruling.verdict.rule, ruling.verdict.reason)
        return True

    @property
    def relay(self) -> Relay:
        """The sockets; there once the core was made."""
        assert self._relay is not None
        return self._relay

    @property
    def observer(self) -> FlowObserver:
        """What tells of this flow."""
        return self._observer
