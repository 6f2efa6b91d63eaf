"""Prepares an existing cluster with `playbooks/onboard.yml` and gives back the credential made there."""

import base64
import binascii
from dataclasses import replace
from typing import Final
from uuid import UUID

from budcluster.kube.client import ClusterClient
from budcluster.kube.door import Door
from budcluster.kube.errors import Forbidden, NotFound
from budcluster.kube.grants import narrow_rules
from budcluster.kube.kubeconfig import Kubeconfig
from budcluster.kube.ownership import OWNED, SYSTEM_NAMESPACE, token_secret
from budcluster.kube.playbooks import TaskFailed, TaskSink
from budcluster.kube.resources import NAMESPACES, SECRETS
from budcluster.kube.versions import OLDEST_SUPPORTED
from budcluster.provisioning.adoption import require_unclaimed

TASKS: Final = 17
"""Tasks of the playbook, for the progress."""
_LEAVES_ALONE: Final = "Leave alone what somebody else made by a name of ours"
_TIMEOUT_S: Final = 600.0


class TokenMissing(Exception):
    """The cluster has not written a token for the service account. Its controller manager may be down; try again."""


class NamesTaken(Exception):
    """Somebody else made objects by names that the service uses. They were left alone; the message lists them."""

    next_step = "Do what the message says, then retry the operation."


async def prepare(
    door: Door,
    *,
    cluster_id: UUID,
    name: str,
    manage_addons: bool,
    models_namespace: str,
    take_over: bool = False,
    on_task: TaskSink | None = None,
) -> Kubeconfig:
    """Make namespace, definitions and service account; the kubeconfig of that account, with the same server and CA.

    Without `manage_addons` the account may serve models in `models_namespace`, and is no administrator. Idempotent.
    A cluster that is managed under another id is refused, unless `take_over`. Tokens from before go on working until
    `end_other_tokens`: the one that is used here may be among them.

    Raises NamesTaken, PlaybookError, KubeError, TokenMissing.
    """
    variables = {
        "system_namespace": SYSTEM_NAMESPACE,
        "manage_addons": manage_addons,
        "take_over": take_over,
        "oldest_minor": OLDEST_SUPPORTED.minor,
        "claim": {"cluster": str(cluster_id), "name": name},
        "models_namespace": models_namespace,
        **narrow_rules(),
    }
    try:
        await door.play("onboard.yml", variables=variables, timeout_s=_TIMEOUT_S, on_task=on_task)
    except TaskFailed as error:
        if error.task != _LEAVES_ALONE:
            raise
        raise NamesTaken(error.said) from error
    return replace(
        door.kubeconfig,
        token=await _token(door, token_secret(cluster_id)),
        client_certificate=None,
        client_key=None,
        namespace="default",
        expires_at=None,
    )


async def _token(door: Door, name: str) -> str:
    try:
        secret = await door.client.get(SECRETS, name, namespace=SYSTEM_NAMESPACE)
        return base64.b64decode(secret["data"]["token"], validate=True).decode()
    except NotFound as error:
        raise TokenMissing("The Secret of the service account does not exist.") from error
    except (KeyError, binascii.Error, UnicodeDecodeError) as error:
        raise TokenMissing(
            "The cluster has not written a token for the service account yet; its controller manager may be slow."
        ) from error


async def end_other_tokens(client: ClusterClient, cluster_id: UUID) -> None:
    """End what whoever managed the cluster before reaches it with: another budcluster, or an older version of ours.

    With the credential that `prepare` gave, once it is stored. Idempotent. Raises ManagedElsewhere, KubeError.
    """
    await require_unclaimed(client, cluster_id)
    labels = [f"{label}={value}" for label, value in OWNED.items()] + [f"budcluster.io/claim!={cluster_id}"]
    others = client.list_pages(SECRETS, namespace=SYSTEM_NAMESPACE, label_selector=",".join(labels))
    names = [secret["metadata"]["name"] async for page in others for secret in page["items"]]
    for name in names:
        await client.delete(SECRETS, name, namespace=SYSTEM_NAMESPACE)


async def clean_up(door: Door) -> list[str]:
    """Take away what `prepare` made: all of it belongs to one namespace, and goes with it. What is absent is success.

    Gives what our rights do not reach. Raises KubeError.
    """
    try:
        found = await door.client.get(NAMESPACES, SYSTEM_NAMESPACE)
        if not OWNED.items() <= (found["metadata"].get("labels") or {}).items():
            return [f"namespace {SYSTEM_NAMESPACE}, which does not bear the label that marks it as ours"]
        await door.client.delete(NAMESPACES, SYSTEM_NAMESPACE)
    except NotFound:
        return []
    except Forbidden as error:
        return [f"namespace {SYSTEM_NAMESPACE} and what belongs to it ({error})"]
    return []
