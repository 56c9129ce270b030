"""The node's own addresses: whom the entity `host` means as a destination."""

from __future__ import annotations

from ipaddress import ip_address

from pyroute2 import IPRoute

from kproxy.config import Config
from sockmap.layout import IPAddress

_LOOPBACK_SCOPE = 254  # RT_SCOPE_HOST, include/uapi/linux/rtnetlink.h


def addresses(config: Config) -> frozenset[IPAddress]:
    """Return the configured addresses of this node, or where there are none, those of its links."""
    if config.node_addresses:
        return frozenset(ip_address(text) for text in config.node_addresses)
    with IPRoute() as netlink:
        found = [
            ip_address(message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS"))
            for message in netlink.get_addr()
            if message["scope"] != _LOOPBACK_SCOPE
        ]
    return frozenset(address for address in found if not address.is_loopback)
