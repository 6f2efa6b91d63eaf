"""Does it fit, and if not, why not and what would."""

import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from budcluster.deployment.fitting.demands import Demand
from budcluster.deployment.fitting.fit import Verdict, check_fit
from budcluster.deployment.fitting.model_facts import UnusableConfig, read_config
from budcluster.deployment.fitting.placing import Stock
from budcluster.deployment.fitting.rooms import Asked, Room, Share, rooms_of
from budcluster.deployment.fitting.sizing import (
    GIB,
    Budget,
    Shape,
    estimate,
    kv_bytes_per_token,
    max_model_length,
    misshapen,
)
from budcluster.hardware.reading.reader import read_cluster
from tests.deployment import models
from tests.hardware import nodes

LLAMA_8B = read_config(models.LLAMA_8B)
LLAMA_70B = read_config(models.LLAMA_70B)


def _rooms(*found: nodes.Node, pods: list[nodes.Node] | None = None) -> list[Room]:
    for number, node in enumerate(found):
        node["metadata"]["name"] = f"node-{number}"
    for pod in pods or ():
        pod["spec"]["nodeName"] = "node-0"
    return rooms_of(read_cluster(found, pods=pods or ()).nodes)


@pytest.mark.parametrize(
    ("tokens", "length"), [((1000, 1000), 2200), ((1, 0), 2), ((3, 4), 8), ((4096, 4096), 9012), ((10, 0), 11)]
)
def test_the_context_is_a_tenth_more_than_asked_rounded_up(tokens: tuple[int, int], length: int) -> None:
    assert max_model_length(*tokens) == length


def test_parameters_are_estimated_within_three_percent() -> None:
    assert LLAMA_8B.parameters() == pytest.approx(8.03e9, rel=0.03)
    assert LLAMA_70B.parameters() == pytest.approx(70.6e9, rel=0.03)
    assert read_config(models.DEEPSEEK_V3).parameters() == pytest.approx(671e9, rel=0.03)


def test_the_cache_of_a_token_counts_grouped_heads_split_over_ranks() -> None:
    assert kv_bytes_per_token(LLAMA_8B, Shape()) == 2 * 32 * 8 * 128 * 2
    assert kv_bytes_per_token(LLAMA_8B, Shape(tensor_parallel=4)) == 2 * 32 * 2 * 128 * 2
    assert kv_bytes_per_token(LLAMA_8B, Shape(tensor_parallel=16)) == 2 * 32 * 1 * 128 * 2
    assert kv_bytes_per_token(LLAMA_8B, Shape(kv_cache_dtype="fp8")) == 2 * 32 * 8 * 128


def test_the_compressed_cache_of_latent_attention_is_whole_on_every_rank() -> None:
    facts = read_config(models.DEEPSEEK_V3)
    assert kv_bytes_per_token(facts, Shape(tensor_parallel=8)) == 61 * (512 + 64) * 2


def test_weight_files_summed_by_the_hub_are_believed_over_the_estimate() -> None:
    facts = read_config(models.LLAMA_8B, weights_bytes=16_060_000_000)
    assert estimate(facts, Shape(tensor_parallel=2)).weights == 8_030_000_000


@pytest.mark.parametrize("config", [{}, {"num_hidden_layers": -1}, {"num_hidden_layers": True, "hidden_size": 1}])
def test_a_config_that_lacks_a_needed_number_says_which(config: dict[str, object]) -> None:
    with pytest.raises(UnusableConfig, match="num_hidden_layers"):
        read_config(config)


def test_a_multimodal_config_is_read_from_its_text_part() -> None:
    assert read_config({"architectures": ["X"], "text_config": models.LLAMA_8B}).layers == 32


def test_a_small_model_fits_on_one_gpu_and_the_node_is_named() -> None:
    fit = check_fit(Demand(Shape(max_model_len=8192), facts=LLAMA_8B), _rooms(nodes.a100x8()))
    assert (fit.verdict, fit.nodes, fit.reasons) == (Verdict.YES, ("node-0",), ())
    assert fit.needed_mib is not None
    assert 18_000 < fit.needed_mib < 24_000


