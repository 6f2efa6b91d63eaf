"""Prepares an existing cluster with `playbooks/onboard.yml` and gives back the credential made there."""

import base64
import binascii
from dataclasses import replace
from typing import Final
from uuid import UUID

from budcluster.kube.door import Door
from budcluster.kube.errors import Forbidden, NotFound
from budcluster.kube.kubeconfig import Kubeconfig
from budcluster.kube.ownership import ACCOUNT, SYSTEM_NAMESPACE, TOKEN_SECRET
from budcluster.kube.playbooks import TaskSink
from budcluster.kube.resources import NAMESPACES, Resource
from budcluster.kube.versions import OLDEST_SUPPORTED
from budcluster.provisioning.adoption import CLAIMS

TASKS: Final = 9
"""Tasks of the playbook, for the progress."""
_SECRETS: Final = Resource("", "v1", "secrets")
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
        secret = await door.client.get(_SECRETS, TOKEN_SECRET, namespace=SYSTEM_NAMESPACE)
        return base64.b64decode(secret["data"]["token"], validate=True).decode()
    except NotFound as error:
        raise TokenMissing("The Secret of the service account does not exist.") from error
    except (KeyError, binascii.Error, UnicodeDecodeError) as error:
        raise TokenMissing(
            "The cluster has not written a token for the service account yet; its controller manager may be slow."
        ) from error


async def clean_up(door: Door, *, manage_addons: bool) -> list[str]:
    """Take away what `prepare` made; what is absent is success. Gives what our rights do not reach. Raises KubeError.

    The binding goes last: with it goes our own right to do anything.
    """
    binding = ACCOUNT if manage_addons else "budcluster-narrow"
    traces = (
        (CLAIMS, "this-cluster"),
        (Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions"), "claims.budcluster.io"),
        (NAMESPACES, SYSTEM_NAMESPACE),
        *(((_rbac("clusterroles"), ACCOUNT),) if manage_addons else ()),
        (_rbac("clusterrolebindings"), binding),
    )
    left = [] if manage_addons else [f"ClusterRole {ACCOUNT}, which is bound to nobody"]
    for resource, name in traces:
        try:
            await door.client.delete(resource, name)
        except Forbidden:
            left.append(f"{resource} {name}")
    return left


def _rbac(plural: str) -> Resource:
    return Resource("rbac.authorization.k8s.io", "v1", plural)
