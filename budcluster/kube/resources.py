"""Names of kinds in the Kubernetes API, and the paths under which their objects lie."""

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind: `Resource("apps", "v1", "deployments")`. The core group is the empty string."""

    group: str
    version: str
    plural: str

    def path(self, *, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """The path of an object or a collection. Names cannot break out of their place. Raises ValueError."""
        parts = ["api", self.version] if not self.group else ["apis", self.group, self.version]
        if namespace is not None:
            parts += ["namespaces", namespace]
        parts += [part for part in (self.plural, name, subresource) if part is not None]
        return "/" + "/".join(segment(part) for part in parts)

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


def segment(text: str) -> str:
    """One part of a path, escaped. Raises ValueError for those that would mean another place."""
    if text in ("", ".", ".."):
        raise ValueError(f"{text!r} cannot be a name.")
    return quote(text, safe=":")


NAMESPACES: Final = Resource("", "v1", "namespaces")
NODES: Final = Resource("", "v1", "nodes")
PODS: Final = Resource("", "v1", "pods")
EVENTS: Final = Resource("", "v1", "events")
DEPLOYMENTS: Final = Resource("apps", "v1", "deployments")
DAEMON_SETS: Final = Resource("apps", "v1", "daemonsets")
STATEFUL_SETS: Final = Resource("apps", "v1", "statefulsets")
SERVICES: Final = Resource("", "v1", "services")
ACCESS_REVIEWS: Final = Resource("authorization.k8s.io", "v1", "selfsubjectaccessreviews")
SECRETS: Final = Resource("", "v1", "secrets")
CLAIMS: Final = Resource("", "v1", "persistentvolumeclaims")
REPLICA_SETS: Final = Resource("apps", "v1", "replicasets")
