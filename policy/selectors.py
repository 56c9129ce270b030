"""Selectors over labels and over addresses, and the sets of peers they match.

A selector is a value: two rules that select alike hold equal selectors, and it is evaluated once for all.
It is evaluated over all label sets together, as bit sets in Python's long integers: a requirement is one
look-up and one AND over a few hundred bytes, whatever the number of workloads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from ipaddress import IPv4Network, IPv6Network
from itertools import combinations

from policy import labels
from policy.labels import Label

Network = IPv4Network | IPv6Network


class Operator(Enum):
    """The four operators of matchExpressions (Kubernetes, LabelSelectorRequirement)."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one label. NotIn is true as well where the label is absent, as in Kubernetes."""

    source: str
    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def __str__(self) -> str:
        key = self.key if self.source == labels.ANY else f"{self.source}:{self.key}"
        match self.operator:
            case Operator.IN if len(self.values) == 1:
                return f"{key}={self.values[0]}"
            case Operator.EXISTS:
                return key
            case Operator.DOES_NOT_EXIST:
                return f"!{key}"
            case _:
                return f"{key} {self.operator.value} ({', '.join(self.values)})"


@dataclass(frozen=True, slots=True)
class Selector:
    """Requirements that must all hold; none at all match everything there is, the world included."""

    requirements: tuple[Requirement, ...] = ()

    def __str__(self) -> str:
        return ", ".join(map(str, self.requirements)) or "everything"

    def and_also(self, *requirements: Requirement) -> Selector:
        """This selector, narrowed."""
        return selector(self.requirements + requirements)

    def names_key(self, *keys: tuple[str, str]) -> bool:
        """Whether a requirement is on one of these (source, key) pairs."""
        return any((r.source, r.key) in keys for r in self.requirements)


@dataclass(frozen=True, slots=True)
class CidrBlock:
    """Addresses outside of all that is known by name, in a network but in none of the exceptions."""

    network: Network
    excepts: tuple[Network, ...] = ()

    def __str__(self) -> str:
        less = f" except {', '.join(map(str, self.excepts))}" if self.excepts else ""
        return f"{self.network}{less}"


PeerSelector = Selector | CidrBlock


def selector(requirements: Iterable[Requirement]) -> Selector:
    """A selector in canonical order, so that equal meanings written in another order are equal."""
    unique = {(r.source, r.key, r.operator.value, r.values): r for r in requirements}
    return Selector(tuple(unique[key] for key in sorted(unique)))


def equals(key: str, value: str, source: str = labels.ANY) -> Requirement:
    """The label has this value (matchLabels)."""
    return Requirement(source, key, Operator.IN, (value,))


def exists(key: str, source: str = labels.ANY) -> Requirement:
    """The label is there."""
    return Requirement(source, key, Operator.EXISTS)


EVERYTHING = Selector()


# A selector has few requirements; each more doubles the number of those that are wider.
_MOST_REQUIREMENTS = 6


def wider(one: Selector) -> Iterator[Selector]:
    """The selector itself, and those that ask for less of the same: they hold all that it does."""
    yield one
    asked = one.requirements
    sizes = range(len(asked)) if len(asked) <= _MOST_REQUIREMENTS else (0,)
    yield from (Selector(some) for size in sizes for some in combinations(asked, size))


def wider_block(one: CidrBlock, lengths: Iterable[int]) -> Iterator[CidrBlock]:
    """The block itself, and the whole networks around it that have one of these prefix lengths."""
    yield one
    own = one.network.prefixlen
    yield from (CidrBlock(one.network.supernet(new_prefix=length)) for length in lengths if length <= own)


def contains(wide: PeerSelector, narrow: PeerSelector) -> bool:
    """Whether one selector certainly holds all that the other does, whoever is there."""
    if isinstance(wide, Selector):
        if isinstance(narrow, CidrBlock):
            return not wide.requirements
        return all(any(_implied(one, by) for by in narrow.requirements) for one in wide.requirements)
    if isinstance(narrow, Selector) or wide.network.version != narrow.network.version:
        return False
    return _within(narrow.network, wide.network) and all(
        not one.overlaps(narrow.network) or any(_within(one, other) for other in narrow.excepts)
        for one in wide.excepts
    )


def _within(narrow: Network, wide: Network) -> bool:
    return narrow.prefixlen >= wide.prefixlen and narrow.overlaps(wide)


def _implied(one: Requirement, by: Requirement) -> bool:
    """Whether a requirement holds wherever another one does."""
    if one == by:
        return True
    if one.key != by.key or one.source not in (by.source, labels.ANY):
        return False
    match one.operator, by.operator:
        case Operator.EXISTS, Operator.IN | Operator.EXISTS:
            return True
        case Operator.IN, Operator.IN:
            return set(by.values) <= set(one.values)
        case _:
            return False


def digest(one: PeerSelector) -> bytes:
    """A fingerprint of what a selector means, stable between runs."""
    return blake2b(f"{type(one).__name__} {one}".encode(), digest_size=8).digest()


class LabelIndex:
    """Evaluates selectors over a list of label sets; sets of them are bit sets: bit i is `label_sets[i]`.

    Only keys that these selectors name are indexed: most labels of a pod are its own (a hash, an index), and a
    bit set for each of ten thousand values would be most of the work.
    """

    def __init__(self, label_sets: Sequence[frozenset[Label]], selectors: Iterable[Selector]) -> None:
        self._all = (1 << len(label_sets)) - 1
        named = {requirement.key for one in selectors for requirement in one.requirements}
        with_value: dict[Label, list[int]] = {}
        with_key: dict[tuple[str, str], list[int]] = {}
        for i, label_set in enumerate(label_sets):
            for source, key, value in label_set:
                if key not in named:
                    continue
                for name in (source, labels.ANY):
                    with_value.setdefault((name, key, value), []).append(i)
                    with_key.setdefault((name, key), []).append(i)
        self._with_value = {label: bits_of(members) for label, members in with_value.items()}
        self._with_key = {key: bits_of(members) for key, members in with_key.items()}

    def matching(self, one: Selector) -> int:
        """The bit set of the label sets that one of the selectors matches."""
        found = self._all
        for requirement in one.requirements:
            found &= self._meeting(requirement)
            if not found:
                break
        return found

    def _meeting(self, requirement: Requirement) -> int:
        key = (requirement.source, requirement.key)
        match requirement.operator:
            case Operator.EXISTS:
                return self._with_key.get(key, 0)
            case Operator.DOES_NOT_EXIST:
                return self._all & ~self._with_key.get(key, 0)
            case Operator.IN:
                return self._having(key, requirement.values)
            case Operator.NOT_IN:
                return self._all & ~self._having(key, requirement.values)

    def _having(self, key: tuple[str, str], values: tuple[str, ...]) -> int:
        found = 0
        for value in values:
            found |= self._with_value.get((*key, value), 0)
        return found


def bits_of(members: Iterable[int]) -> int:
    """A bit set of these numbers, in one pass (setting bits one by one would be quadratic)."""
    ordered = list(members)
    if not ordered:
        return 0
    buffer = bytearray(max(ordered) // 8 + 1)
    for member in ordered:
        buffer[member >> 3] |= 1 << (member & 7)
    return int.from_bytes(buffer, "little")


def members_of(bits: int) -> list[int]:
    """The numbers in a bit set, ascending."""
    members: list[int] = []
    for at, byte in enumerate(bits.to_bytes((bits.bit_length() + 7) // 8, "little")):
        if byte:
            members.extend(at * 8 + bit for bit in range(8) if byte >> bit & 1)
    return members
