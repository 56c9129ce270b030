"""Bringing a revision into force: in the kernel, on live flows, at endpoints that come and go, as one step."""

from __future__ import annotations

import asyncio
import time

from kproxy import reload
from kproxy.carrier import Carrier
from kproxy.config import Config
from kproxy.directory import Changes, Directory
from kproxy.enforcement import EnforcedEndpoint
from kproxy.errors import FileError, Problem
from kproxy.kernel_policy import tables_of
from kproxy.logs import logger
from kproxy.metrics import Metrics
from kproxy.reload import Wanted
from kproxy.revision import Revision
from kproxy.stale import reset_stale
from policy import NodePolicy
from sockmap.errors import SockmapError
from sockmap.hooks import Hooks

_log = logger(__name__)

# After a change, connections around the proxy are looked at in this many ticks: one that waits in a listener's
# queue is not told apart from one that waits for kproxy, so it is left for the next look.
SWEEPS = 5

# Warnings that one change writes to the log, each when it is new; `status` has more.
MOST_WARNED = 20


class Rollout:
    """Changes what is in force."""

    def __init__(
        self,
        config: Config,
        revision: Revision,
        hooks: Hooks,
        directory: Directory,
        carrier: Carrier,
        metrics: Metrics,
    ) -> None:
        self._config, self._revision, self._hooks = config, revision, hooks
        self._directory, self._carrier, self._metrics = directory, carrier, metrics
        self._sweeps = 0
        self._started = False

    async def read_again(self) -> None:
        """Take over what the files now say, or keep the last good state whole."""
        try:
            wanted = await asyncio.to_thread(reload.read, self._config)
            policy = self._revision.next(wanted)
            self._settle(self._directory.want(wanted.endpoints), wanted, policy)
        except FileError as error:
            self._kept(error)
            self._metrics.reload_failed(len(error.problems), time.time())
            self._revision.keep(tuple(error.lines()))
            return
        self._read()

    def start(self) -> None:
        """Put the first revision in force.

        Raises:
            FileError: it does not fit into the kernel.
            SockmapError: an endpoint cannot be put under policy; later, that concerns this endpoint alone.
        """
        wanted, policy = self._revision.wanted, self._revision.policy
        self._settle(self._directory.want(wanted.endpoints), wanted, policy)
        self._read()
        self._started = True

    def look_at_endpoints(self) -> None:
        """Let go of endpoints whose namespaces went, and open those whose came."""
        changes = self._directory.check()
        self._tell(changes)
        if changes.opened:
            self._node_changed(changes.opened)

    def compile_again(self) -> None:
        """The node itself has changed: what the files said means something else now."""
        self._node_changed([])

    def sweep(self) -> None:
        """Reset connections around the proxy that the policy does not allow, for a while after each change."""
        if self._sweeps == 0:
            return
        self._sweeps -= 1
        own = self._carrier.own_sockets()
        for endpoint in self._directory:
            for why, count in reset_stale(endpoint, self._revision.policy, own).items():
                self._metrics.direct_resets[endpoint.endpoint.key, *why].value += count
                _log.info(
                    "connections reset",
                    endpoint=str(endpoint.name),
                    direction=why.direction,
                    reason=why.reason,
                    connections=count,
                )

    def _node_changed(self, opened: list[EnforcedEndpoint]) -> None:
        wanted = self._revision.wanted
        try:
            self._put_in_force(wanted, self._revision.next(wanted), opened)
        except FileError as error:
            self._kept(error)

    def _settle(self, changes: Changes, wanted: Wanted, policy: NodePolicy) -> None:
        """Endpoints that left are out of force before their policy is; those that came, once theirs is.

        Raises:
            FileError: it does not fit; the endpoints are those of the last good state again.
        """
        self._tell(changes)
        try:
            self._put_in_force(wanted, policy, changes.opened)
        except FileError:
            if self._started:
                self._go_back()
            raise

    def _go_back(self) -> None:
        good = self._revision.wanted
        changes = self._directory.want(good.endpoints)
        self._tell(changes)
        self._put_in_force(good, self._revision.next(good), changes.opened)

    def _tell(self, changes: Changes) -> None:
        for endpoint in changes.closed:
            _log.info("endpoint left", endpoint=str(endpoint.name))
        for endpoint in changes.changed:
            _log.info("endpoint changed", endpoint=str(endpoint.name))
        enforced, failed = len(list(self._directory)), len(self._directory.failures)
        self._metrics.endpoints = {"enforced": enforced, "failed": failed}

    def _put_in_force(self, wanted: Wanted, policy: NodePolicy, opened: list[EnforcedEndpoint]) -> None:
        """Kernel and user space change in one step of the event loop: no request sees half of it.

        An endpoint that was opened is activated whatever comes: where no policy knows it, it is denied everything.
        """
        for endpoint in opened:
            self._carrier.listen(endpoint)
        try:
            self._change(wanted, policy)
        finally:
            for endpoint in opened:
                self._activate(endpoint)
        self.sweep()

    def _change(self, wanted: Wanted, policy: NodePolicy) -> None:
        try:
            self._hooks.policy.apply(tables_of(policy, self._directory))
        except OSError as error:
            raise _too_large(self._config, error) from error
        _warn(self._revision.take_over(wanted, policy))
        withdrawn = self._carrier.policy_changed(policy)
        self._sweeps = SWEEPS
        names = {one.name for one in policy.rules}
        self._metrics.retain({endpoint.key for endpoint in wanted.endpoints}, names)
        self._metrics.reloads.revision = policy.revision
        _log.info("policy in force", revision=policy.revision, flows_reset=withdrawn)

    def _read(self) -> None:
        self._revision.read()
        self._metrics.reload_succeeded(time.time())

    def _kept(self, error: FileError) -> None:
        for line in error.lines():
            _log.error("not taken over: " + line)

    def _activate(self, endpoint: EnforcedEndpoint) -> None:
        try:
            endpoint.activate()
        except SockmapError as error:
            if not self._started:
                raise
            self._directory.give_up(endpoint, f"{error}; {error.mend}")
            return
        _log.info("endpoint enforced", endpoint=str(endpoint.name))


def _warn(fresh: tuple[str, ...]) -> None:
    for line in fresh[:MOST_WARNED]:
        _log.warning("worth a look: " + line)
    if len(fresh) > MOST_WARNED:
        _log.warning("more warnings", count=len(fresh) - MOST_WARNED, mend="kproxy status shows them")


def _too_large(config: Config, error: OSError) -> FileError:
    told = f"the policy does not fit into the kernel's maps beside the one in force ({error.strerror})"
    return FileError([Problem(config.rules[0], 0, "", told, "use fewer ports and peers, or larger ranges")])
