"""What the tests of the node's parts share."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def logging_stays() -> Iterator[None]:
    """Leave the process's logging as it was: some tests set it up as `kproxy run` does."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
