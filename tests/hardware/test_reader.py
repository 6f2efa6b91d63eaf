"""From node objects to the hardware profile."""

import pytest

from budcluster.cluster.activities import as_json
from budcluster.hardware.reading.pods import by_node
from budcluster.hardware.reading.profile import GpuPool, GpuVendor, PoolUse, Sharing
from budcluster.hardware.reading.reader import read_cluster, read_node, summarize
from tests.hardware import nodes


def _only(pools: tuple[GpuPool, ...]) -> GpuPool:
    assert len(pools) == 1
    return pools[0]


def test_an_a100_node_is_read_whole() -> None:
    profile = read_node(nodes.a100x8())
    assert (profile.ready, profile.schedulable, profile.reasons, profile.gaps) == (True, True, (), ())
    assert [gpu.model for gpu in profile.gpus] == ["NVIDIA-A100-SXM4-80GB"] * 8
    assert {gpu.memory_mib for gpu in profile.gpus} == {81920}
    pool = _only(profile.pools)
    assert (pool.physical, pool.advertised, pool.requested, pool.free) == (8, 8, 0, 8)
    assert pool.sharing is Sharing.NONE
    assert (profile.cpu.cores, profile.cpu.allocatable_cores, profile.cpu.threads_per_core) == (96, 95.69, 2)
    assert profile.cpu.generation == "Skylake or Cascade Lake"
    assert profile.cpu.features == ("AVX512F", "AVX512VNNI")
    assert profile.memory_bytes == 1176213676 * 1024
    assert (profile.driver, profile.cuda) == ("580.95.05", "13.0")
    assert profile.instance_type == "p4de.24xlarge"


def test_what_live_pods_hold_is_not_free() -> None:
    node = nodes.a100x8()
    pods = [
        nodes.pod(node, "a", nvidia_com__gpu="2"),
        nodes.pod(node, "b", nvidia_com__gpu="1"),
        nodes.pod(node, "done", phase="Succeeded", nvidia_com__gpu="4"),
    ]
    pool = _only(read_cluster([node], pods=pods).nodes[0].pools)
    assert (pool.requested, pool.free) == (3, 5)


def test_init_containers_count_as_the_larger_and_sidecars_as_a_sum() -> None:
    node = nodes.a100x8()
    pod = nodes.pod(node, nvidia_com__gpu="2")
    pod["spec"]["initContainers"] = [
        {"name": "warm", "resources": {"limits": {"nvidia.com/gpu": "3"}}},
        {"name": "side", "restartPolicy": "Always", "resources": {"requests": {"cpu": "500m"}}},
    ]
    pod["spec"]["overhead"] = {"cpu": "250m"}
    request = by_node([pod])[node["metadata"]["name"]][0]
    assert request.devices("nvidia.com/gpu") == 3
    assert request.resources["cpu"] == 0.75


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda n: n["spec"].update(unschedulable=True), "is cordoned"),
        (
            lambda n: n["spec"]["taints"].append({"key": "team", "effect": "NoSchedule"}),
            "has the taint team:NoSchedule",
        ),
        (lambda n: n["status"]["conditions"][2].update(status="Unknown", reason="NodeStatusUnknown"),
         "is not ready (NodeStatusUnknown)"),
        (lambda n: n["status"]["conditions"][1].update(status="True"), "is short of disk"),
        (lambda n: n["status"].update(conditions=[]), "is not ready (its kubelet has not reported)"),
    ],
)  # fmt: skip
def test_nothing_is_free_on_a_node_that_takes_no_pods(spoil: object, reason: str) -> None:
    node = nodes.a100x8()
    spoil(node)  # type: ignore[operator]
    profile = read_node(node)
    assert not profile.schedulable
    assert reason in profile.reasons
    assert _only(profile.pools).free == 0
    assert _only(profile.pools).physical == 8


def test_a_time_sliced_gpu_is_one_device_with_four_shares() -> None:
    profile = read_node(nodes.t4_time_sliced())
    assert [(gpu.model, gpu.shares) for gpu in profile.gpus] == [("Tesla-T4", 4)]
    pool = _only(profile.pools)
    assert (pool.physical, pool.advertised, pool.sharing) == (1, 4, Sharing.TIME_SLICING)


