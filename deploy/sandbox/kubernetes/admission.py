"""Pod security admission: namespaces say by label which pods they take, and about which they warn."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from sandbox.kubernetes.errors import Cause, Forbidden, Invalid
from sandbox.kubernetes.pod_security import LEVELS, PRIVILEGED, RESTRICTED, violations
from sandbox.kubernetes.resources import Kind
from sandbox.kubernetes.store import Store

Obj = dict[str, Any]

_LABEL = "pod-security.kubernetes.io/"
# Without its own pods a cluster would not live: whoever sets a default exempts them.
_EXEMPT = frozenset({"kube-system"})
_TEMPLATES = {
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    "PodTemplate": ("template",),
    **dict.fromkeys(
        ("DaemonSet", "Deployment", "Job", "ReplicaSet", "ReplicationController", "StatefulSet"), ("spec", "template")
    ),
}


@dataclass(frozen=True, slots=True)
class Policy:
    """A level of the standards and the version of them that was asked for."""

    level: str
    version: str = "latest"

    def __str__(self) -> str:
        return f"{self.level}:{self.version}"


class PodAdmission:
    """Admits pods to namespaces. `default` is the level of namespaces without a label."""

    def __init__(self, store: Store, *, default: str = PRIVILEGED) -> None:
        self._store = store
        self._default = default

    def check_pod(self, pod: Obj) -> None:
        """Raises Forbidden for a pod that its namespace does not take."""
        policy = self._policies(pod)[0]
        if found := list(violations(pod["spec"], policy.level)):
            raise Forbidden("pods", "", pod["metadata"].get("name", ""), f"violates PodSecurity {_said(policy, found)}")

    def warnings(self, kind: Kind, obj: Obj) -> Iterator[str]:
        """What the namespace warns of: the pod, or the pods that this workload would make."""
        template = obj
        for field in _TEMPLATES.get(kind.key, ()):
            template = template.get(field) or {}
        if kind.key != "Pod" and kind.key not in _TEMPLATES:
            return
        policy = self._policies(obj)[1]
        if found := list(violations(template.get("spec") or {}, policy.level)):
            yield f"would violate PodSecurity {_said(policy, found)}"

    def _policies(self, obj: Obj) -> tuple[Policy, Policy]:
        """What is enforced where the object lives, and what is warned of."""
        namespace = obj["metadata"].get("namespace") or "default"
        home = self._store.find("Namespace", None, namespace)
        if home is None or namespace in _EXEMPT:
            return Policy(PRIVILEGED), Policy(PRIVILEGED)
        labels = home["metadata"].get("labels") or {}
        enforced = _policy(labels, "enforce", Policy(self._default))
        unless_said = enforced if f"{_LABEL}enforce" in labels else Policy(PRIVILEGED)
        return enforced, _policy(labels, "warn", unless_said)


def check_labels(namespace: Obj) -> None:
    """Raises Invalid for a namespace whose labels name no level or version."""
    causes = [
        Cause("FieldValueInvalid", f'Invalid value: "{value}": must be {wanted}', f"metadata.labels[{label}]")
        for label, value in (namespace["metadata"].get("labels") or {}).items()
        if label.startswith(_LABEL) and (wanted := _wanted(label, value))
    ]
    if causes:
        raise Invalid("Namespace", "", namespace["metadata"].get("name", ""), causes)


def _wanted(label: str, value: str) -> str:
    if label.endswith("-version"):
        return "" if value == "latest" or re.fullmatch(r"v1\.\d+", value) else '"latest" or "v1.x"'
    return "" if value in LEVELS else f"one of {', '.join(LEVELS)}"


def _policy(labels: Obj, mode: str, otherwise: Policy) -> Policy:
    level = labels.get(f"{_LABEL}{mode}", otherwise.level)
    return Policy(level if level in LEVELS else RESTRICTED, labels.get(f"{_LABEL}{mode}-version", otherwise.version))


def _said(policy: Policy, found: Iterable[object]) -> str:
    return f'"{policy}": {", ".join(map(str, found))}'
