"""Two pods, and peers in other languages to put into them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import programs
import pytest
from programs import Peer

from kproxy.demo.network import Network, PodSpec

PORT = 80
PODS = (
    PodSpec("server", "test", {"app": "server"}, {"http": PORT}),
    PodSpec("client", "test", {"app": "client"}),
)


@pytest.fixture(scope="session")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Peer]:
    """Every peer by its language."""
    return {peer.name: peer for peer in (programs.node(), programs.go(tmp_path_factory.mktemp("go")))}


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    """Two pods of the namespace `test`: server and client."""
    with Network("kp-t-peers", PODS) as network:
        yield network