def test_mixed_mig_offers_slices_with_their_own_memory() -> None:
    profile = read_node(nodes.h100_mig_mixed())
    assert [(gpu.model, gpu.memory_mib) for gpu in profile.gpus] == [("NVIDIA-H100-80GB-HBM3", 81559)]
    pool = _only(profile.pools)
    assert (pool.resource, pool.memory_mib, pool.advertised, pool.sharing) == (
        "nvidia.com/mig-3g.40gb", 40320, 2, Sharing.MIG,
    )  # fmt: skip


def test_single_mig_counts_physical_devices_from_the_pci_bus() -> None:
    node = nodes.with_resources(nodes.a100x8(), {"nvidia.com/gpu": "7"})
    node["metadata"]["labels"] |= {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB-MIG-1g.10gb",
                                   "nvidia.com/gpu.count": "7", "nvidia.com/gpu.memory": "9728"}  # fmt: skip
    feature = nodes.feature_of(node, vendor="10de", device="20b2", cls="0302", count=1, numa="4")
    profile = read_cluster([node], features=[feature]).nodes[0]
    assert [(gpu.model, gpu.memory_mib) for gpu in profile.gpus] == [("NVIDIA-A100-SXM4-80GB", None)]
    assert (_only(profile.pools).advertised, _only(profile.pools).memory_mib) == (7, 9728)
    assert profile.numa_nodes == 4


@pytest.mark.parametrize("register", [nodes.REGISTER_JSON, nodes.REGISTER_LEGACY])
def test_hami_tells_each_device_and_an_unhealthy_one_is_never_free(register: str) -> None:
    node = nodes.hami(register)
    pods = [
        nodes.pod(node, "half", allocated="GPU-0,NVIDIA,40960,30:;", nvidia_com__gpu="1"),
        nodes.pod(node, "sick", allocated="GPU-1,NVIDIA,1024,10:;", nvidia_com__gpu="1"),
    ]
    profile = read_cluster([node], pods=pods).nodes[0]
    first, second = profile.gpus
    assert (first.uuid, first.shares, first.free_memory_mib, first.healthy) == ("GPU-0", 10, 40960, True)
    assert [use.pod for use in first.used_by or ()] == ["half"]
    assert (second.healthy, second.free_memory_mib) == (False, 0)
    pool = _only(profile.pools)
    assert (pool.sharing, pool.physical, pool.advertised, pool.requested, pool.free) == (Sharing.HAMI, 2, 20, 2, 9)


def test_a_pod_that_took_all_cores_of_a_hami_device_leaves_no_share() -> None:
    node = nodes.hami()
    pods = [nodes.pod(node, allocated="GPU-0,NVIDIA,10240,100:;", nvidia_com__gpu="1")]
    assert _only(read_cluster([node], pods=pods).nodes[0].pools).free == 0


def test_a_device_that_hami_cordoned_counts_as_unhealthy() -> None:
    node = nodes.hami()
    node["metadata"]["annotations"]["hami.io/device-cordon"] = "GPU-0"
    assert [gpu.healthy for gpu in read_node(node).gpus] == [False, False]


@pytest.mark.parametrize("text", ["[{}]", "[1]", "x,y:", "[" * 5000, "{", '[{"id":"a","count":true}]', "a" * 300_000])
def test_a_register_annotation_that_is_not_hamis_becomes_a_gap(text: str) -> None:
    profile = read_node(nodes.hami(text))
    assert len(profile.gpus) == 2
    assert any("hami.io/node-nvidia-register" in gap for gap in profile.gaps)


def test_devices_of_two_kinds_under_hami_are_two_pools_each_with_its_own_free() -> None:
    node = nodes.hami(nodes.REGISTER_MIXED)
    pods = [
        nodes.pod(node, "llm", allocated="GPU-0,NVIDIA,40960,0:;", nvidia_com__gpu="1"),
        nodes.pod(node, "embed", allocated="GPU-1,NVIDIA,4096,0:;", nvidia_com__gpu="1"),
        nodes.pod(node, "embed-2", allocated="GPU-1,NVIDIA,4096,0:;", nvidia_com__gpu="1"),
    ]
    profile = read_cluster([node], pods=pods)
    assert [
        (pool.model, pool.memory_mib, pool.physical, pool.advertised, pool.requested, pool.free)
        for pool in profile.nodes[0].pools
    ] == [("NVIDIA-A100-SXM4-80GB", 81920, 1, 10, 1, 9), ("Tesla-T4", 15360, 1, 10, 2, 8)]
    assert [(m.model, m.physical, m.advertised, m.free) for m in profile.summary.by_model] == [
        ("NVIDIA-A100-SXM4-80GB", 1, 10, 9),
        ("Tesla-T4", 1, 10, 8),
    ]


