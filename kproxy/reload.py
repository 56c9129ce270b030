"""What the files say: rules and endpoints, read and compiled together, all mistakes at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import policy
from kproxy import endpoints, rules
from kproxy.config import Config
from kproxy.endpoints import Endpoint
from kproxy.errors import FileError, Problem
from policy import NodePolicy, Workload
from sockmap.layout import IPAddress


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the files ask for.

    Attributes:
        endpoints: every workload.
        rules: the loaded rules, ready to be compiled.
        warnings: what was accepted but is worth a look.
    """

    endpoints: tuple[Endpoint, ...]
    rules: policy.Rules
    warnings: tuple[str, ...]

    def compile(self, config: Config, host_addresses: Iterable[IPAddress], revision: int) -> NodePolicy:
        """Compile for this node as it is now."""
        node = policy.Node(tuple(host_addresses), config.allow_localhost)
        return policy.compile(self.rules, [workload_of(one) for one in self.endpoints], node, revision)


def read(config: Config) -> Wanted:
    """Read endpoints and rules.

    Raises:
        FileError: with every mistake of every file.
    """
    problems: list[Problem] = []
    found: tuple[Endpoint, ...] = ()
    try:
        found = endpoints.load(config.endpoints)
    except FileError as error:
        problems += error.problems
    texts = rules.read(config.rules)
    problems += texts.errors
    loaded = policy.load(texts.files)
    problems += [Problem(one.file, one.line, one.pointer, one.message, one.mend) for one in loaded.errors]
    if problems:
        raise FileError(problems)
    warnings = [str(warning) for warning in (*texts.warnings, *loaded.warnings)]
    return Wanted(found, loaded.rules, tuple(warnings))


def workload_of(endpoint: Endpoint) -> Workload:
    """Return an endpoint as the policy knows it."""
    return Workload(
        name=endpoint.name,
        namespace=endpoint.namespace,
        labels=endpoint.labels,
        addresses=endpoint.addresses,
        ports=endpoint.ports,
        local=endpoint.local,
    )
