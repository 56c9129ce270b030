"""Bringing a revision into force: in the kernel, on live flows, at endpoints that come and go, as one step."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from kproxy import beside, reload
from kproxy.carrier import Carrier
from kproxy.config import Config
from kproxy.directory import Changes, Directory
from kproxy.enforcement import EnforcedEndpoint
from kproxy.errors import FileError, Problem
from kproxy.kernel_policy import more_of, tables_of
from kproxy.logs import logger
from kproxy.metrics import Metrics
from kproxy.parties import EndpointName
from kproxy.reload import Wanted
from kproxy.revision import Coming, Revision
from kproxy.stale import reset_stale
from policy import NodePolicy
from sockmap.errors import SockmapError
from sockmap.hooks import Hooks
from sockmap.tables import Prepared

_log = logger(__name__)

# After a change, connections around the proxy are looked at in this many ticks: one that waits in a listener's
# queue is not told apart from one that waits for kproxy, so it is left for the next look.
SWEEPS = 5

# So often in a row, files that change while they are read are read once more. Each time takes as long as reading
# and the debounce, so after a second or so what is there is taken as it is.
MAX_UNSETTLED = 5

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
        self._sweeps = self._unsettled = 0
        self._started = False
        self._turn = asyncio.Lock()  # one change at a time

    async def read_again(self, settled: Callable[[], Awaitable[bool]]) -> None:
        """Take over what the files now say, or keep the last good state whole.

        Files that changed while they were read are not taken over, nor are their mistakes told: half of them may
        be of another save. `settled` says whether none did; who watches the files calls again where one did.
        """
        async with self._turn:
            with beside.traffic():
                found = await asyncio.to_thread(self._found)
                # A file that never rests must not keep all others from coming into force.
                self._unsettled = 0 if await settled() else self._unsettled + 1
                if self._unsettled % MAX_UNSETTLED == 0:
                    await self._take_over(found)

    def _found(self) -> Wanted | FileError:
        try:
            return reload.read(self._config)
        except FileError as error:
            return error

    async def _take_over(self, found: Wanted | FileError) -> None:
        try:
            if isinstance(found, FileError):
                raise found
            await self._bring(await asyncio.to_thread(self._revision.next, found))
        except FileError as error:
            self._kept(error)
            self._metrics.reload_failed(len(error.problems), time.time())
            self._revision.keep(tuple(error.lines()))
            return
        self._read()

    async def start(self) -> None:
        """Put the first revision in force.

        Raises:
            FileError: it does not fit into the kernel.
            SockmapError: an endpoint cannot be put under policy; later, that concerns this endpoint alone.
        """
        async with self._turn:
            with beside.traffic():
                await self._bring(self._revision.first())
            self._read()
            self._started = True

    async def compile_again(self) -> None:
        """The node itself has changed: what the files said means something else now."""
        async with self._turn:
            with beside.traffic():
                try:
                    await self._bring(await asyncio.to_thread(self._revision.next, self._revision.wanted))
                except FileError as error:
                    self._kept(error)

    async def look_at_endpoints(self) -> None:
        """Let go of endpoints whose namespaces went, and put those that came under the policy in force."""
        if self._turn.locked():
            return  # a change is under way, and looks as well
        async with self._turn:
            changes = self._directory.check()
            self._tell(changes)
            if changes.opened:
                await self._take_in(changes.opened)

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

    async def _bring(self, coming: Coming) -> None:
        """Bring a revision into force.

        What takes long is done beside the one in force and off the event loop, so that traffic goes on: compiling
        it, writing it into the maps, and removing the one before.

        Raises:
            FileError: it does not fit; nothing has changed.
        """
        numbers = self._directory.numbers(coming.wanted.endpoints)
        prepared = await asyncio.to_thread(self._prepare, coming.policy, numbers)
        former: list[object] = [self._revision.wanted, self._revision.policy]
        before, opened = self._change(coming, prepared)
        await self._activate(opened)
        await asyncio.to_thread(self._let_go, before, former)

    def _let_go(self, before: Prepared, former: list[object]) -> None:
        """Remove the revision before from the maps, and from memory, which takes as many milliseconds."""
        self._hooks.policy.discard(before)
        former.clear()

    def _prepare(self, policy: NodePolicy, numbers: Mapping[int, EndpointName]) -> Prepared:
        try:
            return self._hooks.policy.prepare(tables_of(policy, numbers))
        except OSError as error:
            raise _too_large(self._config, error) from error

    def _change(self, coming: Coming, prepared: Prepared) -> tuple[Prepared, list[EnforcedEndpoint]]:
        """Kernel, user space and endpoints change in one step of the event loop: no request sees half of it.

        Endpoints that left are out of force before the revision is in force; those that came, once it is.
        """
        changes = self._directory.want(coming.wanted.endpoints)
        self._tell(changes)
        self._admit(changes.opened, prepared, coming.policy)
        before = self._hooks.policy.put_in_force(prepared)
        _warn(self._revision.take_over(coming))
        withdrawn = self._carrier.policy_changed(coming.policy)
        self._sweeps = SWEEPS
        self.sweep()
        names = {one.name for one in coming.policy.rules}
        self._metrics.retain({endpoint.key for endpoint in coming.wanted.endpoints}, names)
        self._metrics.reloads.revision = coming.policy.revision
        _log.info("policy in force", revision=coming.policy.revision, flows_reset=withdrawn)
        return before, changes.opened

    async def _take_in(self, opened: list[EnforcedEndpoint]) -> None:
        """Write the policy in force anew, as a number in the maps may have been another endpoint's before."""
        for endpoint in opened:
            self._carrier.listen(endpoint)
        numbers = {endpoint.number: endpoint.name for endpoint in self._directory}
        try:
            prepared = await asyncio.to_thread(self._prepare, self._revision.policy, numbers)
        except FileError as error:
            self._kept(error)
            await self._activate(opened)  # safe: what no policy knows is denied everything
            return
        before = self._hooks.policy.put_in_force(prepared)
        await self._activate(opened)
        await asyncio.to_thread(self._hooks.policy.discard, before)

    def _tell(self, changes: Changes) -> None:
        for endpoint in changes.closed:
            _log.info("endpoint left", endpoint=str(endpoint.name))
        for endpoint in changes.changed:
            _log.info("endpoint changed", endpoint=str(endpoint.name))
        enforced, failed = len(list(self._directory)), len(self._directory.failures)
        self._metrics.endpoints = {"enforced": enforced, "failed": failed}

    def _admit(self, opened: list[EnforcedEndpoint], revision: Prepared, policy: NodePolicy) -> None:
        """Give endpoints that were opened their part of a revision.

        Where it does not fit they are activated all the same, and denied everything.
        """
        for endpoint in opened:
            self._carrier.listen(endpoint)
        try:
            self._hooks.policy.extend(revision, more_of(policy, {one.number: one.name for one in opened}))
        except OSError as error:
            for line in _too_large(self._config, error).lines():
                _log.error("new endpoints are denied everything: " + line)

    async def _activate(self, opened: list[EnforcedEndpoint]) -> None:
        """Put endpoints that came under the policy in force, one by one: each takes some 10 ms of the kernel."""
        for endpoint in opened:
            await asyncio.sleep(0)
            try:
                endpoint.activate()
            except SockmapError as error:
                if not self._started:
                    raise
                self._directory.give_up(endpoint, f"{error}; {error.mend}")
                continue
            _log.info("endpoint enforced", endpoint=str(endpoint.name))
        if opened:
            self._sweeps = SWEEPS
            self.sweep()

    def _read(self) -> None:
        self._revision.read()
        self._metrics.reload_succeeded(time.time())

    def _kept(self, error: FileError) -> None:
        for line in error.lines():
            _log.error("not taken over: " + line)


def _warn(fresh: tuple[str, ...]) -> None:
    for line in fresh[:MOST_WARNED]:
        _log.warning("worth a look: " + line)
    if len(fresh) > MOST_WARNED:
        _log.warning("more warnings", count=len(fresh) - MOST_WARNED, mend="kproxy status shows them")


def _too_large(config: Config, error: OSError) -> FileError:
    told = f"the policy does not fit into the kernel's maps beside the one in force ({error.strerror})"
    return FileError([Problem(config.rules[0], 0, "", told, "use fewer ports and peers, or larger ranges")])
