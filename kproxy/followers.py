"""What the running node follows: its files, its endpoints' namespaces, its own addresses, and the clock."""

from __future__ import annotations

import asyncio

from kproxy.carrier import Carrier
from kproxy.config import Config
from kproxy.directory import Directory
from kproxy.host import addresses as host_addresses
from kproxy.logs import logger
from kproxy.neighbours import Neighbours
from kproxy.rollout import Rollout
from kproxy.watch import Watch

_log = logger(__name__)

# How often namespaces and timeouts are looked at, and the host's own addresses.
TICK_S = 1.0
HOST_ADDRESSES_S = 10.0


class Followers:
    """Calls the rollout, the flows and the neighbours when something has changed, or a second has passed."""

    def __init__(
        self,
        config: Config,
        watch: Watch,
        rollout: Rollout,
        carrier: Carrier,
        directory: Directory,
        neighbours: Neighbours,
    ) -> None:
        self._config, self._changes, self._rollout = config, watch, rollout
        self._carrier, self._directory, self._neighbours = carrier, directory, neighbours

    async def until(self, stop: asyncio.Event) -> None:
        """Follow until told to stop; whatever breaks in a follower ends them all, and is raised."""
        followers = (stop.wait(), self._files(), self._clock(), self._host())
        tasks: list[asyncio.Task[object]] = [asyncio.create_task(follower) for follower in followers]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        for task in done:
            task.result()

    async def _files(self) -> None:
        async for changed in self._changes.changes():
            _log.info("files changed", files=sorted(changed))
            await self._rollout.read_again(self._changes.settled)

    async def _clock(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._carrier.tick()
            self._rollout.sweep()
            self._neighbours.let_go()
            await self._rollout.look_at_endpoints()

    async def _host(self) -> None:
        """The node's addresses come and go with its links."""
        while True:
            await asyncio.sleep(HOST_ADDRESSES_S)
            # In a thread: pyroute2 runs an event loop of its own.
            found = await asyncio.to_thread(host_addresses, self._config)
            if found != self._directory.host_addresses:
                self._directory.host_addresses = found
                await self._rollout.compile_again()
