"""Which permissions are asked for, by what is to be done."""

from typing import Any

import pytest

from budcluster.kube.ownership import SYSTEM_NAMESPACE
from budcluster.kube.resources import NODES, Resource
from budcluster.provisioning.permissions import PermissionsMissing, require_permissions

ROLES = Resource("rbac.authorization.k8s.io", "v1", "clusterroles")


class Cluster:
    """Answers what a credential may do: everything but `denied`, and all at once only to administrators."""

    def __init__(self, *denied: tuple[str, str], is_admin: bool = False) -> None:
        self.denied = denied
        self.is_admin = is_admin
        self.asked: list[tuple[str, str, str | None]] = []

    async def may(self, verb: str, resource: Resource, *, namespace: str | None = None) -> bool:
        self.asked.append((verb, str(resource), namespace))
        return self.is_admin if verb == "*" else (verb, str(resource)) not in self.denied


async def ask(cluster: Any, *, manage_addons: bool = True) -> None:
    await require_permissions(cluster, manage_addons=manage_addons, models_namespace="models")


async def test_an_administrator_is_asked_once() -> None:
    cluster = Cluster(is_admin=True)
    await ask(cluster)
    assert cluster.asked == [("*", "*.*", None)]


async def test_all_that_is_missing_is_listed_at_once() -> None:
    webhooks = "mutatingwebhookconfigurations.admissionregistration.k8s.io"
    with pytest.raises(PermissionsMissing) as refused:
        await ask(Cluster(("bind", str(ROLES)), ("create", webhooks), ("delete", webhooks), ("list", "pods")))
    assert str(refused.value) == (f"The credential may not: bind {ROLES}, list pods, create/delete {webhooks}.")


async def test_a_narrow_role_needs_less_but_the_roles_of_its_namespaces() -> None:
    cluster = Cluster(("patch", str(NODES)), ("list", "pods"))
    await ask(cluster, manage_addons=False)
    asked = {(verb, namespace) for verb, kind, namespace in cluster.asked if kind == "roles.rbac.authorization.k8s.io"}
    verbs = ("get", "list", "create", "patch", "bind", "escalate")
    assert asked == {(verb, namespace) for verb in verbs for namespace in ("models", SYSTEM_NAMESPACE)}
    with pytest.raises(
        PermissionsMissing, match=rf"escalate roles.* in models, .*escalate roles.* in {SYSTEM_NAMESPACE}"
    ):
        await ask(Cluster(("escalate", "roles.rbac.authorization.k8s.io")), manage_addons=False)