def test_a_model_too_large_for_one_gpu_is_told_how_many_would_do() -> None:
    fit = check_fit(Demand(Shape(max_model_len=8192), facts=LLAMA_70B), _rooms(nodes.a100x8()))
    assert fit.verdict is Verdict.NO
    assert fit.nearest == ("with tensor_parallel_size 4 it fits",) or fit.nearest[0].startswith("with tensor")
    assert "a device needs" in fit.reasons[0].reasons[0]


def test_a_context_too_long_is_told_the_largest_that_fits() -> None:
    demand = Demand(Shape(max_model_len=131072), facts=LLAMA_8B, gpu_model="Tesla-T4")
    t4 = nodes.a100x8()
    t4["metadata"]["labels"] |= {"nvidia.com/gpu.product": "NVIDIA-L4", "nvidia.com/gpu.memory": "23034"}
    fit = check_fit(replace(demand, gpu_model="NVIDIA-L4"), _rooms(t4))
    assert fit.verdict is Verdict.NO
    sentence = next(sentence for sentence in fit.nearest if "max_model_len" in sentence)
    context = int(sentence.split()[2])
    shorter = replace(demand, gpu_model="NVIDIA-L4", shape=Shape(max_model_len=context))
    assert check_fit(shorter, _rooms(t4)).verdict is Verdict.YES


def test_replicas_beyond_the_free_gpus_are_refused_with_the_count_that_fits() -> None:
    node = nodes.a100x8()
    busy = [nodes.pod(node, nvidia_com__gpu="5")]
    fit = check_fit(Demand(Shape(), replicas=4, facts=LLAMA_8B), _rooms(node, pods=busy))
    assert (fit.verdict, len(fit.nodes)) == (Verdict.NO, 3)
    assert "with 3 replicas it fits" in fit.nearest


def test_a_replica_is_never_split_over_nodes() -> None:
    first, second = nodes.a100x8(), nodes.a100x8()
    rooms = _rooms(first, second, pods=[nodes.pod(first, nvidia_com__gpu="5")])
    second_rooms = [replace(room, devices=room.devices[:4]) for room in rooms]
    fit = check_fit(Demand(Shape(tensor_parallel=8), facts=LLAMA_70B), second_rooms)
    assert fit.verdict is Verdict.NO
    assert "needs 8 free GPUs on one node, and the most that a node has left is 4" in fit.reasons[0].reasons[0]


def test_accepted_deployments_that_are_not_scheduled_yet_take_their_place_first() -> None:
    rooms = _rooms(nodes.a100x8())
    asked = Demand(Shape(tensor_parallel=2), facts=LLAMA_8B)
    waiting: list[Demand] = []
    verdicts = []
    for _ in range(200):
        fit = check_fit(asked, rooms, waiting=waiting)
        verdicts.append(fit.verdict)
        if fit.verdict is Verdict.YES:
            waiting.append(asked)
    assert verdicts.count(Verdict.YES) == 4


def test_an_unknown_model_is_unknown_and_never_yes() -> None:
    fit = check_fit(Demand(Shape()), _rooms(nodes.a100x8()))
    assert (fit.verdict, fit.nodes) == (Verdict.UNKNOWN, ("node-0",))


def test_a_cordoned_node_is_no_place_and_says_so() -> None:
    node = nodes.a100x8()
    node["spec"]["unschedulable"] = True
    fit = check_fit(Demand(Shape(), facts=LLAMA_8B), _rooms(node))
    assert fit.reasons[0].reasons == ("node node-0 is cordoned",)


def test_an_old_driver_is_told_before_the_image_crashes_on_it() -> None:
    node = nodes.a100x8()
    node["metadata"]["labels"]["nvidia.com/cuda.driver-version.full"] = "550.54.15"
    fit = check_fit(Demand(Shape(), facts=LLAMA_8B, min_driver_major=580), _rooms(node))
    assert "its NVIDIA driver is 550, and the image needs 580 or newer" in fit.reasons[0].reasons


