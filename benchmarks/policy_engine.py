"""What judging a request and compiling policies cost, and how little that grows with the number of rules.

`python -m benchmarks.policy_engine` prints a table and writes benchmarks/results/policy_engine.json. Pure
computation: no root, no network. All figures of one row's ratio come from one process and one run, and the
sizes are measured in turns, so that a machine that slows down slows all of them. Time is this thread's own time
on a processor, and the least of several turns: what others do to the machine only adds to it.
"""

from __future__ import annotations

import gc
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import policy
from benchmarks import machine
from policy.httprules import HttpRules, Miss
from policy.indexes import MAX_STEPS
from policy.model import HttpRule

SIZES = (1, 10, 100, 1_000, 10_000)
REQUESTS = 10_000
TURNS = 9
LONGEST_PATH = 8_192
RESULT = Path(__file__).parent / "results" / "policy_engine.json"


@dataclass(slots=True)
class Request:
    """A request as the parser describes it."""

    method: bytes
    path: bytes
    host: bytes = b"jobs.hr"
    headers: Sequence[tuple[bytes, bytes]] = ()


@dataclass(frozen=True)
class Shape:
    """A family of rules: the i-th rule, and a request that only it matches, new each time."""

    name: str
    rule: Callable[[int], dict[str, Any]]
    request: Callable[[int, int], Request]
    matches: bool = True


SHAPES = (
    Shape(
        "path with a number",
        lambda i: {"method": "GET", "path": f"/svc{i}/jobs/[0-9]+"},
        lambda i, n: Request(b"GET", b"/svc%d/jobs/%d" % (i, n)),
    ),
    Shape(
        "path with a pattern",
        lambda i: {"method": "GET", "path": f"/svc{i}/jobs/[a-z0-9-]+/log"},
        lambda i, n: Request(b"GET", b"/svc%d/jobs/%x/log" % (i, n)),
    ),
    Shape(
        "path, beginnings of many lengths",
        lambda i: {"method": "GET", "path": f"/{'x' * (i % 37)}svc{i}/[a-z0-9-]+"},
        lambda i, n: Request(b"GET", b"/%bsvc%d/%x" % (b"x" * (i % 37), i, n)),
    ),
    Shape(
        "path with a plain element inside",
        lambda i: {"method": "GET", "path": f"/v[0-9]+/svc{i}/.*"},
        lambda i, n: Request(b"GET", b"/v1/svc%d/%x" % (i, n)),
    ),
    Shape(
        "whole path",
        lambda i: {"method": "GET", "path": f"/svc{i}/jobs"},
        lambda i, n: Request(b"GET", b"/svc%d/jobs" % i),
    ),
    Shape(
        "host",
        lambda i: {"method": "GET", "path": "/jobs/[0-9]+", "host": rf"svc{i}\.hr"},
        lambda i, n: Request(b"GET", b"/jobs/%d" % n, b"svc%d.hr" % i),
    ),
    Shape(
        "any host below",
        lambda i: {"method": "GET", "path": "/jobs/[0-9]+", "host": rf".*\.svc{i}\.hr"},
        lambda i, n: Request(b"GET", b"/jobs/%d" % n, b"pod%d.svc%d.hr" % (n, i)),
    ),
    Shape(
        "header",
        lambda i: {"method": "GET", "path": "/jobs/[0-9]+", "headers": [f"X-Team: t{i}"]},
        lambda i, n: Request(b"GET", b"/jobs/%d" % n, b"x", [(b"accept", b"*/*"), (b"x-team", b"t%d" % i)]),
    ),
    Shape(
        "path with a plain end",
        lambda i: {"method": "GET", "path": f".*/[a-z]+-svc{i}"},
        lambda i, n: Request(b"GET", b"/%x/ab-svc%d" % (n, i)),
    ),
    Shape(
        "prefix of whole elements",
        lambda i: {"pathPrefix": f"/svc{i}/jobs"},
        lambda i, n: Request(b"GET", b"/svc%d/jobs/%d" % (i, n)),
    ),
    Shape(
        "nothing matches: another path",
        lambda i: {"method": "GET", "path": f"/svc{i}/jobs/[0-9]+"},
        lambda i, n: Request(b"GET", b"/none%d/jobs/%d" % (i, n)),
        matches=False,
    ),
    Shape(
        "nothing matches: only the end differs",
        lambda i: {"method": "GET", "path": f"/svc{i}/jobs/[0-9]+"},
        lambda i, n: Request(b"GET", b"/svc%d/jobs/%dx" % (i, n)),
        matches=False,
    ),
)


def http_rules(count: int, rule: Callable[[int], dict[str, Any]]) -> tuple[HttpRule, ...]:
    """That many rules of a shape, loaded."""
    document = [_document("jobs", [rule(i) for i in range(count)], kind="kproxy")]
    loaded = policy.load([("rules.json", json.dumps(document))])
    assert not loaded.errors, loaded.errors
    ports = loaded.rules[0].ingress.allow[0].ports
    assert ports is not None
    return ports[0].http or ()


def _document(app: str, http: list[dict[str, Any]], peer: str = "", kind: str = "cilium") -> dict[str, Any]:
    rules = {"http": http} if kind == "cilium" else {"kproxy": {"http": http}}
    ports = [{"ports": [{"port": "80", "protocol": "TCP"}], "rules": rules}]
    peers = {"fromEndpoints": [{"matchLabels": {"app": peer}}]} if peer else {}
    return {"endpointSelector": {"matchLabels": {"app": app}}, "ingress": [peers | {"toPorts": ports}]}


