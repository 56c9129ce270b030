"""Carries every flow of this node: takes connections, opens the other side, and ends them when it must."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
import time
from collections import Counter
from collections.abc import Callable

from kproxy.connector import Acceptor, connect_upstream, name_at_peer, parties_of, reset, still
from kproxy.directory import Directory
from kproxy.enforcement import EnforcedEndpoint
from kproxy.flow import Flow
from kproxy.http1 import HttpOptions
from kproxy.limits import Limits
from kproxy.observer import Observer
from kproxy.parties import EndpointName, Parties, Ruling, rule
from kproxy.relay import Relay, prepare
from kproxy.stale import OwnSockets
from policy import Action, NodePolicy
from sockmap.hooks import Hooks
from sockmap.layout import NO_SLOT, Direction

_log = logging.getLogger(__name__)

_SO_COOKIE = 57  # include/uapi/asm-generic/socket.h


class Carrier:
    """All flows.

    Args:
        policy: returns the policy in force.
    """

    def __init__(
        self,
        hooks: Hooks,
        directory: Directory,
        observer: Observer,
        policy: Callable[[], NodePolicy],
        limits: Limits,
        options: HttpOptions,
    ) -> None:
        self._hooks, self._directory, self._observer = hooks, directory, observer
        self._policy, self._limits, self._options = policy, limits, options
        self._flows: set[Flow] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._accepted: set[socket.socket] = set()
        self._upstreams: set[socket.socket] = set()
        self._ended_bytes = [0, 0]
        self._of_endpoint: Counter[EndpointName] = Counter()
        self._acceptors: dict[int, list[Acceptor]] = {}
        self._drained = asyncio.Event()
        self._draining = False

    def __len__(self) -> int:
        """How many flows there are, those being opened included."""
        return len(self._flows) + len(self._opening)

    def own_sockets(self) -> OwnSockets:
        """Return what belongs to flows that are carried here."""
        cookies, served = set(), set()
        for own in (*self._accepted, *self._upstreams):
            with contextlib.suppress(OSError):  # closed in this turn of the loop
                cookies.add(own.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8))
        # A client that is connected to us itself has passed its own egress around us: that is judged on.
        for upstream in self._upstreams:
            with contextlib.suppress(OSError):  # not connected yet, or no longer
                served.add(name_at_peer(upstream))
        return OwnSockets(frozenset(cookies), frozenset(served))

    def carried(self) -> tuple[int, int]:
        """Return the bytes that crossed kproxy's sockets, both legs: towards servers, and towards clients."""
        relays = [flow.relay for flow in self._flows]
        return (
            self._ended_bytes[0] + sum(relay.downstream_in + relay.upstream_out for relay in relays),
            self._ended_bytes[1] + sum(relay.upstream_in + relay.downstream_out for relay in relays),
        )

    def flows_of(self, endpoint: EndpointName) -> int:
        """How many flows an endpoint has."""
        return self._of_endpoint[endpoint]

    def listen(self, endpoint: EnforcedEndpoint) -> None:
        """Take what arrives at an endpoint's listeners."""
        listeners = endpoint.listeners
        sides = (
            (listeners.egress4, Direction.EGRESS),
            (listeners.egress6, Direction.EGRESS),
            (listeners.ingress4, Direction.INGRESS),
            (listeners.ingress6, Direction.INGRESS),
        )
        self._acceptors[endpoint.number] = [
            Acceptor(listener, functools.partial(self._take, endpoint, direction))
            for listener, direction in sides
            if listener is not None
        ]

    def unlisten(self, endpoint: EnforcedEndpoint) -> None:
        """Take no more there, and end the endpoint's flows."""
        for acceptor in self._acceptors.pop(endpoint.number, ()):
            acceptor.close()
        for flow in [flow for flow in self._flows if flow.parties.endpoint == endpoint.name]:
            flow.relay.give_up("endpoint_removed")

    def policy_changed(self, policy: NodePolicy) -> int:
        """Put every flow under a new policy; reset those that it no longer allows, and return how many."""
        withdrawn = [flow for flow in self._flows if not self._still_allowed(flow, policy)]
        for flow in withdrawn:
            flow.relay.give_up("policy_withdrawn")
        return len(withdrawn)

    def _still_allowed(self, flow: Flow, policy: NodePolicy) -> bool:
        """Put a flow under a new policy; false where it is denied, or others are to be asked than before."""
        parties = still(self._directory, flow.parties)
        return parties is not None and flow.policy_changed(policy, parties)

    def tick(self) -> None:
        """Let every flow look at the clock."""
        now = time.perf_counter_ns()
        for flow in list(self._flows):
            flow.relay.core.tick(now)

    async def drain(self, seconds: float) -> None:
        """Accept no more, let requests under way end, then reset what is left."""
        self._draining = True
        for acceptors in self._acceptors.values():
            for acceptor in acceptors:
                acceptor.close()
        self._acceptors.clear()
        for flow in list(self._flows):
            if flow.relay.started:  # the others are told when they are
                flow.relay.core.drain()
        if len(self):
            try:
                async with asyncio.timeout(seconds):
                    await self._drained.wait()
            except TimeoutError:
                _log.warning("%d flows did not end within %g s and are reset", len(self), seconds)
        await self._abort_rest()

    async def _abort_rest(self) -> None:
        for task in list(self._opening):
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
        for flow in list(self._flows):
            flow.relay.give_up("drained")
        while self._flows:
            await asyncio.sleep(0)  # uvloop reports a closed socket in its next turn

    def _take(self, endpoint: EnforcedEndpoint, direction: Direction, accepted: socket.socket) -> None:
        try:
            prepare(accepted, self._limits.dead_peer_seconds)
            origin = self._hooks.sockets.origin(accepted.fileno())
            parties = None
            if origin is not None and not origin.half_spliced:
                parties = parties_of(self._directory, endpoint, direction, accepted, origin)
        except OSError:
            parties = None  # reset by its client before it was looked at
        if parties is None:
            self._observer.metrics.limits["unjudgeable"].value += 1
            reset(accepted)
            return
        limit = self._limit_that_bites(endpoint.name)
        if limit:
            self._observer.metrics.limit(limit)
            reset(accepted)
            return
        self._of_endpoint[endpoint.name] += 1
        self._accepted.add(accepted)
        task = asyncio.get_running_loop().create_task(self._open(endpoint, parties, accepted))
        self._opening.add(task)
        task.add_done_callback(self._opened)

    def _limit_that_bites(self, endpoint: EndpointName) -> str | None:
        if len(self) >= self._limits.connections:
            return "connections"
        if self._of_endpoint[endpoint] >= self._limits.endpoint_connections:
            return "endpointConnections"
        return None

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening.discard(task)
        if not task.cancelled() and (error := task.exception()):
            _log.error("a flow could not be opened", exc_info=error)
        self._note_drained()

    async def _open(self, endpoint: EnforcedEndpoint, parties: Parties, accepted: socket.socket) -> None:
        """Ask the policy, open the other side, and start; any failure resets the client."""
        flow: Flow | None = None
        started = False
        try:
            ruling = rule(self._policy(), parties)
            flow = Flow(parties, ruling, self._observer, self._ended)
            if ruling.action is Action.DENY:
                flow.denied()
                return
            upstream = await self._connect(endpoint, parties, ruling, flow)
            if upstream is None:
                return
            started = await self._start(flow, accepted, upstream)
        finally:
            if not started:
                self._accepted.discard(accepted)
                reset(accepted)
                self._of_endpoint[parties.endpoint] -= 1

    async def _connect(
        self, endpoint: EnforcedEndpoint, parties: Parties, ruling: Ruling, flow: Flow
    ) -> socket.socket | None:
        try:
            return await connect_upstream(
                endpoint,
                parties,
                ruling,
                self._hooks.sockets,
                self._limits,
                self._upstreams,
            )
        except TimeoutError:
            self._observer.metrics.limit("connectSeconds")
            flow.observer.closed("upstream_timeout")
        except ConnectionRefusedError:
            flow.observer.closed("upstream_refused")
        except OSError as error:
            _log.debug("upstream %s:%d: %s", parties.server, parties.server_port, error)
            flow.observer.closed("upstream_unreachable")
        return None

    async def _start(self, flow: Flow, accepted: socket.socket, upstream: socket.socket) -> bool:
        # Both may have changed while the server was being connected to; from here on the flow is told of it.
        if not self._still_allowed(flow, self._policy()):
            self._refuse(flow, upstream, "policy_withdrawn")
            return False
        relay = Relay(
            accepted,
            upstream,
            lambda wire: flow.core(wire, self._options),
            lambda _relay: self._ended(flow),
        )
        try:
            self._splice(flow, relay)
        except OSError as error:
            _log.debug("a flow's upstream socket cannot follow its server's into the map: %s", error)
            self._refuse(flow, upstream, "half_spliced")
            return False
        self._flows.add(flow)
        await relay.start()
        if self._draining:
            relay.core.drain()
        return True

    def _refuse(self, flow: Flow, upstream: socket.socket, reason: str) -> None:
        self._upstreams.discard(upstream)
        reset(upstream)
        flow.observer.closed(reason)

    def _splice(self, flow: Flow, relay: Relay) -> None:
        """Splice what can be of a flow's two connections.

        The downstream socket entered the map by itself, if its client is on this node.

        Raises:
            OSError: the server's socket is in the map and the upstream socket cannot follow.
        """
        splicer = self._hooks.splicer
        slots = (
            self._hooks.sockets.slot(relay.downstream_socket.fileno()),
            splicer.join(relay.upstream_socket),
        )
        if slots[0] != NO_SLOT:
            splicer.adopt(slots[0], relay.downstream_socket)
        relay.splice(*(None if slot == NO_SLOT else splicer.allowance(slot) for slot in slots))
        flow.slots = [slot for slot in slots if slot != NO_SLOT]

    def _ended(self, flow: Flow) -> None:
        relay = flow.relay
        self._accepted.discard(relay.downstream_socket)
        self._upstreams.discard(relay.upstream_socket)
        self._ended_bytes[0] += relay.downstream_in + relay.upstream_out
        self._ended_bytes[1] += relay.upstream_in + relay.downstream_out
        for slot in flow.slots:
            self._hooks.splicer.release(slot)
        self._flows.discard(flow)
        self._of_endpoint[flow.parties.endpoint] -= 1
        flow.ended()
        self._note_drained()

    def _note_drained(self) -> None:
        if self._draining and not len(self):
            self._drained.set()
