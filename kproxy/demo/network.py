"""Pods on one node as a CNI makes them: a network namespace each, joined by veth pairs and a bridge.

    with Network("demo", [PodSpec("jobs-api"), PodSpec("turtletweets")]) as net:
        net["turtletweets"].run(["curl", "-sS", f"http://{net['jobs-api'].v4}/healthz"])

The bridge stands in the host's namespace and has an address, so that the host reaches its pods and they
the host, as on a real node. Everything carries the network's name (bridge `demo`, host's veth ends
`demo.2`, namespaces `demo.jobs-api`), so undoing it needs no memory: what bears the name is removed, be it
ours or left by a run of that name that was killed. A name in use by a living process is refused.

iproute2 does the work, in batches: about 10 ms a pod, the lines are those one would type, and it works
with or without a running event loop. (pyroute2 was tried: as quick, but its synchronous calls
fail under a running loop, and it forks the calling process for every namespace.)
"""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from types import TracebackType

from kproxy.demo.errors import NetworkError
from kproxy.demo.inside import inside, processes_in
from kproxy.demo.process import COMMAND_TIMEOUT_S, Process, listens, run, running
from kproxy.demo.subnets import V4_POOL, V6_POOL, reserved, reserved_subnet
from kproxy.errors import NotPermittedError

NETNS_DIR = Path("/run/netns")  # where iproute2 keeps them

# An interface's name has at most 15 characters (IFNAMSIZ): this, a dot, and three for the pod's number.
_NAME = re.compile(r"[a-z][a-z0-9-]{0,10}")
_POD_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")  # a DNS label, RFC 1123
_MAX_PODS = 253  # .0 and .255 are taken by IPv4, .1 by the bridge
# A program may be in a pod only for the moment of opening a socket there; who stays longer lives there.
_LINGER_S = 0.02
_DEATH_S = 5.0  # SIGKILL takes milliseconds, unless the kernel is stuck; then nothing helps


@dataclass(frozen=True)
class PodSpec:
    """What a pod is to be: a workload's name, namespace, labels and named ports, as in the endpoints file."""

    name: str
    namespace: str = "default"
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Pod:
    """A pod that is there: its namespace (`netns`, a path) and its addresses on `eth0`."""

    spec: PodSpec
    netns: Path
    v4: IPv4Address
    v6: IPv6Address

    @property
    def name(self) -> str:
        """The workload's name."""
        return self.spec.name

    @property
    def addresses(self) -> tuple[IPv4Address, IPv6Address]:
        """Both addresses, IPv4 first."""
        return self.v4, self.v6

    def run(
        self, argv: Sequence[str], *, timeout: float = COMMAND_TIMEOUT_S
    ) -> subprocess.CompletedProcess[str]:
        """Run a short command in the pod to its end; stdout and stderr are in the result, and it may fail."""
        return run(argv, netns=self.netns, timeout=timeout)

    def start(
        self, argv: Sequence[str], *, listening: int | None = None, env: Mapping[str, str] | None = None
    ) -> AbstractContextManager[Process]:
        """A program that runs in the pod during a `with` block, which begins once it listens on the port."""
        if listening is None:
            return running(argv, netns=self.netns, env=env)
        return running(argv, netns=self.netns, ready=listens(self.netns, listening), env=env)

    def inside(self) -> AbstractContextManager[None]:
        """The calling thread is in the pod until the block ends: sockets opened there are the pod's."""
        return inside(self.netns)


