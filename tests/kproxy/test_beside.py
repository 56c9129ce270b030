"""Revisions are made and replaced without the collector of cyclic garbage."""

from __future__ import annotations

import gc
import weakref

import pytest

from kproxy import beside
from tests.kproxy.policies import allow, compiled


class Cycle:
    """Garbage that only the collector finds."""

    def __init__(self) -> None:
        self.itself = self


def test_a_revision_goes_by_itself() -> None:
    """With all that is worked out on demand; were there a cycle in it, each change would leave one behind."""
    with beside.traffic():
        revision = compiled(allow("server", "ingress", "client", http=[{"path": "/jobs/.*"}]))
        both = revision.endpoint("hr", "server")
        assert both.ingress.entries is not None
        gone = weakref.ref(revision), weakref.ref(both.ingress)
        del revision, both
        assert [one() for one in gone] == [None, None]


def test_other_garbage_goes_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was garbage at a change is found at the next look at everything."""
    monkeypatch.setattr(beside, "LOOK_EVERY", 10**9)
    with beside.traffic():
        assert not gc.isenabled()
        cycle = Cycle()
        gone = weakref.ref(cycle)
        del cycle
    gc.collect()
    assert gone() is not None
    assert gc.isenabled()
    monkeypatch.setattr(beside, "LOOK_EVERY", 1)
    with beside.traffic():
        pass
    assert gone() is None
