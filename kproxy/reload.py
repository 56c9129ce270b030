"""What the files say: rules and endpoints, read and compiled together, all mistakes at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import policy
from kproxy import endpoints, rules
from kproxy.config import Config
from kproxy.endpoints import Endpoint
from kproxy.errors import FileError, Problem
from policy import NodePolicy
from policy.model import Mismatch
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
    rules: tuple[policy.Policy, ...]
    warnings: tuple[str, ...]

    def compile(self, config: Config, host_addresses: Iterable[IPAddress], revision: int) -> NodePolicy:
        """Compile for this node as it is now.

        Raises:
            FileError: the rules cannot be in force together.
        """
        node = policy.Node(tuple(host_addresses), config.allow_localhost)
        workloads = [one.workload() for one in self.endpoints]
        try:
            return policy.compile(self.rules, workloads, node, revision)
        except policy.CompileError as error:
            raise FileError([_problem(one) for one in error.problems]) from error
        except policy.AddressConflict as error:
            raise FileError([Problem(config.endpoints, 0, "", str(error))]) from error


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
    problems += [_problem(one) for one in loaded.errors]
    problems += unsupported(loaded.rules)
    if problems:
        raise FileError(problems)
    warnings = [str(one) for one in (*texts.warnings, *(_problem(one) for one in loaded.warnings))]
    return Wanted(found, loaded.rules, tuple(warnings))


def warnings(wanted: Wanted, compiled: NodePolicy) -> tuple[str, ...]:
    """What is worth a look in the files, and in what they mean on this node as it is now; each once."""
    found = (*wanted.warnings, *(str(_problem(one)) for one in compiled.warnings))
    return tuple(dict.fromkeys(found))


def unsupported(rules: Iterable[policy.Policy]) -> Iterator[Problem]:
    """Yield what the rule language has and this node cannot do yet: a rule is refused, never half obeyed."""
    for rule in (
        one for each in rules for way in (each.ingress, each.egress) for one in (*way.allow, *way.deny)
    ):
        for http in (http for port in rule.ports or () for http in port.http or ()):
            for match in http.header_matches:
                if match.secret:
                    yield _problem(http.place.problem("headerMatches with a secret are not supported yet"))
                elif match.mismatch in _EDITS:
                    told = f"headerMatches with mismatch {match.mismatch.value} are not supported yet"
                    yield _problem(http.place.problem(told))


_EDITS = (Mismatch.ADD, Mismatch.DELETE, Mismatch.REPLACE)


def _problem(found: policy.Problem) -> Problem:
    return Problem(found.file, found.line, found.pointer, found.message, found.mend)
