"""Long work on a thread beside traffic: what Python does by default would have requests wait for it.

The collector of cyclic garbage looks at every object while all threads wait: 0.1 s and more for a policy of ten
thousand workloads, and compiling one sets it off several times. A revision has no cycles, so it goes by reference
count when it is replaced; it need not be looked at, neither while it is made nor while it is in force.

A thread that computes is asked to let others go on after 5 ms only, and a request needs several turns of the loop.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

SWITCH_S = 0.0005
"""How long the thread may keep the loop waiting: it halves the 99th percentile of requests meanwhile."""

LOOK_EVERY = 100
"""After so many changes everything is looked at once: what else was garbage at a change is kept until then."""

_changes = count(1)


@contextmanager
def traffic() -> Iterator[None]:
    """Collect nothing within the block and switch threads more often; look no more at what it leaves behind."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    gc.disable()
    try:
        yield
    finally:
        if next(_changes) % LOOK_EVERY == 0:
            gc.unfreeze()
            gc.collect()
        gc.freeze()
        gc.enable()
        sys.setswitchinterval(interval)
