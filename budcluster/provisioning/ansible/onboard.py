"""Prepares an existing cluster with `playbooks/onboard.yml` and gives back the credential made there."""

import base64
import binascii
from dataclasses import replace
from typing import Final
from uuid import UUID

from budcluster.kube.door import Door
from budcluster.kube.errors import KubeError, NotFound
from budcluster.kube.kubeconfig import Kubeconfig
from budcluster.kube.playbooks import TaskSink
from budcluster.kube.resources import Resource
from budcluster.kube.versions import OLDEST_SUPPORTED

SYSTEM_NAMESPACE: Final = "budcluster-system"
TASKS: Final = 8
"""Tasks of the playbook, for the progress."""
_SECRETS: Final = Resource("", "v1", "secrets")
_TOKEN: Final = "budcluster-token"  # noqa: S105 - the name of a Secret
_TIMEOUT_S: Final = 600.0


class TokenMissing(Exception):
    """The cluster has not written a token for the service account. Its controller manager may be down; try again."""


async def prepare(
    door: Door, *, cluster_id: UUID, name: str, manage_addons: bool, on_task: TaskSink | None = None
) -> Kubeconfig:
    """Make namespace, definitions and service account; the kubeconfig of that account, with the same server and CA.

    Idempotent. Raises PlaybookError, KubeError, TokenMissing.
    """
    variables = {
        "system_namespace": SYSTEM_NAMESPACE,
        "manage_addons": manage_addons,
        "oldest_minor": OLDEST_SUPPORTED.minor,
        "claim": {"cluster": str(cluster_id), "name": name},
    }
    await door.play("onboard.yml", variables=variables, timeout_s=_TIMEOUT_S, on_task=on_task)
    return replace(
        door.kubeconfig,
        token=await _token(door),
        client_certificate=None,
        client_key=None,
        namespace="default",
        expires_at=None,
    )


async def _token(door: Door) -> str:
    try:
        secret = await door.client.get(_SECRETS, _TOKEN, namespace=SYSTEM_NAMESPACE)
        return base64.b64decode(secret["data"]["token"], validate=True).decode()
    except NotFound as error:
        raise TokenMissing("The Secret of the service account does not exist.") from error
    except (KeyError, binascii.Error, UnicodeDecodeError) as error:
        raise TokenMissing(
            "The cluster has not written a token for the service account yet; its controller manager may be slow."
        ) from error


async def clean_up(door: Door) -> None:
    """Take away what `prepare` made; what is absent is success. Raises KubeError."""
    roles, bindings = _rbac("clusterroles"), _rbac("clusterrolebindings")
    await _quietly(door, Resource("budcluster.io", "v1", "claims"), "this-cluster")
    await _quietly(door, Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions"), "claims.budcluster.io")
    await door.client.delete(Resource("", "v1", "namespaces"), SYSTEM_NAMESPACE)
    await _quietly(door, roles, "budcluster")
    await _quietly(door, bindings, "budcluster-narrow")
    # Last: with it goes our own right to do anything.
    await door.client.delete(bindings, "budcluster")


def _rbac(plural: str) -> Resource:
    return Resource("rbac.authorization.k8s.io", "v1", plural)


async def _quietly(door: Door, resource: Resource, name: str) -> None:
    try:
        await door.client.delete(resource, name)
    except KubeError as error:
        if error.status != 403:
            raise
