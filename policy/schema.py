"""JSON Schemas of rule files, made from the same tables that read them, for editors and other tools."""

from __future__ import annotations

from typing import Any

from policy import cilium, kubernetes, loading


def rules_schema() -> dict[str, Any]:
    """What a document of a rule file may be (JSON Schema, draft 2020-12).

    A schema says what may be written, not all that it must mean: `kproxy check` also compares fields.
    """
    objects = [loading.CNP, loading.CCNP, loading.NP]
    forms: list[dict[str, Any]] = [{"$ref": f"#/$defs/{kind}"} for kind in objects]
    lists = [{"$ref": f"#/$defs/{name}"} for name in ("List", *(f"{kind}List" for kind in objects))]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "kproxy rules",
        "description": "CiliumNetworkPolicy, NetworkPolicy, lists of them, or the classic list of rules.",
        "anyOf": [*forms, *lists, {"$ref": "#/$defs/Rules"}, {"$ref": "#/$defs/Objects"}],
        "$defs": {kind: _object(kind) for kind in objects}
        | {
            "Rule": cilium.rule.schema(),
            "NetworkPolicySpec": kubernetes.spec.schema(),
            "Rules": {"type": "array", "items": {"$ref": "#/$defs/Rule"}},
            "Objects": {"type": "array", "items": {"anyOf": forms}},
            "List": _list("List", {"anyOf": forms}),
        }
        # The API server leaves apiVersion and kind out of the items of a list of one kind.
        | {f"{kind}List": _list(f"{kind}List", _object(kind, bare=True)) for kind in objects},
    }


def _object(kind: str, *, bare: bool = False) -> dict[str, Any]:
    schema = loading.envelope(kind).schema()
    spec = {"$ref": "#/$defs/NetworkPolicySpec" if kind == loading.NP else "#/$defs/Rule"}
    several = {"specs": {"type": "array", "items": spec}} if kind != loading.NP else {}
    schema["properties"] |= {"kind": {"const": kind}, "spec": spec} | several
    schema["required"] = ["metadata"] if bare else [*schema["required"], "kind"]
    return schema


def _list(kind: str, item: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"kind": {"const": kind}, "items": {"type": "array", "items": item}},
        "required": ["kind", "items"],
    }