def test_a_pod_whose_device_hami_does_not_tell_is_counted_once_and_is_free_in_no_pool() -> None:
    node = nodes.hami(nodes.REGISTER_MIXED)
    first, second = read_cluster([node], pods=[nodes.pod(node, "new", nvidia_com__gpu="2")]).nodes[0].pools
    assert (first.requested, second.requested) == (2, 0)
    assert (first.free, second.free) == (8, 8)


def test_what_the_labels_say_of_the_first_device_is_not_said_of_another_kind() -> None:
    node = nodes.hami(nodes.REGISTER_MIXED)
    node["metadata"]["labels"] |= {"nvidia.com/gpu.compute.major": "8", "nvidia.com/gpu.compute.minor": "0"}
    assert [pool.compute_capability for pool in read_node(node).pools] == [(8, 0), None]


def test_two_kinds_on_the_bus_and_one_in_the_labels_are_of_no_known_model() -> None:
    node = nodes.a100x8()
    feature = nodes.feature_of(node, vendor="10de", device="20b2", cls="0302", count=4)
    others = nodes.feature_of(node, vendor="10de", device="1eb8", cls="0302", count=4)
    for found in (feature, others):
        found["spec"]["features"]["instances"]["pci.device"]["elements"].pop()  # the network card
    elements = feature["spec"]["features"]["instances"]["pci.device"]["elements"]
    elements += others["spec"]["features"]["instances"]["pci.device"]["elements"]
    profile = read_cluster([node], features=[feature]).nodes[0]
    assert {(gpu.model, gpu.memory_mib) for gpu in profile.gpus} == {(None, None)}
    assert _only(profile.pools).model is None
    assert "PCI 1eb8, 20b2" in profile.gaps[0]
    assert "NVIDIA-A100-SXM4-80GB" in profile.gaps[0]


def test_devices_that_are_not_offered_are_unhealthy_and_which_ones_is_a_gap() -> None:
    profile = read_cluster([nodes.with_resources(nodes.a100x8(), {"nvidia.com/gpu": "7"})])
    assert (profile.summary.gpus, profile.summary.gpus_healthy) == (8, 7)
    assert "1 of 8 devices are not offered to pods" in profile.nodes[0].gaps[0]


def test_a_time_sliced_device_that_is_lost_is_missed_in_its_shares() -> None:
    node = nodes.t4_time_sliced()
    node["metadata"]["labels"]["nvidia.com/gpu.count"] = "2"
    assert [gpu.healthy for gpu in read_node(node).gpus] == [True, False]


def test_the_pods_behind_what_is_requested_are_named_where_no_device_tells_them() -> None:
    node = nodes.a100x8()
    pods = [nodes.pod(node, "llm", nvidia_com__gpu="2"), nodes.pod(node, "web", cpu="1")]
    profile = read_cluster([node], pods=pods).nodes[0]
    assert _only(profile.pools).used_by == (PoolUse("work", "llm", 2),)
    assert profile.gpus[0].used_by is None


def test_an_l40s_is_read_with_its_network() -> None:
    profile = read_node(nodes.l40s())
    assert {(gpu.model, gpu.memory_mib) for gpu in profile.gpus} == {("NVIDIA-L40S", 46068)}
    assert _only(profile.pools).compute_capability == (8, 9)
    assert (profile.network.sriov, profile.network.rdma) == (True, True)
    assert (read_node(nodes.a100x8()).network.rdma, read_node({"metadata": {}}).network.rdma) == (False, None)


