"""Requests of one peer on one port into HTTP rules: as few as say what was seen, and a bounded number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from policy.generalise import cut, escape, generalise
from policy.indexes import MAX_STEPS
from policy.patterns import BadPattern, pattern
from policy.records import Record, counted

# So many words in one place may be names of things; that is for a person to say.
MANY_WORDS = 10
# No one reviews more rules for one port; what is asked for most is kept.
MAX_RULES = 1_000
# So many requests are shown for each rule, and so much of each.
EXAMPLES = 5
_LONGEST_EXAMPLE = 200


@dataclass(slots=True)
class Requests:
    """Requests that one rule stands for."""

    host: str
    pattern: str
    """RE2, for all of the path."""
    methods: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Each method with the paths that were seen with it."""
    count: int = 0
    refused: int = 0

    def rule(self) -> dict[str, str]:
        """As an HTTP rule of Cilium's."""
        # The end is written where a path ends with a slash, to say that nothing below it is meant.
        end = "$" if self.pattern.endswith("/") and self.pattern != "/" else ""
        rule = {
            "method": "|".join(escape(method) for method in sorted(self.methods)),
            "path": self.pattern + end,
        }
        return rule | ({"host": escape(self.host)} if self.host else {})

    @property
    def examples(self) -> tuple[str, ...]:
        """Some of the requests themselves, each once."""
        every = (f"{method} {path}" for method in sorted(self.methods) for path in self.methods[method])
        return tuple(_short(one) for one in islice(every, EXAMPLES))

    @property
    def example(self) -> str:
        """The first of them."""
        return self.examples[0]


@dataclass(frozen=True, slots=True)
class LearnedHttp:
    """The rules of one port, and what a person should know of them."""

    requests: tuple[Requests, ...]
    notes: tuple[str, ...]


def learn_requests(name: str, records: Sequence[Record], *, with_host: bool) -> LearnedHttp:
    """The rules for these requests; `with_host`: the host is part of what was asked for."""
    seen: dict[tuple[str, str], Counter[str]] = {}
    refused: Counter[tuple[str, str, str]] = Counter()
    named = [record for record in records if record.host or not with_host]
    for record in named:
        key = (record.method.decode(), record.host.decode().lower() if with_host else "")
        path = record.path.decode()
        seen.setdefault(key, Counter())[path] += 1
        refused[(*key, path)] += record.refused
    found: dict[tuple[str, str], Requests] = {}
    hostless = len(records) - len(named)
    notes = [f"{name}: {counted(hostless, 'request')} left out: no host is named"] if hostless else []
    for (method, host), count in sorted(seen.items()):
        patterns = generalise(count)
        notes += _many_words(name, method, [one.paths[0] for one in patterns if len(one.paths) == 1])
        for one in patterns:
            own = found.setdefault((host, one.pattern), Requests(host, one.pattern))
            own.methods[method] = one.paths
            own.count += sum(count[path] for path in one.paths)
            own.refused += sum(refused[method, host, path] for path in one.paths)
    kept, left_out = _bounded(found.values())
    if left_out:
        total = sum(one.count for one in left_out)
        notes.append(
            f"{name}: {counted(total, 'request')} of {counted(len(left_out), 'kind')} left out, such as "
            f"{left_out[0].example}: more than one port can have rules for; write a pattern for them"
        )
    return LearnedHttp(tuple(sorted(kept, key=lambda one: (one.host, one.pattern))), tuple(notes))


def _bounded(found: Iterable[Requests]) -> tuple[list[Requests], list[Requests]]:
    """What is asked for most, as far as it makes rules that load; and the rest."""
    kept: list[Requests] = []
    left_out: list[Requests] = []
    steps = MAX_STEPS // 2
    for one in sorted(found, key=lambda one: (-one.count, one.host, one.pattern)):
        cost = _cost(one.pattern) if len(kept) < MAX_RULES else None
        if cost is None or cost > steps:
            left_out.append(one)
        else:
            steps -= cost
            kept.append(one)
    return kept, left_out


def _cost(path: str) -> int | None:
    """What a pattern costs beside others: nothing if it begins with a plain element. None: it is too long."""
    try:
        known = pattern(path)
    except BadPattern:
        return None
    return 0 if known.words or len(known.head) > 1 else known.program


def _many_words(name: str, method: str, paths: Iterable[str]) -> list[str]:
    """Places in which many words were seen, as a question to a person."""
    below = Counter(_before_last(path) for path in paths)
    return [
        f"{name}: {number} names below {method} {parent} are allowed one by one; if they are values of a "
        f"parameter, write {escape(parent)}{'[^/]+' if '?' not in parent else '[^&]*'} instead"
        for parent, number in sorted(below.items())
        if number >= MANY_WORDS
    ]


def _short(request: str) -> str:
    return request if len(request) <= _LONGEST_EXAMPLE else f"{request[:_LONGEST_EXAMPLE]}…"


def _before_last(path: str) -> str:
    """A path without its last element, or the value of its last query parameter."""
    return "".join(cut(path)[:-1])
