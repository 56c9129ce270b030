"""What can go wrong with the demonstration's network and programs."""

from __future__ import annotations

from kproxy.errors import KproxyError


class NetworkError(KproxyError):
    """The network could not be made."""

    exit_code = 4


class ProcessError(KproxyError):
    """A program did not start, did not become ready, or did not end as it should."""
