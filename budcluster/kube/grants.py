"""What the service's account may do in a cluster whose add-ons it does not manage, as RBAC rules.

Where it manages them it is an administrator, because installing operators needs every permission.
"""

import json
import sys
from collections.abc import Sequence
from typing import Any, Final

from budcluster.kube.ownership import SYSTEM_NAMESPACE

Rule = dict[str, Sequence[str]]

_READ: Final = ("get", "list", "watch")
_WRITE: Final = (*_READ, "create", "update", "patch", "delete")


def _rule(group: str, resources: Sequence[str], verbs: Sequence[str], *, names: Sequence[str] = ()) -> Rule:
    rule: Rule = {"apiGroups": [group], "resources": list(resources), "verbs": list(verbs)}
    return rule | ({"resourceNames": list(names)} if names else {})


EVERYWHERE: Final = (
    _rule("", ("nodes", "namespaces", "pods"), _READ),
    _rule("storage.k8s.io", ("storageclasses",), ("get", "list")),
    _rule("metrics.k8s.io", ("nodes", "pods"), ("get", "list")),
    _rule("nfd.k8s-sigs.io", ("nodefeatures",), _READ),
    _rule("budcluster.io", ("claims",), ("get", "list")),
    # To leave: everything that was made goes with this namespace.
    _rule("", ("namespaces",), ("delete",), names=(SYSTEM_NAMESPACE,)),
)
"""Looking at machines and at who uses them."""

WHERE_MODELS_ARE: Final = (
    _rule("", ("namespaces",), ("get", "patch")),  # Helm applies the one that it installs into
    _rule("", ("events", "pods", "pods/log"), _READ),
    _rule("", ("services/proxy", "pods/proxy"), ("get", "create")),
    _rule("", ("services", "configmaps", "secrets", "persistentvolumeclaims", "serviceaccounts"), _WRITE),
    _rule("apps", ("deployments", "deployments/scale"), _WRITE),
    _rule("apps", ("replicasets",), _READ),
    _rule("networking.k8s.io", ("ingresses", "networkpolicies"), _WRITE),
    _rule("policy", ("poddisruptionbudgets",), _WRITE),
    _rule("monitoring.coreos.com", ("podmonitors",), _WRITE),
)
"""Serving models, in the one namespace for them."""


def in_words(namespace: str) -> list[str]:
    """The narrow rights as a person should read them."""
    return [
        f"in the namespace {namespace}: everything that serving models needs, its Secrets included",
        "everywhere: read nodes, namespaces, storage classes, usage, and pods with their whole specification",
        f"in the namespace {SYSTEM_NAMESPACE}: read and delete Secrets (our tokens), and delete all, to leave",
        "nothing else: no Secrets, workloads or logs of other namespaces, and no add-ons",
    ]


def narrow_rules() -> dict[str, Any]:
    """The rules as variables of the playbook."""
    return {"rules_everywhere": list(EVERYWHERE), "rules_where_models_are": list(WHERE_MODELS_ARE)}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(narrow_rules()))
