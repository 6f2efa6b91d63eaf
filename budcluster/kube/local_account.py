"""Makes the service's account from a person's own machine, where a kubeconfig that runs programs may run them.

The service refuses kubeconfigs with `exec`, since loading one runs code. Many people have no other kind, so the command
line, on their machine and with their rights, makes a ServiceAccount and uploads only that. Uses the official client,
which knows how to run those programs.
"""

import base64
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from budcluster.kube.ownership import ACCOUNT, OWNED, SYSTEM_NAMESPACE, TOKEN_SECRET

_WAIT_S: Final = 30.0


class AccountNotMade(Exception):
    """The account could not be made; the message says why."""


@dataclass(frozen=True)
class LocalAccount:
    """A kubeconfig of the account, as text for the upload."""

    kubeconfig: str


def make_account(path: str | None, context: str | None) -> LocalAccount:
    """Make namespace, account, cluster-admin binding and token with the person's kubeconfig. Raises AccountNotMade."""
    from kubernetes import client, config  # noqa: PLC0415 - takes a second, and only this command needs it
    from kubernetes.client.exceptions import ApiException  # noqa: PLC0415
    from kubernetes.config.config_exception import ConfigException  # noqa: PLC0415
    from urllib3.exceptions import HTTPError  # noqa: PLC0415

    try:
        api = config.new_client_from_config(config_file=path, context=context)
        _ensure(client, api)
        token = _wait_for_token(client.CoreV1Api(api))
        return LocalAccount(_kubeconfig(api.configuration, token))
    except ConfigException as error:
        raise AccountNotMade(f"the kubeconfig cannot be used: {str(error)[:300]}") from None
    except ApiException as error:
        raise AccountNotMade(f"the cluster answered {error.status} {error.reason}.") from None
    except HTTPError as error:
        raise AccountNotMade(f"the cluster cannot be reached: {str(error)[:300]}") from None


def _ensure(client: Any, api: Any) -> None:
    core, rbac = client.CoreV1Api(api), client.RbacAuthorizationV1Api(api)

    def meta(name: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "labels": dict(OWNED), **more}

    steps = (
        (core.create_namespace, ({"metadata": meta(SYSTEM_NAMESPACE)},)),
        (core.create_namespaced_service_account, (SYSTEM_NAMESPACE, {"metadata": meta(ACCOUNT)})),
        (
            core.create_namespaced_secret,
            (
                SYSTEM_NAMESPACE,
                {
                    "metadata": meta(TOKEN_SECRET, annotations={"kubernetes.io/service-account.name": ACCOUNT}),
                    "type": "kubernetes.io/service-account-token",
                },
            ),
        ),
        (
            rbac.create_cluster_role_binding,
            (
                {
                    "metadata": meta(ACCOUNT),
                    "roleRef": {
                        "apiGroup": "rbac.authorization.k8s.io",
                        "kind": "ClusterRole",
                        "name": "cluster-admin",
                    },
                    "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": SYSTEM_NAMESPACE}],
                },
            ),
        ),
    )
    for create, arguments in steps:
        try:
            create(*arguments)
        except client.exceptions.ApiException as error:
            if error.status != 409:  # it is there already
                raise


def _wait_for_token(core: Any) -> str:
    deadline = time.monotonic() + _WAIT_S
    while time.monotonic() < deadline:
        data = core.read_namespaced_secret(TOKEN_SECRET, SYSTEM_NAMESPACE).data or {}
        if "token" in data:
            return base64.b64decode(data["token"]).decode()
        time.sleep(0.2)
    raise AccountNotMade("the cluster has not written a token for the account; is its controller manager up?")


def _kubeconfig(settings: Any, token: str) -> str:
    if not settings.ssl_ca_cert:
        raise AccountNotMade("the kubeconfig names no certificate authority, and the service insists on one.")
    authority = base64.b64encode(Path(settings.ssl_ca_cert).read_bytes()).decode()
    named = {"name": "budcluster"}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{**named, "cluster": {"server": settings.host, "certificate-authority-data": authority}}],
        "users": [{**named, "user": {"token": token}}],
        "contexts": [{**named, "context": {"cluster": "budcluster", "user": "budcluster"}}],
        "current-context": "budcluster",
    }
    return json.dumps(document)
