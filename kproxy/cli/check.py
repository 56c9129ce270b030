"""`kproxy check`: every mistake in rules, endpoints and configuration, before anything runs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping

import policy
from kproxy import config, endpoints, host, rules, secrets
from kproxy.cli.text import counted, printable
from kproxy.config import Config
from kproxy.errors import FileError, Problem, UsageError
from kproxy.reload import problem


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("paths", nargs="*", metavar="PATH", help="rule files and folders of rule files")
    parser.add_argument("--endpoints", metavar="FILE", help="an endpoints file to check")
    parser.add_argument(
        "--config", metavar="FILE", help="a configuration to check, with the rules and endpoints it names"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def main(arguments: argparse.Namespace) -> int:
    """Print errors and warnings: exit code 0 without errors, 1 with some, 2 where nothing was named."""
    if not (arguments.paths or arguments.endpoints or arguments.config):
        raise UsageError("nothing to check", "name a PATH, --endpoints or --config")
    errors, warnings = _check(arguments)
    if arguments.json:
        print(json.dumps({"errors": _plain(errors), "warnings": _plain(warnings)}, indent=2))
    else:
        for one in errors:
            print(printable(str(one)))
        for one in warnings:
            print(printable(f"warning: {one}"))
        print(f"{counted(len(errors), 'error')}, {counted(len(warnings), 'warning')}")
    return 1 if errors else 0


def _check(arguments: argparse.Namespace) -> tuple[list[Problem], list[Problem]]:
    """Read everything that was named, and see whether the rules go together."""
    errors: list[Problem] = []
    paths, files = list(arguments.paths), [arguments.endpoints] if arguments.endpoints else []
    settings = _settings(arguments.config, errors) if arguments.config else None
    if settings is not None:
        paths += settings.rules
        files.append(settings.endpoints)
    workloads = list(_workloads(files, errors))
    texts = rules.read(paths)
    loaded = policy.load(texts.files)
    values = _secrets(settings, policy.secrets_named(loaded.rules))
    errors += [*texts.errors, *map(problem, loaded.errors), *values.errors]
    warnings = [*texts.warnings, *map(problem, loaded.warnings), *values.warnings]
    if not errors:
        failed, world = _compiled(loaded, workloads, files, _node(settings), values.values)
        errors += failed
        warnings += world
    return errors, warnings


def _settings(path: str, errors: list[Problem]) -> Config | None:
    try:
        return config.load(path)
    except FileError as error:
        errors += error.problems
        return None


def _node(settings: Config | None) -> policy.Node:
    if settings is None:
        return policy.Node()
    return policy.Node(tuple(host.addresses(settings)), settings.allow_localhost)


def _secrets(settings: Config | None, named: frozenset[str]) -> secrets.Found:
    """The secrets that rules name; without a configuration it is not known where they are, so none is missed."""
    if settings is None:
        return secrets.Found(secrets.Values(dict.fromkeys(named, b"?")), (), ())
    return secrets.read(settings.secrets, named)


def _workloads(files: Iterable[str], errors: list[Problem]) -> Iterator[policy.Workload]:
    """Read the endpoints files; what is wrong with them goes to `errors`."""
    for file in files:
        try:
            yield from (endpoint.workload() for endpoint in endpoints.load(file))
        except FileError as error:
            errors += error.problems


def _compiled(
    loaded: policy.Loaded,
    workloads: list[policy.Workload],
    files: list[str],
    node: policy.Node,
    values: Mapping[str, bytes],
) -> tuple[list[Problem], list[Problem]]:
    """What keeps rules from coming into force together; and where it is known who is there, what they miss."""
    try:
        compiled = policy.compile(loaded.rules, workloads, node, 0, secrets=values)
    except policy.CompileError as error:
        return [problem(one) for one in error.problems], []
    except policy.AddressConflict as error:
        return [Problem(files[-1], 0, "", str(error), "give each workload addresses of its own")], []
    return [], [problem(one) for one in compiled.warnings] if files else []


def _plain(problems: Iterable[Problem]) -> list[dict[str, str | int]]:
    return [one._asdict() for one in problems]
