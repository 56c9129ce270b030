"""Everything that kproxy has in the kernel, as one object with one undo.

All attachments to cgroups and namespaces are BPF links held by this process: when it ends, however it ends, the
kernel removes them. Pinning the links and replacing their programs in place is how enforcement can outlive the
process later.
"""

from __future__ import annotations

import contextlib
import ctypes as ct
import errno
import os
from collections.abc import Callable
from types import TracebackType

from sockmap import cgroup
from sockmap.counters import Counters
from sockmap.credit import FIRST_GRANT, MESSAGE_COST
from sockmap.errors import AttachError, CompileError, NotPermittedError, SockmapError
from sockmap.features import Feature, probe_splice
from sockmap.layout import Event, Slot
from sockmap.netns import NetworkNamespace
from sockmap.others import programs_at
from sockmap.program import Program, with_endpoint
from sockmap.sockets import SocketMarks
from sockmap.splicer import Splicer
from sockmap.syscall import link_create, program_attach, program_load, queue_push
from sockmap.tables import PolicyMaps

# enum bpf_prog_type and enum bpf_attach_type, include/uapi/linux/bpf.h
_CGROUP_SKB, _SOCK_OPS, _SK_MSG, _CGROUP_SOCK_ADDR, _SK_LOOKUP = 8, 13, 16, 18, 30
_ATTACH_SOCK_OPS, _ATTACH_SK_MSG, _ATTACH_SK_LOOKUP = 3, 7, 36
_CGROUP_HOOKS = (
    ("kproxy_sockops", _SOCK_OPS, _ATTACH_SOCK_OPS),  # first: a redirect without pairing would be refused
    ("kproxy_getpeername4", _CGROUP_SOCK_ADDR, 29),
    ("kproxy_getpeername6", _CGROUP_SOCK_ADDR, 30),
    ("kproxy_connect4", _CGROUP_SOCK_ADDR, 10),
    ("kproxy_connect6", _CGROUP_SOCK_ADDR, 11),
    ("kproxy_sendmsg4", _CGROUP_SOCK_ADDR, 14),
    ("kproxy_sendmsg6", _CGROUP_SOCK_ADDR, 15),
)
_GUARDS = (
    (
        ("kproxy_leaving", _CGROUP_SKB, 1),
        "other protocols than TCP and UDP, and packets with routing headers, leave pods around egress policy",
    ),
    (
        ("kproxy_arriving", _CGROUP_SKB, 0),
        "other protocols than TCP and UDP, broadcast and multicast reach pods around ingress policy",
    ),
)

# Four slots a flow whose ends are all on this node: 8,192 such flows, in 10 MB, and one endpoint has half at most.
# More go by TCP and are counted.
DEFAULT_SLOTS = 32768


