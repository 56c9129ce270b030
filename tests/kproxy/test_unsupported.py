"""What the rule language has and this node cannot do is refused by name, never half obeyed."""

from __future__ import annotations

import json

import pytest

import policy
from kproxy.reload import unsupported


def rules(match: dict[str, object]) -> tuple[policy.Policy, ...]:
    """One rule with one headerMatch."""
    http = [{"path": "/jobs/.*", "headerMatches": [{"name": "X-Token", **match}]}]
    ports = [{"ports": [{"port": "80", "protocol": "TCP"}], "rules": {"http": http}}]
    document = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "p", "namespace": "hr"},
        "spec": {"endpointSelector": {"matchLabels": {"app": "a"}}, "ingress": [{"toPorts": ports}]},
    }
    loaded = policy.load([("p.json", json.dumps(document))])
    assert not loaded.errors
    return tuple(loaded.rules)


@pytest.mark.parametrize("mismatch", ["ADD", "DELETE", "REPLACE"])
def test_rules_that_edit_headers_are_refused(mismatch: str) -> None:
    """An edit that is not made would let a request pass with the header that the rule replaces."""
    found = list(unsupported(rules({"value": "42", "mismatch": mismatch})))
    assert [problem.file for problem in found] == ["p.json"]
    assert mismatch in found[0].message


def test_rules_with_secrets_are_refused() -> None:
    """Without the secret nothing could match."""
    secret = {"secret": {"namespace": "hr", "name": "token"}}
    assert "secret" in next(unsupported(rules(secret))).message


@pytest.mark.parametrize("match", [{"value": "42"}, {"value": "42", "mismatch": "LOG"}])
def test_rules_that_only_compare_are_taken(match: dict[str, object]) -> None:
    """FAIL, the default, and LOG change nothing in the request."""
    assert list(unsupported(rules(match))) == []
