"""JSON Schemas of rule files, made from the same tables that read them, for editors and other tools."""

from __future__ import annotations

from typing import Any

from policy import cilium, kubernetes, loading


def rules_schema() -> dict[str, Any]:
    """What a document of a rule file may be (JSON Schema, draft 2020-12).

    A schema says what may be written, not all that it must mean: `kproxy check` also compares fields.
    """
    objects = [loading.CNP, loading.CCNP, loading.NP]
    forms = [{"$ref": f"#/$defs/{kind}"} for kind in objects]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "kproxy rules",
        "description": "CiliumNetworkPolicy, NetworkPolicy, lists of them, or the classic list of rules.",
        "anyOf": [*forms, {"$ref": "#/$defs/List"}, {"$ref": "#/$defs/Rules"}],
        "$defs": {kind: _object(kind) for kind in objects}
        | {
            "Rule": cilium.rule.schema(),
            "NetworkPolicySpec": kubernetes.spec.schema(),
            "Rules": {"type": "array", "items": {"$ref": "#/$defs/Rule"}},
            "List": _list(forms),
        },
    }


def _object(kind: str) -> dict[str, Any]:
    schema = loading.envelope(kind).schema()
    spec = {"$ref": "#/$defs/NetworkPolicySpec" if kind == loading.NP else "#/$defs/Rule"}
    several = {"specs": {"type": "array", "items": spec}} if kind != loading.NP else {}
    schema["properties"] |= {"kind": {"const": kind}, "spec": spec} | several
    schema["required"] = [*schema["required"], "kind"]
    return schema


def _list(forms: list[dict[str, str]]) -> dict[str, Any]:
    kinds = ["List", *(f"{kind}List" for kind in (loading.CNP, loading.CCNP, loading.NP))]
    return {
        "type": "object",
        "properties": {"kind": {"enum": kinds}, "items": {"type": "array", "items": {"anyOf": forms}}},
        "required": ["kind", "items"],
    }
