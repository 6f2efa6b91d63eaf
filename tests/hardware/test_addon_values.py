"""What the service tells the charts, by platform and settings, rendered by real Helm with the stand-in charts."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from budcluster.config import PROJECT_ROOT, AddonSettings
from budcluster.hardware.addons import Addon, Platform, Surroundings
from budcluster.hardware.catalogue import Catalogue
from budcluster.hardware.reading.profile import Sharing
from budcluster.kube.door import Doors
from budcluster.kube.helm import Release
from budcluster.kube.versions import Version

pytestmark = pytest.mark.slow

CHARTS = PROJECT_ROOT / "deploy" / "sandbox" / "charts"
SERVER = Version.parse("v1.36.2-eks-12ab")
Objects = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture
def doors(tmp_path: Path, tool_variables: dict[str, str]) -> Doors:
    return Doors(
        playbooks=tmp_path, workspace=tmp_path, max_tools=2, collections=None, path=tool_variables["PATH"]
    )  # fmt: skip


async def rendered(doors: Doors, addon: Addon, about: Surroundings) -> Objects:
    release = Release(addon.release, addon.namespace, addon.chart_ref(str(CHARTS)), addon.values(about))
    return {(found["kind"], found["metadata"]["name"]): found for found in await doors.render(release)}


def about(platform: Platform = Platform.OTHER, **choices: Any) -> Surroundings:
    return Surroundings(platform=platform, server=SERVER, **choices)


OURS = Catalogue.of(AddonSettings())


@pytest.mark.parametrize(
    ("platform", "runtime_class", "manages_selector"),
    [
        (Platform.EKS, None, True),
        (Platform.AKS, "nvidia-container-runtime", False),
        (Platform.OTHER, "nvidia", True),
    ],
)
async def test_hami_opens_no_port_on_nodes_and_fits_the_platform(
    doors: Doors, platform: Platform, runtime_class: str | None, manages_selector: bool
) -> None:
    found = await rendered(doors, OURS.hami, about(platform))
    services = {name: one["spec"] for (kind, name), one in found.items() if kind == "Service"}
    assert {spec["type"] for spec in services.values()} == {"ClusterIP"}
    plugin = found["DaemonSet", "hami-device-plugin"]["spec"]["template"]["spec"]
    assert plugin.get("runtimeClassName") == runtime_class
    assert (plugin["nodeSelector"], plugin["tolerations"]) == ({"gpu": "on"}, [{"operator": "Exists"}])
    webhook = found["MutatingWebhookConfiguration", "hami-webhook"]["webhooks"][0]
    assert ("namespaceSelector" in webhook) is manages_selector
    images = images_of(found["Deployment", "hami-scheduler"])
    assert "registry.k8s.io/kube-scheduler:v1.36.2" in images


@pytest.mark.parametrize(
    ("platform", "brings_driver", "runtime_class"),
    [
        (Platform.EKS, False, "nvidia"),
        (Platform.AKS, False, "nvidia-container-runtime"),
        (Platform.OTHER, True, "nvidia"),
    ],
)
async def test_the_operator_brings_what_the_nodes_images_lack_and_offers_gpus_only_where_it_shall(
    doors: Doors, platform: Platform, brings_driver: bool, runtime_class: str
) -> None:
    beside_hami = await rendered(doors, OURS.gpu_operator, about(platform))
    policy = beside_hami["ClusterPolicy", "cluster-policy"]["spec"]
    assert (policy["driver"]["enabled"], policy["toolkit"]["enabled"]) == (brings_driver, brings_driver)
    assert policy["operator"]["runtimeClass"] == runtime_class
    assert policy["devicePlugin"]["enabled"] is False
    assert not [name for kind, name in beside_hami if "node-feature-discovery" in name]
    alone = await rendered(doors, OURS.gpu_operator, about(platform, sharing=Sharing.NONE, plugin=True))
    assert alone["ClusterPolicy", "cluster-policy"]["spec"]["devicePlugin"]["enabled"] is True


async def test_another_number_of_slices_is_another_configuration_since_the_operator_watches_its_name_alone(
    doors: Doors,
) -> None:
    names = []
    for replicas in (4, 8):
        choices = {"sharing": Sharing.TIME_SLICING, "plugin": True, "replicas_per_gpu": replicas}
        found = await rendered(doors, OURS.gpu_operator, about(**choices))
        named = found["ClusterPolicy", "cluster-policy"]["spec"]["devicePlugin"]["config"]
        content = yaml.safe_load(found["ConfigMap", named["name"]]["data"][named["default"]])
        assert content["sharing"]["timeSlicing"]["resources"] == [{"name": "nvidia.com/gpu", "replicas": replicas}]
        names.append(named["name"])
    assert len(set(names)) == 2


async def test_discovery_reaches_tainted_nodes_and_sees_network_cards(doors: Doors) -> None:
    found = await rendered(doors, OURS.nfd, about())
    worker = found["DaemonSet", "nfd-node-feature-discovery-worker"]["spec"]["template"]["spec"]
    assert worker["tolerations"] == [{"operator": "Exists"}]
    config = yaml.safe_load(found["ConfigMap", "nfd-node-feature-discovery-worker-conf"]["data"]["nfd-worker.conf"])
    assert config["sources"]["pci"]["deviceClassWhitelist"] == ["02", "03", "0b40", "12"]


MIRROR = "mirror.example:5000/gpu"


@pytest.mark.parametrize("name", ["prometheus", "nfd", "gpu_operator", "hami"])
async def test_one_setting_takes_every_image_from_a_mirror(doors: Doors, name: str) -> None:
    mirrored = Catalogue.of(AddonSettings(image_registry=MIRROR, kube_scheduler_tag="v1.36.1"))
    found = await rendered(doors, getattr(mirrored, name), about(sharing=Sharing.NONE, plugin=True))
    images = {image for one in found.values() for image in images_of(one)}
    assert images
    assert {image for image in images if not image.startswith(f"{MIRROR}/")} == set()
    if name == "hami":
        assert f"{MIRROR}/kube-scheduler:v1.36.1" in images


def images_of(document: Mapping[str, Any]) -> set[str]:
    """Every image that an object names, as one word or as a folder and a name."""
    found: set[str] = set()

    def walk(value: Any) -> None:
        if isinstance(value, Mapping):
            if isinstance(image := value.get("image"), str):
                folder = value.get("repository")
                found.add(f"{folder}/{image}" if folder and re.fullmatch(r"[\w.-]+", image) else image)
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    walk(document)
    return found
