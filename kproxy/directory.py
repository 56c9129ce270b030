"""The endpoints that are enforced here: opened and closed as the file and their namespaces come and go."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from kproxy.endpoints import Endpoint
from kproxy.enforcement import EnforcedEndpoint
from kproxy.errors import KproxyError
from kproxy.neighbours import Neighbours
from kproxy.parties import EndpointName
from sockmap.diag import SockDiag
from sockmap.errors import SockmapError
from sockmap.hooks import Hooks
from sockmap.layout import IPAddress

_log = logging.getLogger(__name__)

MAX_ENDPOINTS = 1024  # the size of the BPF array of endpoints


class Changes(NamedTuple):
    """What became of endpoints: `opened` ones are not active yet, `changed` ones were in force throughout."""

    opened: list[EnforcedEndpoint]
    changed: list[EnforcedEndpoint]
    closed: list[EnforcedEndpoint]


class Directory:
    """Who is enforced here, and how to find them.

    Args:
        open_endpoint: opens an endpoint under a number.
        neighbours: the namespaces that are no endpoint's.
        host_netns: cookie of the host's namespace.

    Attributes:
        host_addresses: the node's own addresses.
        failures: why an endpoint that is wanted is not open.
        before_close: called with each endpoint before it is closed.
    """

    def __init__(
        self,
        open_endpoint: Callable[[int, Endpoint], EnforcedEndpoint],
        neighbours: Neighbours,
        host_netns: int,
    ) -> None:
        self._open_endpoint = open_endpoint
        self._neighbours, self.host_netns = neighbours, host_netns
        self._wanted: dict[EndpointName, Endpoint] = {}
        self._open: dict[EndpointName, EnforcedEndpoint] = {}
        self._by_netns: dict[int, EnforcedEndpoint] = {}
        self._by_address: dict[IPAddress, EnforcedEndpoint] = {}
        self._free = list(range(MAX_ENDPOINTS - 1, -1, -1))
        self.host_addresses: frozenset[IPAddress] = frozenset()
        self.failures: dict[EndpointName, str] = {}
        self.before_close: Callable[[EnforcedEndpoint], None] = lambda _endpoint: None

    def __iter__(self) -> Iterator[EnforcedEndpoint]:
        """Yield those that are open."""
        return iter(list(self._open.values()))

    def want(self, endpoints: Iterable[Endpoint]) -> Changes:
        """Make these the endpoints.

        One that cannot be opened is logged, kept in :attr:`failures`, and tried again by :meth:`check`.
        """
        self._wanted = _local(endpoints)
        return self.check()

    def numbers(self, endpoints: Iterable[Endpoint]) -> dict[int, EndpointName]:
        """Tell which numbers of those that are open will mean which of these endpoints, once they are wanted."""
        wanted = _local(endpoints)
        named = {enforced.number: self._successor(enforced, wanted) for enforced in self}
        return {number: name for number, name in named.items() if name is not None}

    def check(self) -> Changes:
        """Close what is no longer wanted or whose namespace is gone, and open what is missing."""
        successors = {enforced: self._successor(enforced, self._wanted) for enforced in self}
        closed = [enforced for enforced, name in successors.items() if name is None]
        for enforced in closed:
            self._close(enforced)
        # Two may have swapped their names.
        self._open = {name: enforced for enforced, name in successors.items() if name is not None}
        changed = self._change()
        missing = [(name, endpoint) for name, endpoint in self._wanted.items() if name not in self._open]
        opened = [made for name, endpoint in missing if (made := self._try_open(name, endpoint))]
        self.failures = {name: why for name, why in self.failures.items() if name in self._wanted}
        return Changes(opened, changed, closed)

    @staticmethod
    def _successor(
        enforced: EnforcedEndpoint, wanted: Mapping[EndpointName, Endpoint]
    ) -> EndpointName | None:
        """What an endpoint goes on as: itself, or another name for its namespace; None if it does not go on.

        Its traffic is then under policy throughout, where closing and opening would leave a gap.
        """
        if enforced.stays(wanted.get(enforced.name)):
            return enforced.name
        return next((name for name, endpoint in wanted.items() if enforced.stays(endpoint)), None)

    def _change(self) -> list[EnforcedEndpoint]:
        """Have endpoints that stay in their namespaces take over what the file now says of them.

        Two may have swapped an address, so all let go of theirs first.
        """
        changed = {
            enforced: self._wanted[name]
            for name, enforced in self._open.items()
            if enforced.endpoint != self._wanted[name]
        }
        for enforced, endpoint in changed.items():
            self._forget_addresses(enforced)
            enforced.let_go_of_addresses(endpoint.addresses)
        for enforced, endpoint in changed.items():
            enforced.change(endpoint)
            self._by_address.update((address, enforced) for address in endpoint.addresses)
        return list(changed)

    def by_endpoint(self, endpoint: Endpoint) -> EnforcedEndpoint | None:
        """Return what is open for an entry of the endpoints file."""
        return self._open.get(EndpointName(endpoint.namespace, endpoint.name))

    def by_number(self, number: int) -> EnforcedEndpoint | None:
        """Return the open endpoint that has a number in the BPF maps."""
        return next((enforced for enforced in self if enforced.number == number), None)

    def by_netns(self, cookie: int) -> EnforcedEndpoint | None:
        """Return the open endpoint of a namespace."""
        return self._by_netns.get(cookie)

    def by_address(self, address: IPAddress) -> EnforcedEndpoint | None:
        """Return the open endpoint that has an address."""
        return self._by_address.get(address)

    def diag(self, cookie: int) -> SockDiag | None:
        """Return sock_diag of a namespace, where there is one."""
        enforced = self._by_netns.get(cookie)
        return enforced.diag if enforced else self._neighbours.diag(cookie)

    def give_up(self, enforced: EnforcedEndpoint, why: str) -> None:
        """Close an endpoint that could not be put under policy, and say so until it can."""
        self._close(enforced)
        self._failed(enforced.name, why)

    def close(self) -> None:
        """Close all of them."""
        for enforced in self:
            self._close(enforced)

    def _try_open(self, name: EndpointName, endpoint: Endpoint) -> EnforcedEndpoint | None:
        if not self._free:
            self._failed(name, f"more than {MAX_ENDPOINTS} endpoints on one node")
            return None
        number = self._free.pop()
        try:
            enforced = self._open_endpoint(number, endpoint)
        except (SockmapError, KproxyError) as error:
            self._free.append(number)
            self._failed(name, f"{error}; {error.mend}")
            return None
        self.failures.pop(name, None)
        self._open[name] = enforced
        self._by_netns[enforced.namespace.cookie] = enforced
        self._by_address.update((address, enforced) for address in endpoint.addresses)
        return enforced

    def _failed(self, name: EndpointName, why: str) -> None:
        if self.failures.get(name) != why:
            _log.error("endpoint %s is not enforced: %s", name, why)
        self.failures[name] = why

    def _close(self, enforced: EnforcedEndpoint) -> None:
        del self._open[enforced.name]
        del self._by_netns[enforced.namespace.cookie]
        self._forget_addresses(enforced)
        self.before_close(enforced)
        enforced.close()
        self._free.insert(0, enforced.number)  # the number that was free longest is used next

    def _forget_addresses(self, enforced: EnforcedEndpoint) -> None:
        for address in enforced.endpoint.addresses:
            self._by_address.pop(address, None)


def _local(endpoints: Iterable[Endpoint]) -> dict[EndpointName, Endpoint]:
    return {EndpointName(one.namespace, one.name): one for one in endpoints if one.local}


def opener(hooks: Hooks, splice: bool) -> Callable[[int, Endpoint], EnforcedEndpoint]:
    """Return what opens endpoints with these hooks."""
    return lambda number, endpoint: EnforcedEndpoint(number, endpoint, hooks, splice)
