"""Who is to hand out GPUs, given what was found: the whole matrix."""

from typing import Any

import pytest

from budcluster.hardware.gpu_holders import holds_nvidia
from budcluster.hardware.models import AddonOwner
from budcluster.hardware.reading.profile import Sharing
from budcluster.hardware.sharing import Seen, Server, choose, is_lone_plugin
from budcluster.hardware.survey import has_nvidia

OURS, OTHER = AddonOwner.OURS, AddonOwner.OTHER
HAMI, SLICED, WHOLE = Sharing.HAMI, Sharing.TIME_SLICING, Sharing.NONE
PLUGIN = "The DaemonSet nvidia-device-plugin-daemonset in kube-system"


@pytest.mark.parametrize(
    ("wish", "seen", "server"),
    [
        (HAMI, Seen(), Server.HAMI),
        (SLICED, Seen(), Server.OPERATOR),
        (WHOLE, Seen(), Server.OPERATOR),
        (HAMI, Seen(operator=OURS, operator_serves=True), Server.HAMI),
        (HAMI, Seen(hami=OURS, operator=OURS), Server.HAMI),
        (SLICED, Seen(hami=OURS, operator=OURS), Server.OPERATOR),
        (WHOLE, Seen(hami=OURS, operator=OURS), Server.OPERATOR),
        (HAMI, Seen(operator=OTHER), Server.HAMI),
        (HAMI, Seen(hami=OTHER), Server.OTHERS),
        (HAMI, Seen(hami=OTHER, operator=OTHER, operator_serves=True), Server.OTHERS),
        (WHOLE, Seen(operator=OTHER, operator_serves=True), Server.OTHERS),
        (WHOLE, Seen(hami=OURS, operator=OTHER), Server.OTHERS),
        (WHOLE, Seen(plugin=PLUGIN), Server.OTHERS),
    ],
)
def test_one_alone_is_chosen(wish: Sharing, seen: Seen, server: Server) -> None:
    choice = choose(wish, seen)
    assert (choice.server, choice.refused) == (server, False)


@pytest.mark.parametrize(
    ("wish", "seen", "why"),
    [
        (HAMI, Seen(operator=OTHER, operator_serves=True), "devicePlugin.enabled=false"),
        (SLICED, Seen(operator=OTHER), "devicePlugin.config"),
        (SLICED, Seen(operator=OTHER, operator_serves=True), "devicePlugin.config"),
        (SLICED, Seen(hami=OTHER), "HAMi that somebody else installed"),
        (WHOLE, Seen(hami=OTHER), "HAMi that somebody else installed"),
        (HAMI, Seen(plugin=PLUGIN), PLUGIN),
        (SLICED, Seen(plugin=PLUGIN), PLUGIN),
        (HAMI, Seen(plugin=PLUGIN, operator=OTHER), PLUGIN),
    ],
)
def test_what_would_take_something_from_others_is_refused_with_the_way_out(wish: Sharing, seen: Seen, why: str) -> None:
    choice = choose(wish, seen)
    assert choice.refused
    assert why in choice.said
    assert choice.server is seen.server
    assert choose(wish, seen, force=True).refused


@pytest.mark.parametrize(
    ("wish", "seen"),
    [
        (HAMI, Seen(holders=["team/train"])),
        (HAMI, Seen(operator=OURS, operator_serves=True, holders=["team/train"])),
        (WHOLE, Seen(hami=OURS, operator=OURS, holders=["team/train"])),
        (WHOLE, Seen(hami=OURS, operator=OTHER, holders=["team/train"])),
    ],
)
def test_gpus_are_not_taken_from_running_pods_unless_forced(wish: Sharing, seen: Seen) -> None:
    choice = choose(wish, seen)
    assert choice.refused
    assert "team/train" in choice.said
    assert choice.server is seen.server
    assert not choose(wish, seen, force=True).refused


