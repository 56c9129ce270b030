"""What the kernel is probed for, and how a node does without."""

from __future__ import annotations

from typing import Any

import pytest
from kernel_rig import ANNOUNCE, DENY, EGRESS, PASS, REDIRECT, SPLICE, Rig, Rule, receive

from kproxy.demo.network import Network
from sockmap import hooks as hooks_module
from sockmap.errors import CompileError
from sockmap.features import Feature
from sockmap.hooks import Hooks
from sockmap.layout import NO_SLOT, Counter
from sockmap.program import Program

pytestmark = pytest.mark.bpf


def test_this_kernel_has_all_of_it() -> None:
    """The rest of these tests rely on it; where one is missing, its name and its cost are told."""
    with Hooks(slots=8) as hooks:
        assert [(feature.name, feature.cost) for feature in hooks.features if not feature.found] == []


def test_the_probe_leaves_no_trace(network: Network) -> None:
    """Its two sockets were spliced: their slots are nobody's again, and what they sent is not counted."""
    with Hooks(slots=8) as hooks:
        assert not any(hooks.counters.read().values())
        for slot in (0, 1):
            found = hooks.splicer.snapshot(slot)
            assert (found.cookie, found.bytes, found.mode_generation) == (0, 0, 2 << 32 | 1)


def test_without_the_splice_everything_goes_by_tcp(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that does not charge redirected bytes to their reader: no slot is given out, flows work."""
    missing = (Feature("redirected bytes are charged to their reader", False, "no splice"),)
    monkeypatch.setattr(hooks_module, "probe_splice", lambda *_: missing)
    with Hooks(slots=8) as hooks:
        rig = Rig(network, hooks)
        try:
            for name in ("client", "server"):
                rig.enforce(network[name])
            rig.policy(Rule("client", EGRESS, REDIRECT))
            with rig.counting() as counted:
                flow = rig.egress("client", "server", flags=SPLICE | ANNOUNCE)
                for _, sender, reader in flow.ways():
                    sender.sendall(b"by TCP")
                    assert receive(reader, 6) == b"by TCP"
            assert set(flow.slots.values()) == {NO_SLOT}
            assert counted[Counter.NO_SLOT] > 0
        finally:
            rig.close()


def test_without_the_guards_the_rest_is_in_force(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel whose cgroup_skb programs cannot tell the namespace: named with its cost; the hooks hold."""
    load = Program.load

    def refusing(program: Program, name: str, *numbers: Any) -> int:
        if name in ("kproxy_leaving", "kproxy_arriving"):
            raise CompileError(f"the kernel refuses BPF program {name!r}", "")
        return load(program, name, *numbers)

    monkeypatch.setattr(Program, "load", refusing)
    with Hooks(slots=8) as hooks:
        missing = [feature for feature in hooks.features if not feature.found]
        assert len(missing) == 2
        assert all("around" in feature.cost for feature in missing)
        rig = Rig(network, hooks)
        try:
            rig.enforce(network["client"])
            rig.policy(defaults={"client": (PASS, DENY)})
            with pytest.raises(PermissionError):
                rig.socket("client").connect((str(network["server"].v4), 80))
        finally:
            rig.close()
