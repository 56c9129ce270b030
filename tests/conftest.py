"""What every test shares: where BPF must be there, and where it may be missing."""

from __future__ import annotations

import os

import pytest

REQUIRE_BPF = "KPROXY_REQUIRE_BPF"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip kernel tests for those who are not root; fail them instead where BPF is said to be there."""
    if os.geteuid() == 0 or os.environ.get(REQUIRE_BPF):
        return
    skip = pytest.mark.skip(reason=f"needs root; set {REQUIRE_BPF}=1 to make this a failure")
    for item in items:
        if item.get_closest_marker("bpf"):
            item.add_marker(skip)