def test_mps_and_renamed_shares_are_shares_of_the_physical_devices() -> None:
    node = nodes.t4_time_sliced()
    node["metadata"]["labels"]["nvidia.com/gpu.sharing-strategy"] = "mps"
    assert _only(read_node(node).pools).sharing is Sharing.MPS
    renamed = nodes.with_resources(node, {"nvidia.com/gpu": "0", "nvidia.com/gpu.shared": "4"})
    pods = [nodes.pod(renamed, nvidia_com__gpu_shared="1")]
    profile = read_cluster([renamed], pods=pods).nodes[0]
    pool = _only(profile.pools)
    assert (pool.resource, pool.physical, pool.advertised, pool.free) == ("nvidia.com/gpu.shared", 1, 4, 3)
    assert [(gpu.healthy, gpu.shares) for gpu in profile.gpus] == [(True, 4)]


def test_several_mig_profiles_and_a_whole_device_on_one_node_are_pools_of_their_own() -> None:
    node = nodes.h100_mig_mixed()
    node["metadata"]["labels"] |= {"nvidia.com/gpu.count": "2", "nvidia.com/mig-1g.10gb.memory": "9728"}
    resources = {"nvidia.com/gpu": "1", "nvidia.com/mig-3g.40gb": "1", "nvidia.com/mig-1g.10gb": "4"}
    node = nodes.with_resources(node, resources)
    pods = [nodes.pod(node, "small", **{"nvidia_com__mig-1g_10gb": "3"})]
    profile = read_cluster([node], pods=pods).nodes[0]
    assert [(pool.resource, pool.memory_mib, pool.advertised, pool.free) for pool in profile.pools] == [
        ("nvidia.com/gpu", 81559, 1, 1),
        ("nvidia.com/mig-3g.40gb", 40320, 1, 1),
        ("nvidia.com/mig-1g.10gb", 9728, 4, 1),
    ]
    assert len(profile.gpus) == 2


def test_intels_gpus_are_counted_once_however_often_each_is_shared() -> None:
    profile = read_node(nodes.max1550())
    assert [(gpu.vendor, gpu.model, gpu.shares) for gpu in profile.gpus] == [(GpuVendor.INTEL, "Max_1550", 5)] * 2
    pool = _only(profile.pools)
    assert (pool.resource, pool.physical, pool.advertised) == ("gpu.intel.com/xe", 2, 10)


def test_amd_and_gaudi_are_read_from_their_plugins() -> None:
    amd = read_node(nodes.mi300x8())
    assert {(gpu.vendor, gpu.model, gpu.memory_mib) for gpu in amd.gpus} == {
        (GpuVendor.AMD, "AMD_Instinct_MI300X_OAM", 196608)
    }
    assert amd.driver == "6.12.12"
    node = nodes.gaudi3x8()
    feature = nodes.feature_of(node, vendor="1da3", device="1060", cls="1200", count=8)
    gaudi = read_cluster([node], features=[feature]).nodes[0]
    assert {(gpu.vendor, gpu.model, gpu.memory_mib) for gpu in gaudi.gpus} == {(GpuVendor.HABANA, "Gaudi3", 131072)}
    assert "Gaudi generation" in read_node(node).gaps[0]


def test_a_cpu_node_has_no_gpu_and_names_its_matrix_units() -> None:
    profile = read_node(nodes.sapphire_rapids())
    assert (profile.gpus, profile.pools) == ((), ())
    assert profile.cpu.generation == "Sapphire Rapids"
    assert "AMXTILE" in profile.cpu.features


def test_amds_processors_are_named_and_have_no_matrix_units() -> None:
    profile = read_node(nodes.genoa())
    assert (profile.gpus, profile.cpu.vendor, profile.cpu.generation) == ((), "AMD", "Genoa (Zen 4)")
    assert profile.cpu.features == ("AVX512BF16", "AVX512F", "AVX512VNNI")


@pytest.mark.parametrize("label", ["pci-10de.present", "pci-0300_10de.present", "pci-10de_20b2.present"])
def test_a_node_with_nothing_but_a_pci_label_still_has_a_gpu_and_a_gap(label: str) -> None:
    node = nodes.with_resources(nodes.with_labels(nodes.a100x8(), drop="nvidia.com/"), {})
    labels = node["metadata"]["labels"]
    del labels["feature.node.kubernetes.io/pci-0302_10de.present"]
    labels["feature.node.kubernetes.io/" + label] = "true"
    profile = read_node(node)
    assert [(gpu.model, gpu.healthy) for gpu in profile.gpus] == [(None, False)]
    assert any("how many and which is not known" in gap for gap in profile.gaps)


