"""Files of rules into policies: which form a document has, whose rules they are, and what they are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from policy import cilium, engine, kubernetes
from policy.errors import Problem
from policy.fields import metadata
from policy.indexes import TooCostly
from policy.lint import lint
from policy.model import Policy, PortRule, Rule
from policy.shapes import Anything, Cursor, ListOf, Owner, Record, Report, Shape, Text, kind_of, suggest
from policy.text import Doubled, read

DEFAULT_NAMESPACE = "default"
"""Where an object without a namespace goes, as with kubectl."""
ALL_NAMESPACES = "*"
"""What stands for the namespace in the names of rules that hold in all of them."""

_CILIUM = "cilium.io/v2"
_KUBERNETES = "networking.k8s.io/v1"
CNP = "CiliumNetworkPolicy"
CCNP = "CiliumClusterwideNetworkPolicy"
NP = "NetworkPolicy"
_API_VERSIONS = {CNP: _CILIUM, CCNP: _CILIUM, NP: _KUBERNETES}
_LISTS = {"List": ""} | {f"{kind}List": kind for kind in _API_VERSIONS}
"""The kinds of lists, with the kind of their items where all have one."""
_REFUSED_KINDS = {
    "CiliumCIDRGroup": "CIDR groups are not read; write the CIDRs into the rules",
    "ClusterNetworkPolicy": "tiers and priorities are not supported",
    "AdminNetworkPolicy": "tiers and priorities are not supported",
    "BaselineAdminNetworkPolicy": "tiers and priorities are not supported",
}


Rules = tuple[Policy, ...]


@dataclass(frozen=True, slots=True)
class Loaded:
    """What files held. With any error in them the rules must not come into force."""

    rules: Rules
    errors: tuple[Problem, ...]
    warnings: tuple[Problem, ...]


def load(files: Iterable[tuple[str, str]]) -> Loaded:
    """Read rules from (file name, text) pairs.

    All errors of all files are returned at once; of an object with errors, no rule is. Names are unique
    among the objects of one kind, as they are in a cluster.
    """
    policies: list[Policy] = []
    errors: list[Problem] = []
    warnings: list[Problem] = []
    for file, text in files:
        documents, broken = read(file, text)
        errors += broken
        for document in documents:
            report = Report(file, document.line_of)
            policies += _document(Cursor(document.value, document.root, report), _stem(file))
            errors += report.errors
            warnings += report.warnings
    errors += [*_same_names(policies), *_too_costly(policies)]
    warnings += [*_names_across_kinds(policies), *lint(policies)]
    return Loaded(tuple(policies), tuple(errors), tuple(warnings))


def _stem(file: str) -> str:
    return file.rpartition("/")[2].partition(".")[0] or "rules"


def _document(at: Cursor, stem: str) -> list[Policy]:
    if isinstance(at.value, list):
        objects = [isinstance(item, dict) and "kind" in item for item in at.value]
        return _objects(at, stem, objects) if any(objects) else _classic(at, stem)
    if not isinstance(at.value, dict):
        at.error(f"must be an object or a list of rules, not {kind_of(at.value)}")
        return []
    kind = at.value.get("kind")
    if not isinstance(kind, str):
        known = f"known are {', '.join(_API_VERSIONS)}"
        at.error("has no kind", "write a list of rules, [{…}]" if "endpointSelector" in at.value else known)
        return []
    if kind in _LISTS:
        return _list(at, stem, _LISTS[kind])
    if kind in _API_VERSIONS:
        return _object(at, kind)
    if kind in _REFUSED_KINDS:
        at.at("kind").error(f"{kind}: {_REFUSED_KINDS[kind]}")
    else:
        at.at("kind").error(f"{kind} is not a kind of policy", suggest(kind, tuple(_API_VERSIONS)))
    return []


_list_shape: Record[dict[str, Any]] = Record(
    {"apiVersion": Anything(), "kind": Anything(), "metadata": Anything(), "items": ListOf(Anything())},
    lambda at, found: found,
    required=("items",),
)


def _list(at: Cursor, stem: str, kind: str) -> list[Policy]:
    """`List`, whose items say what they are, or a list of one `kind`, whose items need not."""
    if _list_shape.read(at) is None:
        return []
    items = at.at("items")
    return [policy for i in range(len(items.value)) for policy in _item(items.at(i), stem, kind)]


def _item(at: Cursor, stem: str, kind: str) -> list[Policy]:
    if not isinstance(at.value, dict):
        at.error(f"must be an object, not {kind_of(at.value)}")
        return []
    if at.value.get("kind") in list(_LISTS):
        at.error("is a list in a list", "put its items into the outer list")
        return []
    if not kind or isinstance(at.value, Doubled):
        return _document(at, stem)
    # The API server leaves both out of the items of a list of one kind.
    whole = {"apiVersion": _API_VERSIONS[kind], "kind": kind} | at.value
    if whole["kind"] != kind:
        at.at("kind").error(f"{whole['kind']} stands in a {kind}List", f"{kind}, or a List")
        return []
    return _document(replace(at, value=whole), stem)


def _objects(at: Cursor, stem: str, whole: list[bool]) -> list[Policy]:
    """A plain list of objects: each says what it is. A list of both objects and bare rules is a slip."""
    if not all(whole):
        bare = at.at(whole.index(False))
        bare.error("is a rule without an object around it, in a list of objects", "give it a kind and a spec")
        return []
    return [policy for i in range(len(at.value)) for policy in _item(at.at(i), stem, "")]


def envelope(kind: str) -> Record[dict[str, Any]]:
    """What stands around a spec. `status` is the cluster's note about the object, not a part of it."""
    several: dict[str, Shape[Any]] = {"specs": ListOf(Anything())} if kind != NP else {}
    fields: dict[str, Shape[Any]] = {
        "apiVersion": Text(_API_VERSIONS[kind].replace(".", r"\."), f"must be {_API_VERSIONS[kind]}"),
        "kind": Anything(),
        "metadata": metadata,
        "description": Text(),
        "spec": Anything(),
        "status": Anything(),
    }
    return Record(
        fields | several,
        lambda at, found: found,
        required=("apiVersion", "metadata"),
        check=_check_spec,
    )


