"""The published schema, against what the loader accepts and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from generated import documents
from hypothesis import HealthCheck, given, settings
from jsonschema import Draft202012Validator
from rules_world import cnp, http_rule, np, rule

import policy

VALIDATOR = Draft202012Validator(policy.rules_schema())
DATA = Path(__file__).parent / "data"


def test_it_is_a_schema() -> None:
    """Of the draft that it names, and plain JSON."""
    Draft202012Validator.check_schema(policy.rules_schema())
    assert json.loads(json.dumps(policy.rules_schema())) == policy.rules_schema()


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(documents)
def test_what_is_accepted_is_valid(written: list[Any]) -> None:
    """Every generated document is valid."""
    for document in written:
        VALIDATOR.validate(document)


@pytest.mark.parametrize(
    "document",
    [
        [cnp(rule(ingress=[{}])), np({"ingress": [{}]})],
        {"kind": "List", "items": [cnp(rule(ingress=[{}]))]},
        {"kind": "NetworkPolicyList", "items": [{"metadata": {"name": "a"}, "spec": {"podSelector": {}}}]},
    ],
)
def test_lists_are_valid(document: Any) -> None:
    """Of objects, with and without their kinds."""
    VALIDATOR.validate(document)
    assert not policy.load([("x.json", json.dumps(document))]).errors


@pytest.mark.parametrize("name", sorted(path.name for path in DATA.glob("*.yaml")))
def test_public_examples(name: str) -> None:
    """A public example that the loader accepts is valid."""
    text = (DATA / name).read_text()
    if not policy.load([(name, text)]).errors:
        for document in yaml.safe_load_all(text):
            VALIDATOR.validate(document)


@pytest.mark.parametrize(
    "document",
    [
        [rule(ingres=[{}])],
        [rule(egress=[{"toFQDNs": [{"matchName": "a"}]}])],
        [http_rule({"paht": "/"})],
        [http_rule({"headerMatches": [{"name": "A", "mismatch": "DROP"}]})],
        [rule(ingress=[{"toPorts": [{"ports": [{"port": 80}]}]}])],
        [rule(ingress=[{"toPorts": [{"ports": []}]}])],
        [{"ingress": [{}]}],
        cnp(rule(ingress=[{}])) | {"apiVersion": "v1"},
        cnp(rule(ingress=[{}])) | {"kind": "Pod"},
        np({"ingress": [{"ports": [{"protocol": "SCTP"}]}]}),
        {"kind": "List"},
        3,
    ],
)
def test_what_has_another_shape_is_not(document: Any) -> None:
    """Misspelt, unsupported and missing fields are marked by an editor already, as the loader refuses them."""
    assert not VALIDATOR.is_valid(document)
    assert policy.load([("x.json", json.dumps(document))]).errors
