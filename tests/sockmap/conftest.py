"""Pods, and a rig on them for each module of kernel tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kernel_rig import Rig
from pods import own_network

from kproxy.demo.network import Network, PodSpec
from sockmap.hooks import Hooks

PODS = ("client", "server", "other")


@pytest.fixture(scope="session")
def network() -> Iterator[Network]:
    """Three pods on a bridge; the first name that no other run of these tests has."""
    with own_network("kt", [PodSpec(name) for name in PODS]) as made:
        yield made


@pytest.fixture(scope="module")
def module_rig(network: Network) -> Iterator[Rig]:
    """The programs, attached; `client` and `server` are under policy, `other` and the host are not."""
    with Hooks(slots=512) as hooks:
        rig = Rig(network, hooks)
        try:
            for name in ("client", "server"):
                rig.enforce(network[name])
            yield rig
        finally:
            rig.close()


@pytest.fixture
def rig(module_rig: Rig) -> Iterator[Rig]:
    """The module's rig, as new: everything passes, no socket is open."""
    module_rig.reset()
    yield module_rig
    module_rig.reset()
