"""The BPF counters as the metrics want them: by path and way, by endpoint and verdict."""

from __future__ import annotations

from collections.abc import Callable

from kproxy.directory import Directory
from kproxy.metrics import KernelSnapshot
from sockmap.counters import Counters
from sockmap.layout import Counter, Role

_FALLBACKS = {
    "no_credit": Counter.TO_TCP_NO_CREDIT,
    "no_peer": Counter.TO_TCP_NO_PEER,
    "redirect_failed": Counter.TO_TCP_REDIRECT_FAILED,
    "no_slot": Counter.NO_SLOT,
    "not_in_sockhash": Counter.NOT_IN_SOCKHASH,
    "handshakes_full": Counter.HANDSHAKES_FULL,
}
# The socket whose send() carries each way: requests from client and upstream, responses from server and proxy.
_REQUEST, _RESPONSE = (Role.CLIENT, Role.UPSTREAM), (Role.SERVER, Role.PROXY)


class MapCounters:
    """Reads the maps for each scrape.

    Args:
        carried: returns the bytes that crossed kproxy's own sockets, (request way, response way), both legs.
    """

    def __init__(
        self, counters: Counters, directory: Directory, carried: Callable[[], tuple[int, int]]
    ) -> None:
        self._counters, self._directory, self._carried = counters, directory, carried

    def snapshot(self) -> KernelSnapshot:
        """Read them all."""
        counted = self._counters.read()
        return KernelSnapshot(
            bytes_moved=self._bytes_moved(),
            fallbacks={reason: counted[counter] for reason, counter in _FALLBACKS.items()},
            untold={
                "deny": counted[Counter.DENIALS_UNTOLD],
                "audit": counted[Counter.AUDITS_UNTOLD],
            },
            unclaimed_redirects=counted[Counter.REDIRECTS_LOST],
            verdicts={
                (str(endpoint.name), direction.name.lower(), action.name.lower()): count
                for endpoint in self._directory
                for (direction, action), count in self._counters.verdicts(endpoint.number).items()
            },
        )

    def _bytes_moved(self) -> dict[tuple[str, str], int]:
        """Spliced is what sk_msg redirected; the rest of what kproxy carried went through TCP."""
        spliced = self._counters.bytes_by_role(Counter.SPLICED_BYTES)
        moved: dict[tuple[str, str], int] = {}
        for way, roles, carried in zip(
            ("request", "response"), (_REQUEST, _RESPONSE), self._carried(), strict=True
        ):
            by_splice = sum(spliced[role] for role in roles)
            moved["spliced", way] = by_splice
            # A redirected byte may be counted in the map before kproxy has read it.
            moved["tcp", way] = max(0, carried - by_splice)
        return moved
