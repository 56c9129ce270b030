"""`kproxy run`: puts the parts together, serves, and ends in good order."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Callable

import uvloop

from kproxy import reload
from kproxy.admin import AdminServer
from kproxy.carrier import Carrier
from kproxy.collector import NodeCollector
from kproxy.config import Config
from kproxy.credit import CreditLoop
from kproxy.directory import Directory, opener
from kproxy.followers import Followers
from kproxy.host import addresses as host_addresses
from kproxy.http1 import HttpOptions
from kproxy.kernel_counters import MapCounters
from kproxy.kernel_events import KernelEvents
from kproxy.lines import LineWriter, Sink
from kproxy.logs import logger
from kproxy.metrics import Metrics
from kproxy.neighbours import Neighbours
from kproxy.observer import Observer
from kproxy.process import raise_descriptor_limit
from kproxy.reload import Wanted
from kproxy.report import VERSION, Report
from kproxy.revision import Revision
from kproxy.rollout import Rollout
from kproxy.watch import Watch
from sockmap.hooks import Hooks

_log = logger(__name__)

FLUSH_S = 5.0  # how long the access log may take to reach its file at the end


def run(config: Config) -> int:
    """Run until SIGTERM or SIGINT; return the exit code.

    Raises:
        KproxyError, SockmapError: it cannot start.
    """
    # From here on changes are noticed: none that comes while the files are read is missed.
    watch = Watch((*config.rules, config.endpoints), [config.secrets] if config.secrets else [])
    wanted = reload.read(config)
    with contextlib.ExitStack() as undo:
        hooks = undo.enter_context(Hooks())
        raise_descriptor_limit(config.limits.connections)
        neighbours = Neighbours(hooks.sockets)
        undo.callback(neighbours.close)
        neighbours.look()
        directory = Directory(opener(hooks, config.splice), neighbours, hooks.host_netns)
        undo.callback(directory.close)
        hooks.splicer.diags = directory.diag
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(Service(config, wanted, watch, hooks, directory, neighbours).serve())


class Service:
    """The running node."""

    def __init__(
        self,
        config: Config,
        wanted: Wanted,
        watch: Watch,
        hooks: Hooks,
        directory: Directory,
        neighbours: Neighbours,
    ) -> None:
        self._config, self._hooks, self._directory = config, hooks, directory
        self._neighbours = neighbours
        self._metrics = metrics = Metrics(config.limits.metric_series)
        self._lines = lines = _line_writer(config)
        write = lines.write if lines else None
        observer = Observer(metrics, write, config.limits.access_log_field_bytes, time.time_ns)
        directory.host_addresses = host_addresses(config)
        self._revision = revision = Revision(config, wanted, directory)
        self._carrier = carrier = Carrier(
            hooks, directory, observer, lambda: revision.policy, config.limits, HttpOptions.of(config)
        )
        self._rollout = Rollout(config, revision, hooks, directory, carrier, metrics)
        self._followers = Followers(config, watch, self._rollout, carrier, directory, neighbours)
        self._events = KernelEvents(directory, revision, observer)
        self._ready = False
        self._report = Report(
            config, revision, hooks, directory, carrier, metrics, lines, lambda: self._ready
        )

    async def serve(self) -> int:
        """Attach, serve, and drain."""
        stop = self._on_signals()
        with contextlib.ExitStack() as undo:
            if self._lines:
                undo.callback(self._lines.close, FLUSH_S)
            credit = CreditLoop(self._hooks, self._events.decided, self._neighbours.look)
            undo.callback(credit.close)
            async with self._admin():
                self._directory.before_close = self._carrier.unlisten
                try:
                    await self._start()
                    await self._followers.until(stop)
                finally:
                    self._ready = False
                    await self._carrier.drain(self._config.limits.drain_seconds)
        return 0

    def _on_signals(self) -> asyncio.Event:
        """Return what is set when kproxy is told to end."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        if self._lines:
            loop.add_signal_handler(signal.SIGHUP, self._lines.reopen)
        return stop

    async def _start(self) -> None:
        await self._rollout.start()
        self._ready = True
        for name in self._hooks.other_agents():
            _log.warning(
                "another agent uses sockops",
                program=name,
                mend="sockets that it puts into a sockmap are not spliced; bpftool cgroup tree shows it",
            )
        if not self._config.detach_on_exit:
            _log.warning(
                "enforcement ends with this process",
                fail_mode=self._config.fail_mode,
                mend="supervise kproxy so that it is started again; --detach-on-exit says you know",
            )
        endpoints = len(list(self._directory))
        _log.info("ready", endpoints=endpoints, revision=self._revision.policy.revision)

    @contextlib.asynccontextmanager
    async def _admin(self) -> AsyncIterator[None]:
        """Answer at the admin address, if there is one."""
        address = self._config.admin_address
        if address is None:
            yield
            return
        counters = MapCounters(self._hooks.counters, self._directory, self._carrier.carried)
        collector = NodeCollector(self._metrics, counters, self._lines, self._config.fail_mode, VERSION)
        admin = AdminServer(self._report, collector)
        server = await admin.start(address)
        try:
            yield
        finally:
            await admin.close(server)


def _line_writer(config: Config) -> LineWriter | None:
    if config.access_log is None:
        return None
    report: Callable[[str], None] = lambda text: _log.warning(text)  # noqa: E731
    return LineWriter(Sink.open(config.access_log), config.limits.access_log_queue_bytes, report)