def _check_spec(at: Cursor, found: dict[str, Any]) -> None:
    if not at.value.get("spec") and not at.value.get("specs"):
        at.error("has no spec")
    elif "spec" in at.value and not at.value["spec"]:
        at.at("spec").error("is empty beside specs", "leave it out")
    if "description" in at.value:
        at.at("description").warn("a cluster drops a description here", "write it into the spec")
    if "metadata" in found and at.value.get("kind") == CCNP and "namespace" in found["metadata"]:
        at.at("metadata").at("namespace").error(f"a {CCNP} stands in no namespace")


def _object(at: Cursor, kind: str) -> list[Policy]:
    before = len(at.report.errors)
    envelope(kind).read(at)
    about = at.value.get("metadata")
    about = about if isinstance(about, dict) else {}
    namespace = cilium.CLUSTERWIDE if kind == CCNP else str(about.get("namespace", DEFAULT_NAMESPACE))
    name = f"{namespace or ALL_NAMESPACES}/{about.get('name', '')}"
    shape: Shape[Policy] = kubernetes.spec if kind == NP else cilium.rule
    found = []
    for pointer, section in _specs(at.value):
        spec = at
        for step in pointer:
            spec = spec.at(step)
        owner = Owner(name, namespace, spec.pointer, section, _description(spec.value, at.value))
        found.append(shape.read(spec.owned_by(owner)))
    # An object is one thing: with an error in one part of it, nothing of it is a rule.
    return [policy for policy in found if policy is not None] if len(at.report.errors) == before else []


def _specs(value: dict[str, Any]) -> list[tuple[tuple[str | int, ...], str]]:
    """Where the specs of an object stand, and what goes in front of the names of their rules."""
    several = value.get("specs")
    return ([(("spec",), "")] if value.get("spec") else []) + [
        (("specs", i), f"specs[{i}].") for i in range(len(several) if isinstance(several, list) else 0)
    ]


def _classic(at: Cursor, stem: str) -> list[Policy]:
    """The list of rules that `cilium policy import` took: rules without objects around them.

    They hold in all namespaces. A rule is called by its label `name`, or else by its file and place in it.
    """
    names = [_label_name(item) for item in at.value]
    count = Counter(names)
    found = []
    for i, name in enumerate(names):
        own = f"{name or stem}" + ("" if name and count[name] == 1 else f"[{i}]")
        description = _description(at.value[i])
        owner = Owner(f"{ALL_NAMESPACES}/{own}", None, f"{at.pointer}/{i}", description=description)
        found.append(cilium.rule.read(at.at(i).owned_by(owner)))
    return [policy for policy in found if policy is not None]


def _description(*parts: object) -> str:
    """What a policy says it is for, before it is known whether it is right: the first part that says so."""
    found = (part.get("description") for part in parts if isinstance(part, dict))
    return next((text for text in found if isinstance(text, str)), "")


def _label_name(item: object) -> str:
    labels = item.get("labels") if isinstance(item, dict) else None
    for label in labels if isinstance(labels, list) else ():
        if isinstance(label, dict) and label.get("key") in ("name", "io.cilium.k8s.policy.name"):
            return str(label.get("value", ""))
    return ""


def _same_names(policies: list[Policy]) -> list[Problem]:
    """Two objects of one kind and name are one object in a cluster: only one of them could count."""
    first: dict[tuple[str, str, str], Policy] = {}
    problems = []
    for policy in policies:
        other = first.setdefault((policy.kind, policy.name, policy.section), policy)
        if other is not policy:
            problems.append(
                policy.place.problem(
                    f"a {policy.kind} {policy.name} stands in {other.place.file}:{other.place.line} already"
                )
            )
    return problems


def _too_costly(policies: list[Policy]) -> list[Problem]:
    """Lists of requests that could stall the node on a long path."""
    problems = []
    for policy in policies:
        for direction in (policy.ingress, policy.egress):
            for port in _ports(direction.allow):
                problems += _cost(port, deny=False)
            for port in _ports(direction.deny):
                problems += _cost(port, deny=True)
    return problems


def _ports(rules: Iterable[Rule]) -> Iterable[PortRule]:
    return (port for rule in rules for port in rule.ports or ())


def _cost(port: PortRule, *, deny: bool) -> list[Problem]:
    try:
        engine.cost(port.http or (), deny=deny)
    except TooCostly as cost:
        return [port.place.problem(str(cost), cost.mend)]
    return []


def _names_across_kinds(policies: list[Policy]) -> list[Problem]:
    kinds: dict[str, set[str]] = {}
    for policy in policies:
        kinds.setdefault(policy.name, set()).add(policy.kind)
    return [
        policy.place.problem(f"{policy.name} is also a {other}: logs cannot tell their rules apart")
        for policy in policies
        for other in sorted(kinds[policy.name] - {policy.kind})
        if other < policy.kind
    ]
