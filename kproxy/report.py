"""What a running node says of itself, gathered from its parts: the NodeState behind /readyz and /status."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version

import msgspec

from kproxy.answers import Knowledge
from kproxy.carrier import Carrier
from kproxy.config import Config
from kproxy.directory import Directory
from kproxy.http1 import HttpOptions
from kproxy.lines import LineWriter
from kproxy.metrics import Metrics
from kproxy.parties import EndpointName
from kproxy.revision import Revision
from kproxy.state import EndpointStatus, FeatureStatus, Status
from sockmap.hooks import Hooks

VERSION = version("kproxy-node")


class Report:
    """Looks at the parts when it is asked.

    Args:
        ready: tells whether the hooks are attached and a policy is in force.
    """

    def __init__(
        self,
        config: Config,
        revision: Revision,
        hooks: Hooks,
        directory: Directory,
        carrier: Carrier,
        metrics: Metrics,
        lines: LineWriter | None,
        ready: Callable[[], bool],
    ) -> None:
        self._config, self._revision, self._hooks = config, revision, hooks
        self._directory, self._carrier = directory, carrier
        self._metrics, self._lines, self._ready = metrics, lines, ready

    def not_ready(self) -> Sequence[str]:
        """Give the reasons why the node is not ready.

        An endpoint whose namespace is not there is none: pods come and go, and the others are enforced.
        """
        return [] if self._ready() else ["the hooks are not attached, or no longer"]

    def status(self) -> Status:
        """Describe everything."""
        config, features = self._config, self._hooks.features
        return Status(
            node=config.node,
            version=VERSION,
            not_ready=tuple(self.not_ready()),
            fail_mode=config.fail_mode,
            policy_revision=self._revision.policy.revision,
            reload=self._revision.reload,
            endpoints=tuple(self._endpoints()),
            flows=len(self._carrier),
            features=tuple(FeatureStatus(name=one.name, found=one.found, cost=one.cost) for one in features),
            limits=msgspec.to_builtins(config.limits),
            limits_bit={name: cell.value for name, cell in self._metrics.limits.items()},
            access_log_lost=self._lines.lost_queue + self._lines.lost_write if self._lines else 0,
            access_log_trouble=self._lines.trouble if self._lines else "",
        )

    def knowledge(self) -> Knowledge:
        """Give what is in force; a policy revision is immutable."""
        failures = {str(name): detail for name, detail in self._directory.failures.items()}
        options = HttpOptions.of(self._config)
        return Knowledge(self._config.node, self._revision.policy, options, running=True, failures=failures)

    def _endpoints(self) -> Iterator[EndpointStatus]:
        for endpoint in self._revision.wanted.endpoints:
            enforced = self._directory.by_endpoint(endpoint)
            yield EndpointStatus(
                name=endpoint.key,
                state="enforced" if enforced else "failed" if endpoint.local else "peer",
                addresses=tuple(str(address) for address in endpoint.addresses),
                detail=self._directory.failures.get(EndpointName(endpoint.namespace, endpoint.name), ""),
                splice=bool(enforced and enforced.splice),
                flows=self._carrier.flows_of(enforced.name) if enforced else 0,
            )
