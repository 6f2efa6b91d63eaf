"""kube-prometheus-stack 88: measures nodes, pods and GPUs, so that usage can be read."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from budcluster.config import AddonSettings
from budcluster.hardware.addons import Addon, Surroundings
from budcluster.hardware.models import AddonName

SERVICE = "kps-prometheus"
NAMESPACE = "monitoring"
PORT = 9090


def addon(settings: AddonSettings) -> Addon:
    """The add-on."""
    return Addon(
        name=AddonName.PROMETHEUS,
        title="Prometheus",
        release="kps",
        namespace=NAMESPACE,
        chart="kube-prometheus-stack",
        version=settings.prometheus_version,
        repository="oci://ghcr.io/prometheus-community/charts",
        values=partial(_values, settings.image_registry),
        marks=("app.kubernetes.io/name=prometheus", "app.kubernetes.io/name=prometheus-operator"),
        privileged=True,
        needs_node=True,
    )


def _values(registry: str | None, _: Surroundings) -> Mapping[str, Any]:
    off: dict[str, Any] = {"enabled": False}
    return {
        **({"global": {"imageRegistry": registry}} if registry else {}),
        "fullnameOverride": "kps",
        "alertmanager": off,
        "grafana": off,
        # Managed control planes do not let these be scraped.
        "kubeEtcd": off,
        "kubeControllerManager": off,
        "kubeScheduler": off,
        "kubeProxy": off,
        "prometheus": {
            "prometheusSpec": {
                "retention": "7d",
                # By default it takes only what its own release made.
                "serviceMonitorSelectorNilUsesHelmValues": False,
                "podMonitorSelectorNilUsesHelmValues": False,
                "ruleSelectorNilUsesHelmValues": False,
                "probeSelectorNilUsesHelmValues": False,
            }
        },
    }
