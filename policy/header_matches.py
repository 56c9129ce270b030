"""headerMatches at work: whether a rule's headers are as it wants them, and what is edited where they are not.

As Cilium's proxy has it (cilium/proxy, cilium/network_policy.cc): the joined value of a header is compared with
the expected one, a value of nothing means presence, and each edit is made on what those before it have left.
What must match (FAIL) is asked of what was sent alone: an edit of one rule is no credential for another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from hmac import compare_digest

from policy.conditions import Headers, joined
from policy.model import EDITING, HeaderMatch, HttpRule, Mismatch, Policy, all_http_rules
from policy.verdicts import HeaderEdit, Request

Secrets = Mapping[str, bytes]
"""Values by `namespace/name`."""


def secrets_named(rules: Iterable[Policy]) -> frozenset[str]:
    """The secrets that rules ask for."""
    return frozenset(
        match.secret for http in all_http_rules(rules) for match in http.header_matches if match.secret
    )


def missing_secret(match: HeaderMatch, secrets: Secrets) -> bool:
    """Whether a header match has no value, as its secret is not there."""
    return bool(match.secret) and match.secret not in secrets and not match.value


class Sent:
    """The headers of a request as they stand after the edits so far."""

    __slots__ = ("_edited", "_headers")

    def __init__(self, headers: Headers) -> None:
        self._headers = headers
        self._edited: dict[bytes, bytes | None] = {}

    def value(self, name: bytes) -> bytes | None:
        """The joined value, or None without one."""
        return self._edited[name] if name in self._edited else joined(self._headers, name)

    def edit(self, edit: HeaderEdit) -> None:
        """Take note of an edit."""
        if edit.op == "add":
            before = self.value(edit.name)
            self._edited[edit.name] = edit.value if before is None else before + b"," + edit.value
        elif edit.op != "log":
            self._edited[edit.name] = None if edit.op == "delete" else edit.value


class Edited:
    """A request after header edits: what is forwarded, and so what the next policy on its way judges."""

    def __init__(self, request: Request, edits: Iterable[HeaderEdit]) -> None:
        self.method, self.path, self.host = request.method, request.path, request.host
        self._sent, self._edits = request, edits

    @cached_property
    def headers(self) -> Headers:
        """As for any request."""
        headers = list(self._sent.headers)
        for edit in self._edits:
            if edit.op == "log":
                continue
            rest = [pair for pair in headers if pair[0] != edit.name or edit.op == "add"]
            headers = rest if edit.op == "delete" else [*rest, (edit.name, edit.value)]
        return headers


class HeaderRule:
    """The header matches of one rule.

    guarded: the fields that it edits. impossible: a header that it edits and whose secret is not there, so that
    a request that it matches cannot be forwarded as the rule says; empty if all are there.
    """

    __slots__ = ("_edits", "_required", "guarded", "impossible")

    def __init__(self, rule: HttpRule, secrets: Secrets) -> None:
        valued = [(match, secrets.get(match.secret, match.value)) for match in rule.header_matches]
        self._required = [(m.name, value) for m, value in valued if m.mismatch is Mismatch.FAIL]
        self._edits = [(m, value) for m, value in valued if m.mismatch is not Mismatch.FAIL]
        self.guarded = frozenset(m.name for m in rule.header_matches if m.mismatch in EDITING)
        missing = (m.secret for m in rule.header_matches if missing_secret(m, secrets))
        self.impossible = next(missing, "")

    def holds(self, request: Request) -> bool:
        """Whether the headers that must match do."""
        return all(is_expected(joined(request.headers, name), value) for name, value in self._required)

    def edits(self, sent: Sent) -> Sequence[HeaderEdit]:
        """What is to be edited; `sent` is told of it."""
        made = []
        for match, expected in self._edits:
            found = sent.value(match.name)
            if is_expected(found, expected) or (match.mismatch is Mismatch.DELETE and found is None):
                continue
            value = b"" if match.mismatch is Mismatch.DELETE else expected
            edit = HeaderEdit(match.mismatch.value.lower(), match.name, value)
            sent.edit(edit)
            made.append(edit)
        return made


def allows_nothing(rule: HttpRule, secrets: Secrets) -> bool:
    """Whether a header that is only compared lacks its value: then no request can match (Cilium, getHTTPRule)."""
    return any(m.mismatch not in EDITING and missing_secret(m, secrets) for m in rule.header_matches)


def is_expected(sent: bytes | None, expected: bytes) -> bool:
    """Whether a header is as expected; how long it takes tells nothing of where a secret differs."""
    return sent is not None and (not expected or compare_digest(sent, expected))
