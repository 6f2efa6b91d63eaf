"""What the uploaded credential must be allowed to do, asked of the cluster before anything is changed there."""

from typing import Final, NamedTuple

from budcluster.kube.client import ClusterClient
from budcluster.kube.ownership import SYSTEM_NAMESPACE
from budcluster.kube.resources import NAMESPACES, NODES, PODS, SECRETS, Resource
from budcluster.provisioning.adoption import CLAIMS


class Need(NamedTuple):
    """Kubernetes verbs on a kind: everywhere, or in one namespace."""

    verbs: tuple[str, ...]
    resource: Resource
    namespace: str | None = None


_MAKE: Final = ("get", "list", "create", "patch")
"""What there is of it is looked at before."""
_KEEP: Final = (*_MAKE, "delete")
_EVERYTHING: Final = Resource("*", "*", "*")
_CRDS: Final = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions")
_ACCOUNTS: Final = Resource("", "v1", "serviceaccounts")


def _rbac(plural: str) -> Resource:
    return Resource("rbac.authorization.k8s.io", "v1", plural)


_PREPARING: Final = (
    Need(("list",), NODES),
    Need(("list",), Resource("storage.k8s.io", "v1", "storageclasses")),
    Need(_KEEP, NAMESPACES),
    Need(_MAKE, _CRDS),
    Need(_MAKE, CLAIMS),
    Need(_MAKE, _ACCOUNTS, SYSTEM_NAMESPACE),
    Need(_KEEP, SECRETS, SYSTEM_NAMESPACE),
    Need((*_KEEP, "bind", "escalate"), _rbac("clusterroles")),
    Need(_KEEP, _rbac("clusterrolebindings")),
)
"""What `playbooks/onboard.yml` does, and deletion if it comes before there is an account of our own."""
_INSTALLING: Final = (
    Need(("patch",), NODES),
    Need(("list",), PODS),
    Need(("delete",), _CRDS),
    Need(_KEEP, _ACCOUNTS),
    Need(_KEEP, SECRETS),
    Need(_KEEP, Resource("", "v1", "configmaps")),
    Need(_KEEP, Resource("", "v1", "services")),
    Need(_KEEP, Resource("apps", "v1", "daemonsets")),
    Need(_KEEP, Resource("apps", "v1", "deployments")),
    Need(_KEEP, Resource("apps", "v1", "statefulsets")),
    Need(_KEEP, Resource("batch", "v1", "jobs")),
    Need(_KEEP, _rbac("roles")),
    Need(_KEEP, _rbac("rolebindings")),
    Need(_KEEP, Resource("admissionregistration.k8s.io", "v1", "mutatingwebhookconfigurations")),
    Need(_KEEP, Resource("admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations")),
    Need(_KEEP, Resource("scheduling.k8s.io", "v1", "priorityclasses")),
    Need(_KEEP, Resource("node.k8s.io", "v1", "runtimeclasses")),
)
"""What the charts of the add-ons make."""


class PermissionsMissing(Exception):
    """The uploaded credential may not do what preparing the cluster needs; the message lists it."""

    next_step = "Upload a kubeconfig of a cluster administrator: it is forgotten when the onboarding is done."


async def require_permissions(client: ClusterClient, *, manage_addons: bool, models_namespace: str) -> None:
    """Ask the cluster whether the credential may do all that is needed. Raises PermissionsMissing, KubeError."""
    if await client.may("*", _EVERYTHING):
        return
    missing = []
    for verbs, resource, namespace in _needs(manage_addons=manage_addons, models_namespace=models_namespace):
        refused = [verb for verb in verbs if not await client.may(verb, resource, namespace=namespace)]
        if refused:
            missing.append(f"{'/'.join(refused)} {resource}" + (f" in {namespace}" if namespace else ""))
    if missing:
        raise PermissionsMissing(f"The credential may not: {', '.join(missing)}.")


def _needs(*, manage_addons: bool, models_namespace: str) -> tuple[Need, ...]:
    if manage_addons:
        return (*_PREPARING, *_INSTALLING)
    places = (models_namespace, SYSTEM_NAMESPACE)
    roles = [Need((*_MAKE, "bind", "escalate"), _rbac("roles"), place) for place in places]
    return (*_PREPARING, *roles, *(Need(_KEEP, _rbac("rolebindings"), place) for place in places))
