"""Networks of pods for tests, under names that no other run of them has."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from kproxy.demo.network import Network, NetworkError, PodSpec


@contextmanager
def own_network(prefix: str, pods: Iterable[PodSpec]) -> Iterator[Network]:
    """A network under the first name of this prefix that no other process has."""
    specs = tuple(pods)
    with ExitStack() as undo:
        for number in itertools.count():
            try:
                made = undo.enter_context(Network(f"{prefix}{number}", specs))
                break
            except NetworkError as error:
                if "in use" not in str(error):
                    raise
        yield made
