"""What the files say: rules, endpoints and secrets, read and compiled together, all mistakes at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import policy
from kproxy import endpoints, rules, secrets
from kproxy.config import Config
from kproxy.endpoints import Endpoint
from kproxy.errors import FileError, Problem
from kproxy.secrets import Values
from policy import NodePolicy
from sockmap.layout import IPAddress


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the files ask for.

    Attributes:
        endpoints: every workload.
        rules: the loaded rules, ready to be compiled.
        secrets: the values that they name and that are there.
        warnings: what was accepted but is worth a look.
    """

    endpoints: tuple[Endpoint, ...]
    rules: tuple[policy.Policy, ...]
    secrets: Values
    warnings: tuple[str, ...]

    def compile(self, config: Config, host_addresses: Iterable[IPAddress], revision: int) -> NodePolicy:
        """Compile for this node as it is now.

        Raises:
            FileError: the rules cannot be in force together.
        """
        node = policy.Node(tuple(host_addresses), config.allow_localhost)
        workloads = [one.workload() for one in self.endpoints]
        try:
            return policy.compile(self.rules, workloads, node, revision, secrets=self.secrets)
        except policy.CompileError as error:
            raise FileError([problem(one) for one in error.problems]) from error
        except policy.AddressConflict as error:
            raise FileError([Problem(config.endpoints, 0, "", str(error))]) from error


def read(config: Config) -> Wanted:
    """Read endpoints, rules, and the secrets that the rules name.

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
    problems += [problem(one) for one in loaded.errors]
    values = secrets.read(config.secrets, policy.secrets_named(loaded.rules))
    problems += values.errors
    if problems:
        raise FileError(problems)
    told = (*texts.warnings, *map(problem, loaded.warnings), *values.warnings)
    return Wanted(found, loaded.rules, values.values, tuple(map(str, told)))


def warnings(wanted: Wanted, compiled: NodePolicy) -> tuple[str, ...]:
    """What is worth a look in the files, and in what they mean on this node as it is now; each once."""
    found = (*wanted.warnings, *(str(problem(one)) for one in compiled.warnings))
    return tuple(dict.fromkeys(found))


def problem(found: policy.Problem) -> Problem:
    """Give what policy found the form in which files are told of."""
    return Problem(found.file, found.line, found.pointer, found.message, found.mend)