def test_a_network_card_is_no_gpu() -> None:
    node = nodes.sapphire_rapids()
    node["metadata"]["labels"]["feature.node.kubernetes.io/pci-0207_15b3.present"] = "true"
    assert read_node(node).gpus == ()


@pytest.mark.parametrize("value", ["-1", "1e9", "99999999999", "x" * 10_000, "٣", " 8", "8.5", None, {"a": 1}])
def test_absurd_labels_become_gaps_and_never_numbers(value: object) -> None:
    node = nodes.a100x8()
    node["metadata"]["labels"]["nvidia.com/gpu.count"] = value
    profile = read_node(node)
    assert len(profile.gpus) == 8  # as advertised
    assert all(len(gap) < 250 for gap in profile.gaps)


@pytest.mark.parametrize("value", ["NaN", "1_000", "-8", "8.5", "1e30", "Infinity", ""])
def test_absurd_resources_become_gaps_and_never_numbers(value: str) -> None:
    node = nodes.with_resources(nodes.a100x8(), {"nvidia.com/gpu": value})
    profile = read_node(node)
    assert _only(profile.pools).advertised == 0
    assert any("nvidia.com/gpu" in gap for gap in profile.gaps)


@pytest.mark.parametrize("value", ["9Ei", "1e25", "9223372036854775807Ki", "12E"])
def test_more_memory_or_cores_than_any_node_has_is_a_gap_and_can_be_written_down(value: str) -> None:
    node = nodes.a100x8()
    node["status"]["capacity"] |= {"memory": value, "cpu": value}
    profile = read_cluster([node, nodes.a100x8()])
    assert (profile.nodes[0].memory_bytes, profile.nodes[0].cpu.cores) == (0, 0)
    assert [gap.split(" is ")[0] for gap in profile.nodes[0].gaps] == ["resource cpu", "resource memory"]
    assert as_json(profile)["summary"]["memory_bytes"] == 1176213676 * 1024


def test_the_sum_of_memory_stops_at_what_can_be_written_down() -> None:
    node = nodes.a100x8()
    node["status"]["capacity"]["memory"] = "1Pi"
    summary = summarize((read_node(node),) * 9000)
    assert as_json(summary)["memory_bytes"] == 2**63 - 1


def test_a_pod_that_asks_for_more_than_there_is_counts_as_a_pebibyte() -> None:
    node = nodes.a100x8()
    request = by_node([nodes.pod(node, memory="9Ei", cpu="1e30")])[node["metadata"]["name"]][0]
    assert dict(request.resources) == {"memory": 2**50, "cpu": 2**50}


def test_nodes_that_discovery_did_not_reach_are_named_with_the_reason() -> None:
    tainted, idle, dead = nodes.a100x8(), nodes.sapphire_rapids(), nodes.sapphire_rapids()
    idle["spec"] = {}
    dead["status"]["conditions"] = []
    for name, node in (("tainted", tainted), ("idle", idle), ("dead", dead)):
        node["metadata"] |= {"name": name, "annotations": {}}
    profile = read_cluster([nodes.a100x8(), tainted, idle, dead])
    assert profile.gaps == (
        "Node Feature Discovery has not finished on 3 of 4 nodes: tainted (its taint nvidia.com/gpu:NoSchedule may "
        "keep the worker away), idle (no worker has reported from there), dead (it is not ready)",
    )
    assert "(its taint nvidia.com/gpu:NoSchedule may keep the worker away)" in profile.nodes[1].gaps[0]
    assert read_cluster([nodes.a100x8()]).gaps == ()


def test_a_node_without_anything_is_read_without_an_error() -> None:
    profile = read_node({"metadata": {"name": "bare"}})
    assert (profile.name, profile.ready, profile.gpus) == ("bare", False, ())


def test_the_sum_counts_physical_devices_by_model() -> None:
    first, second = nodes.a100x8(), nodes.t4_time_sliced()
    second["metadata"]["name"] = "t4"
    summary = read_cluster([first, second, nodes.sapphire_rapids()]).summary
    assert (summary.nodes, summary.nodes_ready, summary.gpus, summary.gpus_healthy) == (3, 3, 9, 9)
    assert [(m.model, m.physical, m.advertised, m.free) for m in summary.by_model] == [
        ("NVIDIA-A100-SXM4-80GB", 8, 8, 8),
        ("Tesla-T4", 1, 4, 4),
    ]
