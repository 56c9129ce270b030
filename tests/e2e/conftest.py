"""Pods that every end-to-end test shares; each test runs its own kproxy on them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pods import own_network
from rig import close_opened

from kproxy.demo.network import Network, PodSpec


@pytest.fixture(scope="session")
def network() -> Iterator[Network]:
    """A client, a server and a stranger on one bridge; the first name that no other run of these tests has."""
    pods = [
        PodSpec(name, labels={"app": name}, ports={"http": 80}) for name in ("client", "server", "stranger")
    ]
    with own_network("ke", pods) as made:
        yield made


@pytest.fixture(autouse=True)
def closed_sockets() -> Iterator[None]:
    """Whatever a test opened is closed after it, also when it failed."""
    yield
    close_opened()
