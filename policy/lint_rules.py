"""What rules say of each other: rules that another one widens, covers or denies.

Compared is what certainly concerns the same endpoints and peers: selectors of which one holds all that the
other does, as they are written. Who is there is not asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count, islice

from policy.errors import Problem
from policy.lint_http import lint_shadowed
from policy.model import EVERY_PORT, Direction, HttpRule, Mode, Place, Policy, PortRule, PortSpec, Rule
from policy.selectors import EVERYTHING, CidrBlock, PeerSelector, Selector, contains, wider, wider_block

_ONE_TOO_MANY = "remove one of the two"

# Every rule is compared with this many others about its peers, so that ten thousand take a second, not minutes.
_MOST_COMPARED = 200


def lint_rules(policies: Iterable[Policy]) -> Iterator[Problem]:
    """Warnings about rules that decide less than they seem to, for what another rule says."""
    for books in _by_subject(policies):
        yield from _widened(books)
        yield from _covered(books)
        yield from _shadowed(books)
        yield from _denied_whole(books)


@dataclass(frozen=True, slots=True)
class _Clause:
    """One place where a rule speaks of ports, with the rule around it."""

    rule: Rule
    port: PortRule | None
    deny: bool
    mode: Mode
    at: int
    """In the order in which they are written."""

    @property
    def place(self) -> Place:
        return self.port.place if self.port else self.rule.place

    @property
    def name(self) -> str:
        return self.port.name if self.port else self.rule.name

    @property
    def ports(self) -> tuple[PortSpec, ...]:
        return self.port.ports if self.port else (EVERY_PORT,)

    @property
    def http(self) -> tuple[HttpRule, ...] | None:
        return self.port.http if self.port else None

    @property
    def judges(self) -> bool:
        return self.http is not None


class _Book:
    """What is said of the same endpoints in one direction, found by the peers that it is about."""

    def __init__(self) -> None:
        self.clauses: list[_Clause] = []
        self._about: dict[tuple[bool, bool, PeerSelector | None], list[_Clause]] = {}
        self._lengths: set[int] = set()

    def add(self, clause: _Clause) -> None:
        """Write one down."""
        self.clauses.append(clause)
        peers = (EVERYTHING,) if clause.rule.peers is None else clause.rule.peers
        for peer in (*peers, None):
            self._about.setdefault((clause.deny, clause.judges, peer), []).append(clause)
            if isinstance(peer, CidrBlock):
                self._lengths.add(peer.network.prefixlen)

    def holding(self, peers: Sequence[PeerSelector] | None, *, deny: bool, judges: bool) -> Iterator[_Clause]:
        """Those that may hold one of these peers; with None, which is everyone, any of them."""
        near = [None] if peers is None else [EVERYTHING, *chain.from_iterable(map(self._around, peers))]
        for peer in dict.fromkeys(near):
            yield from islice(self._about.get((deny, judges, peer), ()), _MOST_COMPARED)

    def _around(self, peer: PeerSelector) -> Iterator[PeerSelector]:
        return wider(peer) if isinstance(peer, Selector) else wider_block(peer, self._lengths)


def _by_subject(policies: Iterable[Policy]) -> Iterator[list[_Book]]:
    """What is said of the same endpoints, and behind it what is said of these and of others as well."""
    together: dict[str, dict[Selector, _Book]] = {"ingress": {}, "egress": {}}
    numbers = count()
    for policy in policies:
        for word, direction in (("ingress", policy.ingress), ("egress", policy.egress)):
            book = together[word].setdefault(policy.subject, _Book())
            for clause in _clauses(direction, policy.mode, numbers):
                book.add(clause)
    for books in together.values():
        yield from ([books[one] for one in wider(subject) if one in books] for subject in books)


def _clauses(direction: Direction, mode: Mode, numbers: Iterator[int]) -> Iterator[_Clause]:
    for deny, rules in ((False, direction.allow), (True, direction.deny)):
        for rule in rules:
            yield from (_Clause(rule, port, deny, mode, next(numbers)) for port in rule.ports or (None,))


def _widened(books: Sequence[_Book]) -> Iterator[Problem]:
    """Requests that are not judged, as another rule allows the port to the same peers whatever is sent."""
    own = books[0]
    opened: dict[int, _Clause] = {}
    for narrow in islice((one for one in own.clauses if not one.deny and not one.judges), _MOST_COMPARED):
        for judged in own.holding(narrow.rule.peers, deny=False, judges=True):
            if _meets(narrow, judged):
                opened.setdefault(id(judged), narrow)
    for judged in own.clauses:
        if judged.judges and not judged.deny:
            opening = (
                one for book in books for one in book.holding(judged.rule.peers, deny=False, judges=False)
            )
            wide = opened.get(id(judged)) or next((one for one in opening if _meets(one, judged)), None)
            if wide is not None:
                some = "" if _contains(wide, judged) else " of some peers or ports"
                yield judged.place.problem(
                    f"requests{some} are not judged here: {wide.name} allows the port whatever is sent",
                    "give that rule http rules too, or other peers",
                )


def _covering(books: Sequence[_Book], narrow: _Clause) -> Iterator[_Clause]:
    """Clauses of the same kind that hold all that this one does; of two equal ones the earlier."""
    # Whatever covers a rule is about the first of its peers as well, or about everyone.
    peers = narrow.rule.peers[:1] if narrow.rule.peers else ()
    for book in books:
        for one in book.holding(peers, deny=narrow.deny, judges=narrow.judges):
            if one is not narrow and one.mode is narrow.mode and _contains(one, narrow):
                earlier = book is not books[0] or one.at < narrow.at
                if earlier or not _contains(narrow, one):
                    yield one


def _covered(books: Sequence[_Book]) -> Iterator[Problem]:
    """Rules without requests that say nothing which a wider one does not."""
    for narrow in books[0].clauses:
        cover = None if narrow.judges else next(_covering(books, narrow), None)
        if cover is not None:
            done = "denies" if narrow.deny else "allows"
            yield narrow.place.problem(
                f"decides nothing: {cover.name} {done} all that it does", _ONE_TOO_MANY
            )


def _shadowed(books: Sequence[_Book]) -> Iterator[Problem]:
    """Requests that match nothing which those of a wider rule, or others of the same peers, do not."""
    alike: dict[tuple[object, ...], list[_Clause]] = {}
    for one in books[0].clauses:
        if one.judges and one.rule.peers != ():
            peers = frozenset(one.rule.peers or (EVERYTHING,))
            alike.setdefault((one.deny, one.mode, peers, frozenset(one.ports)), []).append(one)
    for group in alike.values():
        above = islice(_requests(_covering(books, group[0])), _MOST_COMPARED)
        yield from lint_shadowed(list(_requests(group)), list(above))


def _requests(clauses: Iterable[_Clause]) -> Iterator[HttpRule]:
    return (rule for clause in clauses for rule in clause.http or ())


def _denied_whole(books: Sequence[_Book]) -> Iterator[Problem]:
    """Allow rules of which a deny rule leaves nothing."""
    for allowed in books[0].clauses:
        if allowed.deny or allowed.rule.peers == ():
            continue
        peers = (allowed.rule.peers or ())[:1]
        denials = chain.from_iterable(book.holding(peers, deny=True, judges=False) for book in books)
        felt = (one for one in denials if one.mode in (Mode.ENFORCE, allowed.mode))
        denial = next((one for one in felt if _contains(one, allowed)), None)
        if denial is not None:
            yield allowed.place.problem(f"allows nothing: {denial.name} denies all of it", _ONE_TOO_MANY)


def _meets(wide: _Clause, narrow: _Clause) -> bool:
    """Whether some port of both is the same, for some peers that are certainly the same."""
    if not any(_overlap(one, other) for one in wide.ports for other in narrow.ports):
        return False
    one, other = wide.rule.peers, narrow.rule.peers
    if one is None or other is None:
        return () not in (one, other)
    return any(contains(a, b) or contains(b, a) for a in one for b in other)


def _contains(wide: _Clause, narrow: _Clause) -> bool:
    ports = all(any(_within(one, other) for other in wide.ports) for one in narrow.ports)
    return ports and _peers_contain(wide.rule, narrow.rule)


def _peers_contain(wide: Rule, narrow: Rule) -> bool:
    if narrow.peers == ():
        return False
    if wide.peers is None or EVERYTHING in wide.peers:
        return True
    return narrow.peers is not None and all(any(contains(a, b) for a in wide.peers) for b in narrow.peers)


def _overlap(one: PortSpec, other: PortSpec) -> bool:
    protocols = bool(set(one.protocols) & set(other.protocols))
    if one.name or other.name:
        return protocols and one.name == other.name
    return protocols and one.first <= other.last and other.first <= one.last


def _within(narrow: PortSpec, wide: PortSpec) -> bool:
    if not set(narrow.protocols) <= set(wide.protocols):
        return False
    if narrow.name or wide.name:
        return wide == EVERY_PORT or narrow.name == wide.name
    return wide.first <= narrow.first and narrow.last <= wide.last
