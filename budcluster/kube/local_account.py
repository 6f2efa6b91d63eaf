"""Makes the service's account from a person's own machine, where a kubeconfig that runs programs may run them.

The service refuses kubeconfigs with `exec`, since loading one runs code. Many people have no other kind, so the command
line, on their machine and with their rights, makes a ServiceAccount and uploads only that, with a token for an hour:
long enough to onboard with. Preparing a cluster takes an administrator, so the account is one; where add-ons are not
managed, onboarding takes that back. Uses the official client, which knows how to run those programs.
"""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from budcluster.kube.ownership import ACCOUNT, OWNED, SYSTEM_NAMESPACE

_TOKEN_S: Final = 3600


class AccountNotMade(Exception):
    """The account could not be made; the message says why."""


@dataclass(frozen=True)
class LocalAccount:
    """A kubeconfig of the account, as text for the upload."""

    kubeconfig: str


def make_account(path: str | None, context: str | None) -> LocalAccount:
    """Make namespace, account, cluster-admin binding and a token with the person's kubeconfig. May be repeated.

    All belongs to the namespace, and goes with it. Raises AccountNotMade.
    """
    from kubernetes import client, config  # noqa: PLC0415 - takes a second, and only this command needs it
    from kubernetes.client.exceptions import ApiException  # noqa: PLC0415
    from kubernetes.config.config_exception import ConfigException  # noqa: PLC0415
    from urllib3.exceptions import HTTPError  # noqa: PLC0415

    try:
        api = config.new_client_from_config(config_file=path, context=context)
        authority = _authority(api.configuration)
        _ensure(client, api)
        asked = {"spec": {"expirationSeconds": _TOKEN_S}}
        core = client.CoreV1Api(api)
        token = core.create_namespaced_service_account_token(ACCOUNT, SYSTEM_NAMESPACE, asked).status.token
        return LocalAccount(_kubeconfig(api.configuration, authority, token))
    except ConfigException as error:
        raise AccountNotMade(f"the kubeconfig cannot be used: {str(error)[:300]}") from None
    except ApiException as error:
        raise AccountNotMade(f"the cluster answered {error.status} {error.reason}.") from None
    except HTTPError as error:
        raise AccountNotMade(f"the cluster cannot be reached: {str(error)[:300]}") from None


def _ensure(client: Any, api: Any) -> None:
    core, rbac = client.CoreV1Api(api), client.RbacAuthorizationV1Api(api)
    namespace = {"metadata": _about(SYSTEM_NAMESPACE)}
    home = _made(client, core.create_namespace, core.read_namespace, namespace)
    owner = {"apiVersion": "v1", "kind": "Namespace", "name": SYSTEM_NAMESPACE, "uid": home.metadata.uid}
    binding = {
        "metadata": _about(ACCOUNT, ownerReferences=[owner]),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": SYSTEM_NAMESPACE}],
    }
    _made(client, rbac.create_cluster_role_binding, rbac.read_cluster_role_binding, binding)
    _made(
        client,
        partial(core.create_namespaced_service_account, SYSTEM_NAMESPACE),
        lambda name: core.read_namespaced_service_account(name, SYSTEM_NAMESPACE),
        {"metadata": _about(ACCOUNT)},
    )


def _made(client: Any, create: Callable[[Any], Any], read: Callable[[str], Any], wanted: dict[str, Any]) -> Any:
    """The object, made now or before. Raises AccountNotMade where it is somebody else's."""
    try:
        return create(wanted)
    except client.exceptions.ApiException as error:
        if error.status != 409:
            raise
    found = read(wanted["metadata"]["name"])
    if not OWNED.items() <= (found.metadata.labels or {}).items():
        raise AccountNotMade(f"{found.metadata.name} is there already, made by somebody else, and is left alone.")
    return found


def _about(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "labels": dict(OWNED), **more}


def _authority(settings: Any) -> str:
    if not settings.ssl_ca_cert:
        raise AccountNotMade("the kubeconfig names no certificate authority, and the service insists on one.")
    return base64.b64encode(Path(settings.ssl_ca_cert).read_bytes()).decode()


def _kubeconfig(settings: Any, authority: str, token: str) -> str:
    named = {"name": "budcluster"}
    cluster = {"server": settings.host, "certificate-authority-data": authority}
    if name := getattr(settings, "tls_server_name", None):
        cluster["tls-server-name"] = name
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{**named, "cluster": cluster}],
        "users": [{**named, "user": {"token": token}}],
        "contexts": [{**named, "context": {"cluster": "budcluster", "user": "budcluster"}}],
        "current-context": "budcluster",
    }
    return json.dumps(document)