class Network:
    """The bridge and its pods, there from `__enter__` to `__exit__`; pods by name with `net["name"]`."""

    def __init__(self, name: str, pods: Iterable[PodSpec] = (), *, subnet: int | None = None) -> None:
        """Describe it: nothing is made yet. `subnet` (0 to 255) numbers its /24 and /64; free one without.

        Raises NetworkError for a name that cannot name an interface.
        """
        if not _NAME.fullmatch(name):
            raise NetworkError(
                f"{name!r} cannot name a network", "use up to 11 of a-z, 0-9 and -, a letter first"
            )
        self.name = name
        self._specs = tuple(pods)
        self._subnet = subnet
        self._pods: dict[str, Pod] = {}
        self._undo = ExitStack()
        self.v4 = V4_POOL
        self.v6 = V6_POOL

    @property
    def host_v4(self) -> IPv4Address:
        """The bridge's address: the node as its pods see it, and their default gateway."""
        return self.v4[1]

    @property
    def host_v6(self) -> IPv6Address:
        """The bridge's IPv6 address."""
        return self.v6[1]

    @property
    def pods(self) -> tuple[Pod, ...]:
        """All pods, in the order they were added."""
        return tuple(self._pods.values())

    def __getitem__(self, name: str) -> Pod:
        return self._pods[name]

    def __iter__(self) -> Iterator[Pod]:
        return iter(self._pods.values())

    def __enter__(self) -> Network:
        """Make it all, or nothing. Raises NetworkError."""
        _require_root()
        with ExitStack() as undo:
            undo.enter_context(
                reserved(f"network/{self.name}", f"network {self.name} is in use by another process")
            )
            remove_network(self.name)  # of a run that was killed
            undo.callback(remove_network, self.name)
            number = undo.enter_context(reserved_subnet(self._subnet))
            self.v4 = IPv4Network((int(V4_POOL[0]) + (number << 8), 24))
            self.v6 = IPv6Network((int(V6_POOL[0]) + (number << 80), 64))
            self._make_bridge()
            for spec in self._specs:
                self.add(spec)
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()
        self._pods.clear()

    def add(self, spec: PodSpec) -> Pod:
        """Make one more pod. Raises NetworkError."""
        number = len(self._pods) + 2
        if not _POD_NAME.fullmatch(spec.name) or spec.name in self._pods or number > _MAX_PODS + 1:
            raise NetworkError(
                f"pod {spec.name!r}: needs a new DNS label as its name, and {_MAX_PODS} pods at most"
            )
        pod = Pod(spec, NETNS_DIR / f"{self.name}.{spec.name}", self.v4[number], self.v6[number])
        self._make_pod(pod, f"{self.name}.{number}")
        self._pods[spec.name] = pod
        return pod

    def _make_bridge(self) -> None:
        if not Path("/proc/sys/net/ipv6/conf").exists():
            raise NetworkError("IPv6 is off in this kernel", "boot without ipv6.disable=1")
        # Its own hardware address: without, it takes its lowest port's, which changes as pods come and go.
        hardware = f"02:6b:70:{int(self.v4[0]) >> 8 & 0xFF:02x}:00:01"
        _ip([f"link add {self.name} address {hardware} type bridge mcast_snooping 0"])
        Path(f"/proc/sys/net/ipv6/conf/{self.name}/disable_ipv6").write_text("0")
        _ip(
            [
                f"address add {self.host_v4}/{self.v4.prefixlen} dev {self.name}",
                f"address add {self.host_v6}/{self.v6.prefixlen} dev {self.name} nodad",
                f"link set {self.name} up",
            ]
        )

    def _make_pod(self, pod: Pod, veth: str) -> None:
        netns = pod.netns.name
        _ip(
            [
                f"netns add {netns}",
                f"link add {veth} type veth peer name eth0 netns {netns}",
                f"link set {veth} addrgenmode none",
                f"link set {veth} master {self.name} up",
            ]
        )
        _ip(
            [
                "link set lo up",
                f"address add {pod.v4}/{self.v4.prefixlen} dev eth0",
                f"address add {pod.v6}/{self.v6.prefixlen} dev eth0 nodad",
                "link set eth0 up",
                f"route add default via {self.host_v4}",
                f"route add default via {self.host_v6}",
            ],
            "-n",
            netns,
        )


def remove_network(name: str) -> None:
    """Remove whatever bears this network's name: programs that live in its pods, namespaces, links.

    What is not there is no error: it may be called at any time and again.
    """
    namespaces = sorted(NETNS_DIR.glob(f"{name}.*"))
    for pid in _residents(namespaces):
        _kill(pid)
    links = [link for link in _links() if link == name or link.startswith(f"{name}.")]
    _ip(
        [*(f"link delete {link}" for link in links), *(f"netns delete {ns.name}" for ns in namespaces)],
        "-force",
    )


def network_leftovers(name: str) -> list[str]:
    """What bears this network's name: links and namespaces. Empty when all is undone."""
    links = [f"link {link}" for link in _links() if link == name or link.startswith(f"{name}.")]
    return links + [f"namespace {path.name}" for path in sorted(NETNS_DIR.glob(f"{name}.*"))]


def _residents(namespaces: Sequence[Path]) -> frozenset[int]:
    """Programs, other than ourselves, that live in these namespaces and do not just pass through."""

    def look() -> frozenset[int]:
        return frozenset().union(*(processes_in(path) for path in namespaces)) - {os.getpid()}

    seen = look()
    if not seen:
        return seen
    time.sleep(_LINGER_S)
    return seen & look()


def _kill(pid: int) -> None:
    """Kill it and wait until it is dead: through a pidfd, which never means another process of that number."""
    with suppress(ProcessLookupError), open(os.pidfd_open(pid), "rb") as process:
        signal.pidfd_send_signal(process.fileno(), signal.SIGKILL)
        select.select([process], [], [], _DEATH_S)


def _links() -> list[str]:
    return [name for _, name in socket.if_nameindex()]


def _require_root() -> None:
    if os.geteuid() != 0:
        raise NotPermittedError("making network namespaces needs root", "run it with sudo")


def _ip(lines: Sequence[str], *options: str) -> None:
    """Give iproute2 a batch of lines. Raises NetworkError with its own words and the line."""
    try:
        done = subprocess.run(
            ["ip", *options, "-batch", "-"],
            input="\n".join(lines) + "\n",
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise NetworkError("the program ip is missing", "apt-get install iproute2") from error
    if done.returncode and "-force" not in options:
        failed = re.search(r"Command failed -:(\d+)", done.stderr)
        line = lines[int(failed[1]) - 1] if failed else "; ".join(lines)
        raise NetworkError(f"ip {' '.join([*options, line])}: {done.stderr.splitlines()[0]}")