class Hooks:
    """The programs, attached, and their maps. Use as a context manager.

    Attributes:
        host_netns: the cookie of the namespace that this process lives in.
        policy: writes policy revisions.
        sockets: marks kproxy's sockets and reads what was recorded about them.
        splicer: the credit of spliced directions.
        counters: what the programs counted.
        features: what the kernel was probed for.

    Raises (on entering):
        NotPermittedError, CgroupError, CompileError, AttachError.
    """

    host_netns: int
    policy: PolicyMaps
    sockets: SocketMarks
    splicer: Splicer
    counters: Counters
    features: tuple[Feature, ...]

    def __init__(self, slots: int = DEFAULT_SLOTS) -> None:
        self._slot_count = slots
        self._undo = contextlib.ExitStack()
        self._consume: Callable[[], None] = lambda: None

    def __enter__(self) -> Hooks:
        with contextlib.ExitStack() as undo:
            self._load(undo)
            self._attach_splice()
            self.features = probe_splice(self._memory, self._program.map_fd)
            self.counters.clear()  # the probe's own
            self._give_out_slots()
            self.features += self._attach_cgroup(undo)
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._undo.close()

    def attach_lookup(self, namespace: NetworkNamespace, endpoint: int) -> int:
        """Attach sk_lookup to a namespace, for this endpoint; return the link's descriptor.

        Closing the descriptor detaches it.

        Raises:
            AttachError: another sk_lookup program excludes it, or the kernel refuses.
        """
        if "kproxy_lookup" in programs_at(namespace.fd, _ATTACH_SK_LOOKUP):
            raise AttachError(
                f"another kproxy enforces {namespace.path}",
                "stop it, or take the endpoint out of one of the two endpoints files",
            )
        code = with_endpoint(self._program.instructions("kproxy_lookup"), endpoint)
        try:
            program = program_load(_SK_LOOKUP, _ATTACH_SK_LOOKUP, code, "kproxy_lookup")
            try:
                return link_create(program, namespace.fd, _ATTACH_SK_LOOKUP)
            finally:
                os.close(program)
        except OSError as error:
            raise _explain(error, f"sk_lookup cannot be attached to {namespace.path}") from error

    def on_event(self, callback: Callable[[Event], None]) -> int:
        """Have ``callback`` called for each record that :meth:`consume` finds; return a descriptor to poll."""
        self._consume = self._program.on_event(callback)
        return self._program.map_fd("events")

    def consume(self) -> None:
        """Hand over all records that are there."""
        self._consume()

    def _load(self, undo: contextlib.ExitStack) -> None:
        defines = {"FIRST_GRANT": FIRST_GRANT, "MESSAGE_COST": MESSAGE_COST, "MAX_SLOTS": self._slot_count}
        self._program = program = Program(defines)
        undo.callback(program.close)
        program.load(
            "kproxy_lookup", _SK_LOOKUP, _ATTACH_SK_LOOKUP
        )  # verified once, copied for each endpoint
        host = NetworkNamespace("/proc/self/ns/net")
        undo.callback(host.close)
        self.host_netns = host.cookie
        fd = program.map_fd
        self.policy = PolicyMaps(
            fd("control"), fd("identities"), fd("defaults"), fd("policy"), host_netns=host.cookie
        )
        self.sockets = SocketMarks(fd)
        self.counters = Counters(fd("counters"), fd("verdicts"))
        self._memory = program.map_memory("slots", self._slot_count * ct.sizeof(Slot))
        self.splicer = Splicer(self._memory, fd)
        undo.callback(self.splicer.close)

    def _give_out_slots(self) -> None:
        """Without slots nothing is ever spliced, and all goes by TCP."""
        if not all(feature.found for feature in self.features):
            return
        free = self._program.map_fd("free_slots")
        for index in range(self._slot_count):
            queue_push(free, ct.c_uint32(index))

    def _attach_splice(self) -> None:
        # To a map of our own: it goes with the map.
        program = self._program.load("kproxy_splice", _SK_MSG, _ATTACH_SK_MSG)
        program_attach(self._program.map_fd("spliced"), program, _ATTACH_SK_MSG)

    def other_agents(self) -> list[str]:
        """Return the names of sockops programs of others at the cgroup root.

        Their agents may put sockets into maps of their own; a socket can be in one such map only, so those are not
        spliced (they are counted as not_in_sockhash).
        """
        target = os.open(cgroup.root(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return [
                name or "unnamed"
                for name in programs_at(target, _ATTACH_SOCK_OPS)
                if name != "kproxy_sockops"
            ]
        finally:
            os.close(target)

    def _attach_cgroup(self, undo: contextlib.ExitStack) -> tuple[Feature, ...]:
        target = os.open(cgroup.root(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        undo.callback(os.close, target)
        for hook in _CGROUP_HOOKS:
            self._attach_hook(undo, target, *hook)
        return tuple(self._attach_guard(undo, target, *guard) for guard in _GUARDS)

    def _attach_guard(
        self, undo: contextlib.ExitStack, target: int, hook: tuple[str, int, int], cost: str
    ) -> Feature:
        """Attach what the node can do without, where the kernel does not have it."""
        name = f"packets are judged ({hook[0]})"
        try:
            self._attach_hook(undo, target, *hook)
        except CompileError:
            return Feature(name, False, cost)
        return Feature(name, True)

    def _attach_hook(
        self, undo: contextlib.ExitStack, target: int, name: str, kind: int, attach: int
    ) -> None:
        program = self._program.load(name, kind, attach)
        try:
            undo.callback(os.close, link_create(program, target, attach))
        except OSError as error:
            raise _explain(error, f"{name} cannot be attached to the cgroup v2 root") from error


def _explain(error: OSError, what: str) -> SockmapError:
    if error.errno == errno.EPERM:
        return NotPermittedError(
            f"{what}: not permitted", "run as root on the host, outside a container's seccomp profile"
        )
    if error.errno in (errno.EBUSY, errno.EEXIST):
        return AttachError(
            f"{what}: another program is there and excludes it",
            "see `bpftool cgroup tree` and `bpftool net`; stop the other agent or kproxy",
        )
    return AttachError(f"{what}: {error.strerror}", "see docs/operations.md for what the kernel must offer")
