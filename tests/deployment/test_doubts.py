"""What a caller may ask for beside the model: it is counted, or it leaves the answer open. It never makes a yes."""

from dataclasses import replace
from typing import Any

import pytest

from budcluster.deployment.fitting.demands import Demand, ProcessorDemand
from budcluster.deployment.fitting.fit import Fit, Verdict, check_fit
from budcluster.deployment.fitting.model_facts import ModelFacts, read_config
from budcluster.deployment.fitting.processors import check_processors
from budcluster.deployment.fitting.rooms import rooms_of
from budcluster.deployment.models import RuntimeType
from budcluster.deployment.options import DeploymentConfig
from budcluster.deployment.planning import demand_of
from budcluster.deployment.runtimes import RUNTIMES
from budcluster.deployment.runtimes.launch import Hardware
from budcluster.hardware.reading.reader import read_cluster
from tests.deployment import models
from tests.hardware import nodes

VLLM, SGLANG, TRTLLM = RuntimeType.VLLM, RuntimeType.SGLANG, RuntimeType.TENSORRT_LLM
LLAMA_8B, LLAMA_70B = read_config(models.LLAMA_8B), read_config(models.LLAMA_70B)


def _fit(*args: str, runtime: RuntimeType = VLLM, facts: ModelFacts | None = LLAMA_8B, **config: Any) -> Fit:
    """On one machine with eight A100s of 80 GiB."""
    demand = demand_of(DeploymentConfig(extra_args=list(args), **config), runtime, facts, Hardware.NVIDIA)
    assert isinstance(demand, Demand)
    return check_fit(demand, rooms_of(read_cluster([nodes.a100x8()]).nodes))


@pytest.mark.parametrize(
    ("runtime", "args"),
    [
        (VLLM, ["--enable-lora", "--max-loras", "4", "--max-lora-rank", "64"]),
        (VLLM, ["--spec-method", "ngram", "--spec-tokens", "5"]),
        (VLLM, ["--cpu-offload-gb=8"]),
        (VLLM, ["--kv-offloading-size", "8"]),
        (VLLM, ["--limit-mm-per-prompt", '{"image": 16}']),
        (VLLM, ["--max-cudagraph-capture-size", "2048"]),
        (VLLM, ["--hf-overrides", '{"num_hidden_layers": 200}']),
        (VLLM, ["--kv-cache-dtype-skip-layers", "0", "1"]),
        (SGLANG, ["--enable-lora", "--lora-paths", "a=org/a", "--max-loras-per-batch", "8"]),
        (SGLANG, ["--speculative-algorithm", "EAGLE", "--speculative-num-steps", "5"]),
        (SGLANG, ["--cuda-graph-max-bs-decode", "512"]),
        (SGLANG, ["--enable-hierarchical-cache"]),
        (TRTLLM, ["--max_beam_width", "4"]),
    ],
)
def test_what_takes_or_saves_memory_that_nobody_counts_leaves_the_answer_open(
    runtime: RuntimeType, args: list[str]
) -> None:
    fit = _fit(*args, runtime=runtime)
    assert (fit.verdict, len(fit.nodes)) == (Verdict.UNKNOWN, 1)
    assert any(args[0].partition("=")[0] in warning for warning in fit.warnings)


@pytest.mark.parametrize(
    ("runtime", "args"),
    [
        (VLLM, ["--enforce-eager", "--enable-prefix-caching", "--no-enable-lora", "--no-async-scheduling"]),
        (VLLM, ["--gpu-memory-utilization", "0.8", "--max-num-batched-tokens", "16384", "--seed", "1"]),
        (VLLM, ["--max-num-batched-tokens", "16k"]),
        (SGLANG, ["--disable-cuda-graph", "--mem-fraction-static=0.8", "--chunked-prefill-size", "4096"]),
        (TRTLLM, ["--max_num_tokens", "16384", "--enable_chunked_prefill"]),
    ],
)
def test_what_is_counted_or_takes_no_memory_leaves_no_doubt(runtime: RuntimeType, args: list[str]) -> None:
    assert (_fit(*args, runtime=runtime).verdict, _fit(*args, runtime=runtime).warnings) == (Verdict.YES, ())


def test_what_only_adds_makes_no_room_and_what_may_save_leaves_even_the_no_open() -> None:
    assert _fit("--enable-lora", facts=LLAMA_70B).verdict is Verdict.NO
    assert _fit("--cpu-offload-gb", "100", facts=LLAMA_70B).verdict is Verdict.UNKNOWN