def verdicts(shape: Shape) -> list[dict[str, Any]]:
    """Time for one verdict at each size, and its ratio to that with ten rules in the same turn.

    `even`: requests spread evenly over the rules, so that with ten thousand each verdict finds a rule that no
    verdict before has brought into the processor's cache. `skewed`: as real ones are, the i-th rule is asked
    for in proportion to 1/i.
    """
    judges = {size: HttpRules(http_rules(size, shape.rule), (), Miss("none", "")) for size in SIZES}
    asked = {spread: _requests(shape, spread) for spread in ("even", "skewed")}
    keys = [(size, spread) for spread in asked for size in SIZES]
    for size, spread in keys:
        answers = (judges[size].judge(one).allowed is shape.matches for one in asked[spread][size])
        assert all(answers), (shape.name, size)
    gc.collect()
    turns = [{key: _verdict_us(judges[key[0]], asked[key[1]][key[0]]) for key in keys} for _ in range(TURNS)]
    least = {key: min(turn[key] for turn in turns) for key in keys}
    return [
        {"workload": f"verdict: {shape.name}", "rules": size}
        | {f"us_{spread}": least[size, spread] for spread in asked}
        | {f"ratio_to_10_{spread}": least[size, spread] / least[10, spread] for spread in asked}
        for size in SIZES
    ]


def _requests(shape: Shape, spread: str) -> dict[int, list[Request]]:
    """Equally many requests for each size, made in turns: no size has better memory for its own."""
    chances = {size: random.Random(1) for size in SIZES}
    drawn = {
        size: chance.choices(range(size), _weights(size, spread), k=REQUESTS)
        for size, chance in chances.items()
    }
    requests: dict[int, list[Request]] = {size: [] for size in SIZES}
    for turn in range(REQUESTS):
        for size, chance in chances.items():
            requests[size].append(shape.request(drawn[size][turn], chance.randrange(10**9)))
    return requests


def _weights(size: int, spread: str) -> list[float] | None:
    return [1 / (i + 1) for i in range(size)] if spread == "skewed" else None


def _verdict_us(judge: HttpRules, requests: Sequence[Request]) -> float:
    ask = judge.judge
    begin = time.thread_time_ns()
    for request in requests:
        ask(request)
    return (time.thread_time_ns() - begin) / len(requests) / 1_000


def stalling() -> dict[str, Any]:
    """The longest path against the most that loose patterns may cost: what one request can stall the node.

    A counted repetition behind a star makes a state of the automaton for nearly every byte.
    """
    rules = http_rules(2, lambda i: {"path": f"/.*{'ab'[i]}.{{230}}"})
    judge = HttpRules(rules, (), Miss("none", ""))
    chance = random.Random(2)
    worst = 0.0
    for _ in range(20):
        path = b"/" + bytes(chance.choice(b"ab") for _ in range(LONGEST_PATH - 1))
        begin = time.thread_time_ns()
        judge.judge(Request(b"GET", path))
        worst = max(worst, (time.thread_time_ns() - begin) / 1e6)
    steps = sum(rule.path.program for rule in rules if rule.path)
    return {
        "workload": f"worst path of {LONGEST_PATH} bytes",
        "steps": steps,
        "most_steps": MAX_STEPS,
        "ms": worst,
    }


def loading(count: int) -> dict[str, Any]:
    """Reading rules (JSON, with every check and warning), and compiling them."""
    documents = [
        _document(f"app{i % 50}", [{"method": "GET", "path": f"/svc{i}/[0-9]+"}], f"app{i % 17}")
        for i in range(count)
    ]
    text = json.dumps(documents)
    begin = time.perf_counter()
    loaded = policy.load([("rules.json", text)])
    read = time.perf_counter()
    policy.compile(loaded.rules, _workloads(50, 50), policy.Node(), 1)
    return {
        "workload": "rules read and compiled",
        "rules": count,
        "read_s": read - begin,
        "compile_s": time.perf_counter() - read,
    }


def fleet(workloads: int, policies: int, local: int) -> dict[str, Any]:
    """A large cluster seen from one node with `local` endpoints of its own."""
    documents = [
        _document(f"app{i}", [{"method": "GET", "path": f"/p{i}/.*"}], f"app{(i * 7) % policies}")
        for i in range(policies)
    ]
    loaded = policy.load([("rules.json", json.dumps(documents))])
    known = _workloads(workloads, policies, local)
    begin = time.perf_counter()
    revision = policy.compile(loaded.rules, known, policy.Node(), 1)
    compiled = time.perf_counter()
    entries = sum(len(revision.endpoint(w.namespace, w.name).ingress.entries) for w in known if w.local)
    return {
        "workload": f"{workloads} workloads, {local} of them local",
        "rules": policies,
        "compile_s": compiled - begin,
        "entries": entries,
        "identities": len({prefix.identity for prefix in revision.prefixes}),
    }


def _workloads(count: int, apps: int, local: int | None = None) -> list[policy.Workload]:
    return [
        policy.Workload(
            f"w{i}",
            "hr",
            {"app": f"app{i % apps}", "pod": str(i)},
            (ip_address(0x0A000000 + i),),
            {"http": 80},
            local=local is None or i < local,
        )
        for i in range(count)
    ]


def _shown(value: float) -> str:
    return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"


def main() -> None:
    """Measure, print, write."""
    rows = [row for shape in SHAPES for row in verdicts(shape)]
    rows += [stalling(), loading(1_000), loading(10_000)]
    rows += [fleet(1_000, 1_000, 100), fleet(10_000, 1_000, 250)]
    for row in rows:
        figures = "   ".join(f"{key} {_shown(value)}" for key, value in row.items() if key != "workload")
        print(f"{row['workload']:42} {figures}")
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps({**machine.describe(), "rows": rows}, indent=1) + "\n")
    print(f"written: {RESULT}", file=sys.stderr)


if __name__ == "__main__":
    main()