def test_shares_need_hami_and_one_gpu() -> None:
    demand = Demand(Shape(max_model_len=2048), facts=LLAMA_8B, share=Share(memory_mib=24_000))
    assert "only HAMi gives shares" in check_fit(demand, _rooms(nodes.a100x8())).reasons[0].reasons[0]
    assert check_fit(demand, _rooms(nodes.hami())).verdict is Verdict.YES
    wide = replace(demand, shape=Shape(tensor_parallel=2))
    assert "crash on shares" in check_fit(wide, _rooms(nodes.hami())).reasons[0].reasons[0]


def test_shares_of_one_device_are_counted_by_memory() -> None:
    demand = Demand(Shape(max_model_len=2048), replicas=4, facts=LLAMA_8B, share=Share(memory_mib=24_000))
    fit = check_fit(demand, _rooms(nodes.hami()))
    assert (fit.verdict, len(fit.nodes)) == (Verdict.NO, 3)  # one healthy device of 81,920 MiB


def test_a_device_that_somebody_shares_is_not_given_whole() -> None:
    node = nodes.hami()
    rooms = _rooms(node, pods=[nodes.pod(node, allocated="GPU-0,NVIDIA,1024,0:;", nvidia_com__gpu="1")])
    assert check_fit(Demand(Shape(), facts=LLAMA_8B), rooms).verdict is Verdict.NO


def test_where_a_pod_may_get_either_of_two_kinds_only_the_smaller_is_certain() -> None:
    (room,) = _rooms(nodes.hami(nodes.REGISTER_MIXED))
    assert (room.model, room.memory_mib, len(room.devices)) == (None, 15360, 2)
    small = read_config(models.LLAMA_8B | {"num_hidden_layers": 4})
    assert check_fit(Demand(Shape(max_model_len=512), replicas=2, facts=small), [room]).verdict is Verdict.YES
    assert check_fit(Demand(Shape(), facts=LLAMA_8B), [room]).verdict is Verdict.NO
    share = Demand(Shape(max_model_len=2048), facts=LLAMA_8B, share=Share(memory_mib=24_000))
    assert check_fit(share, [room]).verdict is Verdict.YES  # only the larger device has that much
    asked = check_fit(Demand(Shape(), facts=LLAMA_8B, gpu_model="Tesla-T4"), [room])
    assert "not of one known model" in asked.reasons[0].reasons[0]


def test_several_gpus_on_time_slices_are_refused() -> None:
    fit = check_fit(Demand(Shape(tensor_parallel=2), facts=LLAMA_8B), _rooms(nodes.t4_time_sliced()))
    assert any("do not work with time-slicing" in reason for reason in fit.reasons[0].reasons)


def test_number_formats_that_the_gpu_lacks_are_refused() -> None:
    node = nodes.t4_time_sliced()
    node["metadata"]["labels"] |= {"nvidia.com/gpu.compute.major": "7", "nvidia.com/gpu.compute.minor": "5"}
    rooms = _rooms(node)
    small = read_config(models.LLAMA_8B | {"num_hidden_layers": 4})
    refused = check_fit(Demand(Shape(max_model_len=512, dtype="bfloat16"), facts=small), rooms)
    assert any("use float16" in reason for reason in refused.reasons[0].reasons)
    assert check_fit(Demand(Shape(max_model_len=512, dtype="float16"), facts=small), rooms).verdict is Verdict.YES


def test_three_ranks_do_not_share_thirty_two_heads_and_the_nearest_number_that_does_is_named() -> None:
    fit = check_fit(Demand(Shape(tensor_parallel=3), facts=LLAMA_8B), _rooms(nodes.a100x8()))
    assert fit.verdict is Verdict.NO
    assert "does not divide the model's 32 attention heads" in fit.reasons[0].reasons[0]
    assert fit.nearest == ("with tensor_parallel_size 2 it fits",)


def test_key_value_heads_are_dealt_out_or_repeated_evenly() -> None:
    odd = read_config(models.LLAMA_8B | {"num_attention_heads": 40, "num_key_value_heads": 8})
    assert "8 key-value heads" in misshapen(odd, Shape(tensor_parallel=5))[0]
    assert misshapen(odd, Shape(tensor_parallel=8)) == ()
    assert misshapen(LLAMA_8B, Shape(tensor_parallel=16)) == ()
    assert misshapen(read_config(models.DEEPSEEK_V3), Shape(tensor_parallel=16)) == ()


