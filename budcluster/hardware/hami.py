"""HAMi 2.10: shares of GPUs with a limit on memory and cores. How it is installed, and when nodes offer shares."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from budcluster.config import AddonSettings
from budcluster.hardware.addons import Addon, Platform, Surroundings
from budcluster.hardware.hami_annotations import REGISTER
from budcluster.hardware.models import AddonName
from budcluster.kube.client import ClusterClient
from budcluster.kube.resources import NODES

NODE_LABEL: Final = "gpu"
NODE_VALUE: Final = "on"
_POLL_S: Final = 1.0
_RUNTIME_CLASSES: Final = {Platform.EKS: "", Platform.AKS: "nvidia-container-runtime", Platform.OTHER: "nvidia"}


def addon(settings: AddonSettings) -> Addon:
    """The add-on."""
    return Addon(
        name=AddonName.HAMI,
        title="HAMi GPU sharing",
        release="hami",
        namespace="kube-system",
        chart="hami",
        version=settings.hami_version,
        repository="https://project-hami.github.io/HAMi/",
        values=_values,
        marks=("app.kubernetes.io/name=hami",),
    )


def _values(about: Surroundings) -> Mapping[str, Any]:
    return {
        "scheduler": {
            "kubeScheduler": {
                # Its default registry is in China; its copy of the scheduler must be of the server's very minor.
                "image": {
                    "registry": "registry.k8s.io",
                    "repository": "kube-scheduler",
                    "tag": f"v{about.server.minor}.{about.server.patch}",
                }
            },
            "admissionWebhook": {"manageNamespaceSelector": about.platform is not Platform.AKS},
            # The default opens ports on every node.
            "service": {"type": "ClusterIP"},
        },
        "devicePlugin": {
            "service": {"type": "ClusterIP"},
            "runtimeClassName": _RUNTIME_CLASSES[about.platform],
            "nvidiaNodeSelector": {NODE_LABEL: NODE_VALUE},
            "tolerations": [{"operator": "Exists"}],
        },
    }


class SharesMissing(Exception):
    """Nodes that should offer shares do not; the message names them."""


async def wait_until_registered(
    client: ClusterClient, *, timeout_s: float, on_progress: Callable[[int, int], None]
) -> None:
    """Wait until every labelled node that is ready has registered its devices. Raises SharesMissing, KubeError."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while True:
        waiting, done = [], 0
        async for page in client.list_pages(NODES, label_selector=f"{NODE_LABEL}={NODE_VALUE}"):
            for node in page["items"]:
                if REGISTER in (node["metadata"].get("annotations") or {}):
                    done += 1
                else:
                    waiting.append(node["metadata"]["name"])
        on_progress(done, done + len(waiting))
        if not waiting:
            return
        if asyncio.get_running_loop().time() >= deadline:
            named = ", ".join(waiting[:5]) + (f" and {len(waiting) - 5} more" if len(waiting) > 5 else "")
            raise SharesMissing(f"HAMi has registered no GPU after {timeout_s:.0f} s on {named}.")
        await asyncio.sleep(_POLL_S)
