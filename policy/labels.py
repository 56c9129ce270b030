"""Labels with their sources, as Cilium has them: `k8s:app=web`, `reserved:host`.

A workload's label without a source is Kubernetes'; a selector's key without one (or with `any:`) matches
every source (Cilium, "Endpoint labels"; pkg/labels GetExtendedKeyFrom).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

K8S = "k8s"
ANY = "any"
RESERVED = "reserved"

NAMESPACE = "io.kubernetes.pod.namespace"
"""The namespace of a pod, as a label of its own."""
NAMESPACE_LABELS = "io.cilium.k8s.namespace.labels."
"""In front of the labels of a pod's namespace (Cilium, k8s constants: PodNamespaceMetaLabels)."""
NAMESPACE_NAME = NAMESPACE_LABELS + "kubernetes.io/metadata.name"
"""Kubernetes gives every namespace a label with its own name."""
CLUSTER = "io.cilium.k8s.policy.cluster"
"""The cluster of a pod; a cluster that was not named is `default` in Cilium."""
CLUSTER_NAME = "default"

Label = tuple[str, str, str]
"""(source, key, value)"""


def split_key(key: str, default: str) -> tuple[str, str]:
    """`k8s:app` into (`k8s`, `app`); a key without a source gets `default`."""
    source, colon, name = key.partition(":")
    return (source, name) if colon else (default, key)


def of_workload(namespace: str, labels: Mapping[str, str]) -> frozenset[Label]:
    """All labels of a workload: its own, its namespace's and its cluster's.

    A node or another host (a workload with a `reserved:` label) is in no namespace and has no such labels.
    """
    own = {split_key(key, K8S): value for key, value in labels.items()}
    if not any(source == RESERVED for source, _ in own):
        own.setdefault((K8S, CLUSTER), CLUSTER_NAME)
        own[K8S, NAMESPACE] = namespace
        own[K8S, NAMESPACE_NAME] = namespace
    return frozenset((source, key, value) for (source, key), value in own.items())


def reserved(*names: str) -> frozenset[Label]:
    """The labels of an identity that no workload has: host, world."""
    return frozenset((RESERVED, name, "") for name in names)


def show(labels: Iterable[Label]) -> dict[str, str]:
    """Labels as people write them."""
    return {f"{source}:{key}": value for source, key, value in sorted(labels)}
