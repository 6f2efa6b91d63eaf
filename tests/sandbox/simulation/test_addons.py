"""Features, labels, resources and slices appear only through the add-ons that make them."""

from __future__ import annotations

from tests.sandbox.simulation.objects import container, pod, workload
from tests.sandbox.simulation.releases import (
    install_gpu_operator,
    install_hami,
    install_nfd,
    label,
    read_register,
)

ALL_CLASSES = 'sources:\n  pci:\n    deviceClassWhitelist: ["02", "03", "12", "0b40"]\n'


def labels(cluster, node):
    return cluster.node(node)["metadata"]["labels"]


def allocatable(cluster, node):
    return cluster.node(node)["status"]["allocatable"].get("nvidia.com/gpu")


def policy_condition(cluster, kind):
    policy = cluster.get("ClusterPolicy.nvidia.com", "cluster-policy", None)
    return next(row for row in policy["status"]["conditions"] if row["type"] == kind)


def test_features_appear_where_a_worker_runs(make_cluster):
    cluster = make_cluster("a100x8:1,cpu-amx:1")
    install_nfd(cluster, tolerate=False)
    assert "feature.node.kubernetes.io/cpu-cpuid.AMXTILE" in labels(cluster, "cpu-amx-1")
    assert not any("feature.node" in key for key in labels(cluster, "a100x8-1"))


def test_features_name_pci_devices_of_the_whitelisted_classes(make_cluster):
    cluster = make_cluster("h100x8:1,mi300x:1")
    install_nfd(cluster, config=ALL_CLASSES)
    assert labels(cluster, "h100x8-1")["feature.node.kubernetes.io/pci-0302_10de.present"] == "true"
    assert labels(cluster, "h100x8-1")["feature.node.kubernetes.io/pci-0200_15b3.present"] == "true"
    assert labels(cluster, "mi300x-1")["feature.node.kubernetes.io/pci-1200_1002.present"] == "true"
    listed = cluster.node("h100x8-1")["metadata"]["annotations"]["nfd.node.kubernetes.io/feature-labels"]
    assert "pci-0302_10de.present" in listed.split(",")
    feature = cluster.get("NodeFeature.nfd.k8s-sigs.io", "h100x8-1", "nfd")
    devices = feature["spec"]["features"]["instances"]["pci.device"]["elements"]
    assert sum(device["attributes"]["vendor"] == "10de" for device in devices) == 8


def test_labels_stay_without_nfd_until_the_prune_job_ran(make_cluster):
    cluster = make_cluster("cpu-amx:1")
    install_nfd(cluster)
    cluster.store.delete("DaemonSet", "nfd", "nfd-worker")
    cluster.store.delete("Deployment", "nfd", "nfd-master")
    cluster.advance(30)
    assert any("feature.node" in key for key in labels(cluster, "cpu-amx-1"))
    one = container("registry.k8s.io/nfd/node-feature-discovery:v0.19.0", command=["nfd-master"], args=["-prune"])
    cluster.create(pod("prune", one, restartPolicy="Never"))
    cluster.advance(30)
    assert not any("feature.node" in key for key in labels(cluster, "cpu-amx-1"))


def test_the_operator_waits_for_nfd_then_brings_driver_labels_and_resource(make_cluster):
    cluster = make_cluster("h100x8:1,cpu:1")
    install_gpu_operator(cluster)
    assert policy_condition(cluster, "Ready")["reason"] == "NFDLabelsMissing"
    install_nfd(cluster)
    cluster.advance(60)
    assert policy_condition(cluster, "Error")["reason"] == "OperandNotReady"
    assert "state-driver" in policy_condition(cluster, "Error")["message"]
    assert allocatable(cluster, "h100x8-1") is None
    cluster.advance(600)
    assert policy_condition(cluster, "Ready")["reason"] == "Reconciled"
    assert allocatable(cluster, "h100x8-1") == "8"
    found = labels(cluster, "h100x8-1")
    assert found["nvidia.com/gpu.product"] == "NVIDIA-H100-80GB-HBM3"
    assert found["nvidia.com/cuda.driver-version.full"] == "595.91.07"
    assert cluster.get("RuntimeClass", "nvidia", None)["handler"] == "nvidia"
    validators = [one for one in cluster.pods("gpu-operator") if "validator" in one["metadata"]["name"]]
    assert [one["spec"]["nodeName"] for one in validators] == ["h100x8-1"]


def test_the_operator_says_when_there_is_no_gpu(make_cluster):
    cluster = make_cluster("cpu:1")
    install_nfd(cluster)
    install_gpu_operator(cluster)
    assert policy_condition(cluster, "Ready")["reason"] == "NoGPUNodes"