def test_more_stages_than_layers_are_refused_with_the_most_that_there_can_be() -> None:
    short = read_config(models.LLAMA_8B | {"num_hidden_layers": 4})
    fit = check_fit(Demand(Shape(pipeline_parallel=8), facts=short), _rooms(nodes.a100x8()))
    assert fit.reasons[0].reasons == ("pipeline_parallel_size 8 is more than the model's 4 layers",)
    assert fit.nearest == ("with pipeline_parallel_size 4 it fits",)


@pytest.mark.parametrize(
    ("budget", "verdict"),
    [
        (Budget(), Verdict.YES),
        (Budget(utilization=0.1), Verdict.NO),
        (Budget(static=0.1), Verdict.NO),
        (Budget(static=0.5), Verdict.YES),
        (Budget(of_the_rest=0.005), Verdict.NO),
        (Budget(of_the_rest=0.5), Verdict.YES),
    ],
)
def test_what_the_engine_may_use_of_the_memory_counts(budget: Budget, verdict: Verdict) -> None:
    demand = Demand(Shape(max_model_len=8192), facts=LLAMA_8B, budget=budget)
    fit = check_fit(demand, _rooms(nodes.a100x8()))
    assert fit.verdict is verdict
    size = estimate(LLAMA_8B, demand.shape, budget)
    longest = size.largest_context(81_920)
    assert estimate(LLAMA_8B, Shape(max_model_len=longest), budget).fits(81_920) is (longest > 0)
    assert not estimate(LLAMA_8B, Shape(max_model_len=longest + 64), budget).fits(81_920)


def test_slices_are_asked_for_by_their_own_name() -> None:
    small = read_config(models.LLAMA_8B | {"num_hidden_layers": 8})
    fit = check_fit(Demand(Shape(), facts=small), _rooms(nodes.h100_mig_mixed()))
    assert (fit.verdict, fit.resource) == (Verdict.YES, "nvidia.com/mig-3g.40gb")


def test_all_copies_ask_by_one_name_and_whole_gpus_come_first() -> None:
    small = read_config(models.LLAMA_8B | {"num_hidden_layers": 8})
    rooms = _rooms(nodes.h100_mig_mixed(), nodes.a100x8())
    assert check_fit(Demand(Shape(), facts=small), rooms).resource == "nvidia.com/gpu"
    # Two slices and eight GPUs are ten places, and yet no ten copies of one deployment.
    many = check_fit(Demand(Shape(), replicas=10, facts=small), rooms)
    assert (many.verdict, len(many.nodes)) == (Verdict.NO, 8)
    fixed = check_fit(Demand(Shape(), facts=small, resource="nvidia.com/mig-3g.40gb"), rooms)
    assert fixed.nodes == ("node-0",)


def test_a_gpu_model_does_not_name_equal_slices() -> None:
    node = nodes.a100x8()
    node["metadata"]["labels"]["nvidia.com/gpu.product"] = "NVIDIA-A100-SXM4-80GB-MIG-3g.40gb"
    demand = Demand(Shape(), facts=LLAMA_8B, gpu_model="NVIDIA-A100-SXM4-80GB")
    assert "cut into equal MIG slices" in check_fit(demand, _rooms(node)).reasons[0].reasons[0]


def test_cores_of_a_shared_device_are_counted() -> None:
    demand = Demand(Shape(max_model_len=2048), replicas=2, facts=LLAMA_8B, share=Share(24_000, 60))
    fit = check_fit(demand, _rooms(nodes.hami()))
    assert (fit.verdict, len(fit.nodes)) == (Verdict.NO, 1)
    assert "no device has 24000 MiB and 60 % of its cores free" in fit.reasons[0].reasons
    assert check_fit(replace(demand, share=Share(24_000, 50)), _rooms(nodes.hami())).verdict is Verdict.YES
    taken = [nodes.pod(nodes.hami(), allocated="GPU-0,NVIDIA,1024,100:;", nvidia_com__gpu="1")]
    assert check_fit(replace(demand, replicas=1), _rooms(nodes.hami(), pods=taken)).verdict is Verdict.NO
    held = [nodes.pod(nodes.hami(), allocated="GPU-0,NVIDIA,1024,0:;", nvidia_com__gpu="1")]
    alone = replace(demand, replicas=1, share=Share(24_000, 100))
    assert check_fit(alone, _rooms(nodes.hami(), pods=held)).verdict is Verdict.NO