@pytest.mark.parametrize(
    ("wish", "seen"),
    [
        (HAMI, Seen(hami=OURS, operator=OURS, holders=["team/train"])),
        (WHOLE, Seen(operator=OURS, operator_serves=True, holders=["team/train"])),
        (WHOLE, Seen(plugin=PLUGIN, holders=["team/train"])),
        (HAMI, Seen(hami=OTHER, holders=["team/train"])),
    ],
)
def test_running_pods_stand_in_nobodys_way_where_nothing_changes(wish: Sharing, seen: Seen) -> None:
    assert not choose(wish, seen).refused


def test_who_serves_where_two_were_left_by_a_killed_change_is_hami() -> None:
    assert Seen(hami=OURS, operator=OURS, operator_serves=True).server is Server.HAMI


def daemon_set(image: str, *, owner: str = "", desired: int = 2, **container: Any) -> dict[str, Any]:
    owners = [{"kind": owner}] if owner else []
    return {
        "metadata": {"name": "x", "namespace": "y", "ownerReferences": owners},
        "spec": {"template": {"spec": {"containers": [{"name": "ctr", "image": image, **container}]}}},
        "status": {"observedGeneration": 1, "desiredNumberScheduled": desired},
    }


PLUGIN_IMAGE = "nvcr.io/nvidia/k8s-device-plugin:v0.20.0"


@pytest.mark.parametrize(
    ("found", "is_it"),
    [
        (daemon_set(PLUGIN_IMAGE), True),
        (daemon_set("mirror.example:5000/nvidia/k8s-device-plugin@sha256:12"), True),
        (daemon_set("gke.gcr.io/nvidia-gpu-device-plugin:1.0"), True),
        (daemon_set(PLUGIN_IMAGE, command=["gpu-feature-discovery"]), False),
        (daemon_set(PLUGIN_IMAGE, owner="ClusterPolicy"), False),
        (daemon_set(PLUGIN_IMAGE, desired=0), False),
        (daemon_set("docker.io/projecthami/hami:v2.10.0", command=["nvidia-device-plugin"]), False),
        ({"metadata": {"name": "x", "namespace": "y"}}, False),
    ],
)
def test_a_plugin_that_somebody_installed_by_itself_is_known_by_its_image(found: dict[str, Any], is_it: bool) -> None:
    assert is_lone_plugin(found) is is_it


@pytest.mark.parametrize(
    ("labels", "allocatable", "is_it"),
    [
        ({"feature.node.kubernetes.io/pci-0302_10de.present": "true"}, {}, True),
        ({"feature.node.kubernetes.io/pci-10de.present": "true"}, {}, True),
        ({"feature.node.kubernetes.io/pci-10de_2330.present": "true"}, {}, True),
        ({"feature.node.kubernetes.io/pci-0302_10de_2330.present": "true"}, {}, True),
        ({"nvidia.com/gpu.present": "true"}, {}, True),
        ({}, {"nvidia.com/gpu": "8"}, True),
        ({}, {"nvidia.com/mig-1g.10gb": "7"}, True),
        ({"feature.node.kubernetes.io/pci-0200_15b3.present": "true"}, {"cpu": "8"}, False),
        ({"feature.node.kubernetes.io/pci-1200_1002.present": "true"}, {"amd.com/gpu": "8"}, False),
    ],
)
def test_an_nvidia_node_is_known_by_whoever_tells(
    labels: dict[str, str], allocatable: dict[str, str], is_it: bool
) -> None:
    assert has_nvidia({"metadata": {"labels": labels}, "status": {"allocatable": allocatable}}) is is_it


@pytest.mark.parametrize(
    ("node", "asked", "holds"),
    [
        ("a", {"nvidia.com/gpu": "1"}, True),
        ("a", {"nvidia.com/gpu": "0"}, False),
        ("a", {"nvidia.com/mig-1g.10gb": "1"}, True),
        ("a", {"cpu": "1"}, False),
        (None, {"nvidia.com/gpu": "1"}, False),
    ],
)
def test_a_pod_holds_gpus_once_it_has_a_node(node: str | None, asked: dict[str, str], holds: bool) -> None:
    pod = {"metadata": {}, "spec": {"nodeName": node, "containers": [{"resources": {"limits": asked}}]}}
    assert holds_nvidia(pod) is holds