def test_removing_the_device_plugin_leaves_zero_devices(make_cluster):
    cluster = make_cluster("l4:1")
    install_nfd(cluster)
    install_gpu_operator(cluster)
    assert allocatable(cluster, "l4-1") == "1"

    def disable(policy):
        policy["spec"]["devicePlugin"] = {"enabled": False}

    cluster.store.update("ClusterPolicy.nvidia.com", None, "cluster-policy", disable)
    cluster.advance(30)
    assert allocatable(cluster, "l4-1") == "0"
    assert labels(cluster, "l4-1")["nvidia.com/gpu.product"] == "NVIDIA-L4"


def test_time_slicing_multiplies_the_resource_and_renames_the_product(make_cluster):
    cluster = make_cluster("t4:1")
    install_nfd(cluster)
    install_gpu_operator(cluster)
    text = "version: v1\nsharing:\n  timeSlicing:\n    resources: [{name: nvidia.com/gpu, replicas: 4}]\n"
    meta = {"name": "slices", "namespace": "gpu-operator"}
    cluster.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"any": text}})

    def configure(policy):
        policy["spec"]["devicePlugin"] = {"config": {"name": "slices", "default": "any"}}

    cluster.store.update("ClusterPolicy.nvidia.com", None, "cluster-policy", configure)
    cluster.advance(60)
    assert allocatable(cluster, "t4-1") == "4"


def test_partitioned_cards_are_counted_as_the_strategy_says(make_cluster):
    cluster = make_cluster("a100x8-mig:1,cpu:1")
    install_nfd(cluster)
    install_gpu_operator(cluster, mig={"strategy": "mixed"})
    assert allocatable(cluster, "a100x8-mig-1") == "0"
    assert cluster.node("a100x8-mig-1")["status"]["allocatable"]["nvidia.com/mig-1g.10gb"] == "56"
    assert labels(cluster, "a100x8-mig-1")["nvidia.com/mig-1g.10gb.count"] == "56"


def hami_cluster(make_cluster):
    cluster = make_cluster("a100x8:1,cpu:1")
    label(cluster, "a100x8-1", gpu="on")
    install_hami(cluster)
    return cluster


def slice_of(mib, *, gpus="1", cores="0"):
    limits = {"nvidia.com/gpu": gpus, "nvidia.com/gpumem": str(mib), "nvidia.com/gpucores": cores}
    return container(limits=limits)


def test_hami_registers_cards_without_zeros(make_cluster):
    cluster = hami_cluster(make_cluster)
    rows = read_register(cluster, "a100x8-1")
    assert len(rows) == 8
    assert "index" not in rows[0]
    assert rows[7] == {
        "id": cluster.world.machines["a100x8-1"].devices[7].uuid, "index": 7, "count": 10, "devmem": 81920,
        "devcore": 100, "type": "NVIDIA A100-SXM4-80GB", "numa": 1, "mode": "hami-core", "health": True,
    }  # fmt: skip
    assert allocatable(cluster, "a100x8-1") == "80"


def test_hami_hands_out_slices_and_says_why_not(make_cluster):
    cluster = hami_cluster(make_cluster)
    tolerant = {"pod_spec": {"tolerations": [{"operator": "Exists"}]}}
    cluster.create(workload("Deployment", "llm", slice_of(50000), replicas=9, **tolerant))
    cluster.advance(20)
    running = [one for one in cluster.pods() if one["status"]["phase"] == "Running"]
    assert len(running) == 8
    assert all(one["spec"]["schedulerName"] == "hami-scheduler" for one in running)
    cards = {one["metadata"]["annotations"]["hami.io/vgpu-devices-allocated"] for one in running}
    assert len(cards) == 8
    assert all(text.endswith(",NVIDIA,50000,0:;") for text in cards)
    failure = cluster.events("FilteringFailed")[0]
    assert failure.startswith("no available node, 2 nodes do not meet: ")
    assert "a100x8-1: 8/8 CardInsufficientMemory" in failure


def test_without_hami_its_resources_are_insufficient(make_cluster):
    cluster = make_cluster("cpu:1")
    cluster.create(pod("p", slice_of(1000)))
    assert "Insufficient nvidia.com/gpumem" in cluster.events("FailedScheduling")[0]


def test_the_hami_plugin_crashes_without_the_nvidia_runtime(make_cluster):
    cluster = make_cluster("h100x8:1,cpu:1")
    label(cluster, "h100x8-1", gpu="on")
    install_nfd(cluster)
    install_gpu_operator(cluster, devicePlugin={"enabled": False})
    cluster.advance(600)
    install_hami(cluster)
    plugin = next(one for one in cluster.pods("kube-system") if "plugin" in one["metadata"]["name"])
    assert "Incompatible strategy detected auto" in cluster.log(plugin["metadata"]["name"], "kube-system")

    def use_runtime(obj):
        obj["spec"]["template"]["spec"]["runtimeClassName"] = "nvidia"

    cluster.store.update("DaemonSet", "kube-system", "hami-device-plugin", use_runtime)
    cluster.advance(60)
    assert len(read_register(cluster, "h100x8-1")) == 8
