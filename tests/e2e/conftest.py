"""Pods that every end-to-end test shares; each test runs its own kproxy on them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from rig import close_opened

from kproxy.demo.network import Network, NetworkError, PodSpec


@pytest.fixture(scope="session")
def network() -> Iterator[Network]:
    """A client, a server and a stranger on one bridge; the first name that no other run of these tests has."""
    pods = [
        PodSpec(name, labels={"app": name}, ports={"http": 80}) for name in ("client", "server", "stranger")
    ]
    with ExitStack() as undo:
        for number in itertools.count():
            try:
                made = undo.enter_context(Network(f"ke{number}", pods))
                break
            except NetworkError as error:
                if "in use" not in str(error):
                    raise
        yield made


@pytest.fixture(autouse=True)
def closed_sockets() -> Iterator[None]:
    """Whatever a test opened is closed after it, also when it failed."""
    yield
    close_opened()
