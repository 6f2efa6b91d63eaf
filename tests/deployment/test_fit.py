"""Does it fit, and if not, why not and what would."""

from dataclasses import replace

import pytest

from budcluster.deployment.fit import Demand, Share, Verdict, check_fit
from budcluster.deployment.model_facts import UnusableConfig, read_config
from budcluster.deployment.rooms import Room, rooms_of
from budcluster.deployment.sizing import Shape, estimate, kv_bytes_per_token, max_model_length
from budcluster.hardware.reader import read_cluster
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
    assert "not known" in fit.warnings[0]


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
    refused = check_fit(Demand(Shape(max_model_len=512), facts=small, dtype="bfloat16"), rooms)
    assert any("use float16" in reason for reason in refused.reasons[0].reasons)
    assert check_fit(Demand(Shape(max_model_len=512), facts=small, dtype="float16"), rooms).verdict is Verdict.YES