def test_a_batch_sequences_and_wide_numbers_are_counted() -> None:
    usual = _fit().needed_mib or 0
    for more in (
        _fit("--max-num-batched-tokens", "65536"),
        _fit("--max-num-batched-tokens=65.5k"),
        _fit("--no-enable-chunked-prefill", max_model_len=60_000, kv_cache_dtype="fp8"),
        _fit("--chunked-prefill-size", "-1", runtime=SGLANG, max_model_len=60_000),
        _fit(max_num_seqs=4096),
        _fit(dtype="float32"),
    ):
        assert (more.needed_mib or 0) > usual + 2000
    assert (_fit(dtype="float32").needed_mib or 0) > 2 * usual - 2000
    assert _fit(dtype="bfloat16").needed_mib == usual
    assert "with max_num_seqs 256 it fits" in _fit(max_num_seqs=65_536).nearest
    summed = read_config(models.LLAMA_8B, weights_bytes=16_060_000_000)
    assert summed.loaded_bytes(None, dtype="float32") == 2 * 16_060_000_000


def test_layers_with_a_sliding_window_keep_only_that_where_the_engine_does_so() -> None:
    kinds = ["full_attention" if layer % 6 == 5 else "sliding_attention" for layer in range(36)]
    slides = {"num_hidden_layers": 36, "layer_types": kinds, "sliding_window": 1024}
    facts, all_full = (read_config(models.LLAMA_8B | one) for one in (slides, slides | {"layer_types": None}))
    layer = 2 * 8 * 128 * 2 * 131_072 / 2**20
    saved = (_fit(facts=all_full, max_model_len=131_072).needed_mib or 0) - (
        _fit(facts=facts, max_model_len=131_072).needed_mib or 0
    )
    kept = (1024 + 8192 + 127) / 131_072
    assert saved * 0.92 == pytest.approx(30 * layer * (1 - kept), rel=0.001)
    for args, runtime in (["--disable-hybrid-kv-cache-manager"], VLLM), ([], SGLANG):
        fits = [_fit(*args, runtime=runtime, facts=one, max_model_len=131_072) for one in (facts, all_full)]
        assert fits[0].needed_mib == fits[1].needed_mib
    demand = demand_of(DeploymentConfig(max_model_len=131_072), VLLM, facts, Hardware.NVIDIA)
    assert isinstance(demand, Demand)
    size = demand.sized()
    assert size is not None
    for memory in (22_000, 24_000, 40_000):
        longest = size.largest_context(memory)
        shapes = [replace(demand, shape=replace(demand.shape, max_model_len=longest + more)) for more in (0, 64)]
        assert [sized.fits(memory) for one in shapes if (sized := one.sized())] == [True, False]


def test_a_model_with_parts_beside_its_language_model_is_sized_by_the_sum_of_its_files_only() -> None:
    config = {"text_config": models.LLAMA_8B, "vision_config": {"hidden_size": 1280}}
    assert _fit(facts=read_config(config)).verdict is Verdict.UNKNOWN
    known = read_config(config, weights_bytes=17_000_000_000)
    assert _fit(facts=known).verdict is Verdict.YES
    assert _fit(facts=known, quantization="fp8").verdict is not Verdict.YES


@pytest.mark.parametrize("lacking", ["nvidia.com/gpu.memory", "nvidia.com/cuda.driver"])
def test_a_device_or_driver_that_nobody_knows_is_no_yes(lacking: str) -> None:
    bare = nodes.with_labels(nodes.l40s(), drop=lacking)
    rooms = rooms_of(read_cluster([bare]).nodes)
    demand = demand_of(DeploymentConfig(), VLLM, LLAMA_8B, Hardware.NVIDIA)
    assert isinstance(demand, Demand)
    fit = check_fit(demand, rooms)
    assert (fit.verdict, len(fit.nodes)) == (Verdict.UNKNOWN, 1)
    assert bare["metadata"]["name"] in fit.warnings[0]
    known = check_fit(demand, [*rooms, *rooms_of(read_cluster([nodes.a100x8()]).nodes)])
    assert known.verdict is not Verdict.NO


def test_without_gpus_the_same_leaves_the_answer_open() -> None:
    known = read_cluster([nodes.a100x8()]).nodes
    demand = demand_of(DeploymentConfig(extra_args=["--enable-lora"]), VLLM, LLAMA_8B, Hardware.CPU)
    assert isinstance(demand, ProcessorDemand)
    fit = check_processors(demand, known)
    assert (fit.verdict, fit.needed_mib) == (Verdict.UNKNOWN, None)
    assert any("--enable-lora" in warning for warning in fit.warnings)
    assert check_processors(replace(demand, doubts=()), known).verdict is Verdict.YES


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_flags_are_judged_that_the_runtime_has_and_takes(runtime: RuntimeType) -> None:
    flags = RUNTIMES[runtime].flags
    taken = (flags.with_value | flags.with_values | flags.switches) - {*flags.owned, *flags.dangerous}
    assert flags.steady | flags.growing <= taken | {*flags.dangerous}
    assert not flags.steady & {*flags.dangerous, *flags.owned, *flags.growing}
