"""`kproxy run`: puts the parts together, follows the files, and ends in good order."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version

import msgspec
import uvloop

from kproxy import reload
from kproxy.admin import AdminServer
from kproxy.carrier import Carrier
from kproxy.collector import NodeCollector
from kproxy.config import Config
from kproxy.credit import CreditLoop
from kproxy.directory import Directory, opener
from kproxy.enforcement import EnforcedEndpoint
from kproxy.errors import FileError
from kproxy.host import addresses as host_addresses
from kproxy.http1 import HttpOptions
from kproxy.kernel_counters import MapCounters
from kproxy.kernel_policy import tables_of
from kproxy.lines import LineWriter, Sink
from kproxy.logs import logger
from kproxy.metrics import Metrics
from kproxy.neighbours import Neighbours
from kproxy.observer import Observer, Side
from kproxy.parties import EndpointName
from kproxy.process import raise_descriptor_limit
from kproxy.reload import Wanted
from kproxy.stale import reset_stale
from kproxy.state import EndpointStatus, FeatureStatus, ReloadStatus, Status
from kproxy.watch import Watch
from policy import NodePolicy
from sockmap.errors import SockmapError
from sockmap.hooks import Hooks
from sockmap.layout import Direction, Event

_log = logger(__name__)

# How often namespaces and timeouts are looked at, and the host's own addresses.
TICK_S = 1.0
HOST_ADDRESSES_S = 10.0

# After a change, connections around the proxy are looked at in this many ticks: one that waits in a listener's
# queue is not told apart from one that waits for kproxy, so it is left for the next look.
SWEEPS = 5

FLUSH_S = 5.0  # how long the access log may take to reach its file at the end


def run(config: Config) -> int:
    """Run until SIGTERM or SIGINT; return the exit code.

    Raises:
        KproxyError, SockmapError: it cannot start.
    """
    # From here on changes are noticed: none that comes while the files are read is missed.
    watch = Watch((*config.rules, config.endpoints))
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
    """The running node; what `status` and the metrics look at."""

    def __init__(
        self,
        config: Config,
        wanted: Wanted,
        watch: Watch,
        hooks: Hooks,
        directory: Directory,
        neighbours: Neighbours,
    ) -> None:
        self._config, self._wanted, self._changes = config, wanted, watch
        self._hooks, self._directory, self._neighbours = hooks, directory, neighbours
        self._metrics = Metrics(config.limits.metric_series)
        self._revision = 0
        self._ready = False
        self._sweeps = 0
        self._reload = ReloadStatus(ok=True, time=_now())
        self._lines = _line_writer(config)
        write = self._lines.write if self._lines else None
        observer = Observer(self._metrics, write, config.limits.access_log_field_bytes, time.time_ns)
        self._observer = observer
        directory.host_addresses = host_addresses(config)
        self._policy = self._compile()
        self._carrier = Carrier(
            hooks, directory, observer, lambda: self._policy, config.limits, HttpOptions.of(config)
        )

    async def serve(self) -> int:
        """Attach, serve, and drain."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        if self._lines:
            loop.add_signal_handler(signal.SIGHUP, self._lines.reopen)
        credit = CreditLoop(self._hooks, self._kernel_denied, self._neighbours.look)
        collector = NodeCollector(
            self._metrics,
            MapCounters(self._hooks.counters, self._directory, self._carrier.carried),
            self._lines,
            self._config.fail_mode,
            version("kproxy-node"),
        )
        admin = AdminServer(self, collector)
        address = self._config.admin_address
        server = await admin.start(address) if address else None
        self._directory.before_close = self._carrier.unlisten
        try:
            self._follow_endpoints()
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
            _log.info("ready", endpoints=len(list(self._directory)), revision=self._policy.revision)
            await self._until(stop)
        finally:
            self._ready = False
            await self._carrier.drain(self._config.limits.drain_seconds)
            credit.close()
            if server:
                await admin.close(server)
            if self._lines:
                self._lines.close(FLUSH_S)
        return 0

    def not_ready(self) -> Sequence[str]:
        """Give the reasons why the node is not ready.

        An endpoint whose namespace is not there is none: pods come and go, and the others are enforced.
        """
        return [] if self._ready else ["the hooks are not attached, or no longer"]

    def status(self) -> Status:
        """Describe everything."""
        config = self._config
        return Status(
            node=config.node,
            version=version("kproxy-node"),
            not_ready=tuple(self.not_ready()),
            fail_mode=config.fail_mode,
            policy_revision=self._policy.revision,
            reload=self._reload,
            endpoints=tuple(self._endpoint_statuses()),
            flows=len(self._carrier),
            features=tuple(
                FeatureStatus(name=one.name, found=one.found, cost=one.cost) for one in self._hooks.features
            ),
            limits=msgspec.to_builtins(config.limits),
            limits_bit={name: cell.value for name, cell in self._metrics.limits.items()},
            access_log_lost=self._lines.lost_queue + self._lines.lost_write if self._lines else 0,
            access_log_trouble=self._lines.trouble if self._lines else "",
        )

    def _endpoint_statuses(self) -> list[EndpointStatus]:
        statuses = []
        for endpoint in self._wanted.endpoints:
            enforced = self._directory.by_endpoint(endpoint)
            failure = self._directory.failures.get(EndpointName(endpoint.namespace, endpoint.name), "")
            statuses.append(
                EndpointStatus(
                    name=endpoint.key,
                    state="enforced" if enforced else "failed" if endpoint.local else "peer",
                    addresses=tuple(str(address) for address in endpoint.addresses),
                    detail=failure,
                    splice=bool(enforced and enforced.splice),
                    flows=self._carrier.flows_of(enforced.name) if enforced else 0,
                )
            )
        return statuses

    async def _until(self, stop: asyncio.Event) -> None:
        """Follow files, namespaces and the clock until told to stop."""
        followers = (stop.wait(), self._watch(), self._tick(), self._follow_host())
        tasks: list[asyncio.Task[object]] = [asyncio.create_task(follower) for follower in followers]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        for task in done:
            task.result()

    async def _watch(self) -> None:
        async for changed in self._changes.changes():
            _log.info("files changed", files=sorted(changed))
            await self._read_again()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._carrier.tick()
            self._sweep()
            self._neighbours.let_go()
            self._follow_endpoints(check=True)

    async def _follow_host(self) -> None:
        """The node's addresses come and go with its links."""
        while True:
            await asyncio.sleep(HOST_ADDRESSES_S)
            # In a thread: pyroute2 runs an event loop of its own.
            found = await asyncio.to_thread(host_addresses, self._config)
            if found != self._directory.host_addresses:
                self._directory.host_addresses = found
                self._put_in_force()

    async def _read_again(self) -> None:
        """Take over what the files now say, or keep the last good state whole."""
        before = self._wanted
        try:
            self._wanted = await asyncio.to_thread(reload.read, self._config)
            self._put_in_force()
        except FileError as error:
            self._wanted = before
            for line in error.lines():
                _log.error("not taken over: " + line)
            self._metrics.reload_failed(len(error.problems), time.time())
            self._reload = ReloadStatus(ok=False, time=_now(), errors=tuple(error.lines()))
            return
        self._follow_endpoints()

    def _compile(self) -> NodePolicy:
        return self._wanted.compile(self._config, self._directory.host_addresses, self._revision + 1)

    def _put_in_force(self) -> None:
        """Kernel and user space change in one step of the event loop: no request sees half of it."""
        self._policy = self._compile()
        self._revision = self._policy.revision
        self._hooks.policy.apply(tables_of(self._policy, self._directory))
        withdrawn = self._carrier.policy_changed(self._policy)
        self._sweeps = SWEEPS
        names = {policy.name for policy in self._policy.rules}
        self._metrics.retain({endpoint.key for endpoint in self._wanted.endpoints}, names)
        self._metrics.reload_succeeded(self._policy.revision, time.time())
        self._reload = ReloadStatus(ok=True, time=_now(), warnings=self._wanted.warnings)
        _log.info("policy in force", revision=self._policy.revision, flows_reset=withdrawn)

    def _follow_endpoints(self, check: bool = False) -> None:
        """Open and close endpoints as the file and their namespaces have it."""
        opened, closed = self._directory.check() if check else self._directory.want(self._wanted.endpoints)
        for endpoint in closed:
            _log.info("endpoint left", endpoint=str(endpoint.name))
        enforced = len(list(self._directory))
        self._metrics.endpoints = {"enforced": enforced, "failed": len(self._directory.failures)}
        if not opened and check:
            return
        for endpoint in opened:
            self._carrier.listen(endpoint)
        self._put_in_force()
        for endpoint in opened:
            self._activate(endpoint)
        self._sweep()

    def _activate(self, endpoint: EnforcedEndpoint) -> None:
        """At start a failure ends kproxy with its reason; later it concerns this endpoint alone."""
        try:
            endpoint.activate()
        except SockmapError as error:
            if not self._ready:
                raise
            self._directory.give_up(endpoint, f"{error}; {error.mend}")
            return
        _log.info("endpoint enforced", endpoint=str(endpoint.name))

    def _sweep(self) -> None:
        """Reset connections around the proxy that the policy does not allow, for a while after each change."""
        if self._sweeps == 0:
            return
        self._sweeps -= 1
        own = self._carrier.own_sockets()
        for endpoint in self._directory:
            ended = reset_stale(endpoint, self._policy, own)
            if ended:
                self._metrics.limits["directConnectionsReset"].value += ended
                _log.info("connections reset", endpoint=str(endpoint.name), connections=ended)

    def _kernel_denied(self, event: Event) -> None:
        enforced = self._directory.by_number(event.slot_or_endpoint)
        if enforced is None:
            return
        both = self._policy.endpoint(*enforced.name)
        ingress = event.generation_or_direction == Direction.INGRESS
        half = both.ingress if ingress else both.egress
        peer = event.address.value()
        verdict = half.decide(event.reason_or_identity, event.protocol, event.port)
        identity = self._policy.identify(peer)
        # Of a peer that called, the address is known; of one that was called, its port too.
        bracketed = f"[{peer}]" if peer.version == 6 else str(peer)
        written = str(peer) if ingress else f"{bracketed}:{event.port}"
        side = Side(str(enforced.name), "ingress" if ingress else "egress", identity.name, written)
        protocol = {6: "tcp", 17: "udp"}.get(event.protocol, str(event.protocol))
        self._observer.denied_l4(side, protocol, verdict.rule, verdict.reason)


def _line_writer(config: Config) -> LineWriter | None:
    if config.access_log is None:
        return None
    report: Callable[[str], None] = lambda text: _log.warning(text)  # noqa: E731
    return LineWriter(Sink.open(config.access_log), config.limits.access_log_queue_bytes, report)


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