def test_a_machine_without_processors_and_memory_to_spare_takes_no_copy() -> None:
    node = nodes.a100x8()
    for part in ("capacity", "allocatable"):
        node["status"][part] |= {"cpu": "7", "memory": "60Gi"}
    demand = Demand(Shape(tensor_parallel=4), facts=LLAMA_8B)
    fit = check_fit(demand, _rooms(node))
    assert "asks for 8 processors and 32 GiB of memory beside its GPUs" in fit.reasons[0].reasons[0]
    assert check_fit(replace(demand, shape=Shape(tensor_parallel=2)), _rooms(node)).verdict is Verdict.YES


def test_the_smallest_machines_with_a_gpu_take_one_copy() -> None:
    node = nodes.a100x8()
    node["status"]["allocatable"] |= {"cpu": "3920m", "memory": "15Gi", "nvidia.com/gpu": "1"}
    assert check_fit(Demand(Shape(), facts=LLAMA_8B), _rooms(node)).verdict is Verdict.YES


def test_thousands_of_rooms_and_hundreds_of_waiting_copies_are_no_long_look() -> None:
    rooms = [replace(room, node=f"node-{number}") for room in _rooms(nodes.a100x8()) for number in range(5000)]
    waiting = [Demand(Shape(max_model_len=2048 + number), replicas=10, facts=LLAMA_8B) for number in range(200)]
    began = time.process_time()
    fit = check_fit(Demand(Shape(tensor_parallel=8), replicas=100, facts=LLAMA_70B), rooms, waiting=waiting)
    assert (fit.verdict, len(set(fit.nodes))) == (Verdict.YES, 100)
    assert not {f"node-{number}" for number in range(250)} & set(fit.nodes)
    assert time.process_time() - began < 5  # it was more than half a minute when each room was looked at each time


def test_the_processors_of_a_node_count_exactly_whatever_fractions_pods_ask_for() -> None:
    node = nodes.a100x8()
    node["status"]["allocatable"]["cpu"] = "32980m"
    (room,) = rooms_of(read_cluster([node]).nodes, asked=Asked(16.98, 0))
    demand = Demand(Shape(), replicas=8, facts=LLAMA_8B)
    assert check_fit(demand, [room]).verdict is Verdict.YES
    (room,) = rooms_of(read_cluster([node]).nodes, asked=Asked(16.981, 0))
    assert len(check_fit(demand, [room]).nodes) == 7


@pytest.mark.parametrize("machine", [nodes.a100x8, nodes.hami, nodes.h100_mig_mixed, nodes.l40s])
def test_nodes_with_more_than_their_devices_can_use_are_alike_whatever_pods_ask_of_them(
    machine: Callable[[], nodes.Node],
) -> None:
    profiles = read_cluster([machine()]).nodes
    asks = [Asked(0, 0), Asked(1.5, 3 * GIB), Asked(2.25, 5 * GIB)]
    kinds = [Stock(rooms_of(profiles, asked=asked)).kinds() for asked in asks]
    assert kinds[0] == kinds[1] == kinds[2]


def test_a_node_takes_a_copy_for_each_of_its_devices_and_shares() -> None:
    for machine, share, most in ((nodes.a100x8(), None, 8), (nodes.hami(), Share(1_000, 1), 80)):
        rooms = rooms_of(read_cluster([machine]).nodes, asked=Asked(0, 0))
        roomy = [replace(room, cores=10_000, memory_gib=10_000) for room in rooms]
        demand = Demand(Shape(), replicas=most + 1, share=share)
        assert len(check_fit(demand, rooms).nodes) == len(check_fit(demand, roomy).nodes) > 0
