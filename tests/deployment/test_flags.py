"""Extra arguments: known and harmless ones pass, the rest is refused with the reason."""

import pytest

from budcluster.deployment.models import RuntimeType
from budcluster.deployment.runtimes import RUNTIMES
from budcluster.deployment.runtimes.flags import FlagRefused, FlagRules

VLLM = RUNTIMES[RuntimeType.VLLM].flags
SGLANG = RUNTIMES[RuntimeType.SGLANG].flags


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["--enforce-eager"],
        ["--gpu-memory-utilization", "0.8"],
        ["--gpu-memory-utilization=0.8", "--enable-lora", "--max-loras", "4"],
        ["--async-scheduling", "--no-enable-prefix-caching", "--attention-backend", "FLASHINFER"],
        ["--lora-modules", "a=org/a", "b=org/b", "--max-logprobs", "5"],
        ["--max-logprobs", "-1"],
    ],
)
def test_known_flags_pass(args: list[str]) -> None:
    VLLM.check(args)
    assert args == list(args)


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["--api-key", "x"], "does not belong on a command line"),
        (["--trust-remote-code"], "set trust_remote_code"),
        (["--tensor-parallel-size", "4"], "use tensor_parallel_size instead"),
        (["--foo"], "not a flag that vLLM 0.33.0 is known to have"),
        (["x; rm -rf /"], "is not a flag"),
        (["--data-parallel-size", "2"], "multiplies the GPUs"),
        (["--no-trust-remote-code"], "use trust_remote_code instead"),
        (["--port", "1"], "is set by the service$"),
        (["--compilation-config", "{}"], "run code"),
        (["--kv-transfer-config", "{}"], "speak to other hosts"),
        (["--chat-template", "/etc/passwd"], "opens or writes files"),
        (["--kv-cache-memory-bytes", "1"], "cannot follow"),
        (["--structured-outputs-config.reasoning_parser_plugin", "x"], "is not a flag that"),
        (["--middlewar", "x"], "is not a flag that"),
        (["--max-loras"], "needs a value"),
        (["--max-loras", "--enable-lora"], "needs a value"),
        (["--lora-modules", "a=org/a", "-dp", "4"], "'-dp' is not a flag"),
        (["--lora-modules", "-cc", "{}"], "needs a value"),
        (["--seed", "-q"], "needs a value"),
        (["--enforce-eager=yes"], "takes no value"),
        (["--seed", "a\x00b"], "not printable"),
        (["--seed", "9" * 2000], "longer than"),
        (["--enforce-eager"] * 100, "at most 64"),
    ],
)
def test_other_flags_are_refused_with_the_reason(args: list[str], reason: str) -> None:
    with pytest.raises(FlagRefused, match=reason):
        VLLM.check(args)


def test_flags_of_sglang_are_its_own() -> None:
    SGLANG.check(["--random-seed", "1", "--schedule-policy", "lpm", "--disable-radix-cache"])
    for args in (["--dp-size", "2"], ["--enable-custom-logit-processor"], ["--dist-init-addr", "x"], ["--seed", "1"]):
        with pytest.raises(FlagRefused):
            SGLANG.check(args)


@pytest.mark.parametrize("flags", [VLLM, SGLANG], ids=lambda flags: str(flags.runtime))
def test_what_is_refused_by_hand_are_flags_that_the_runtime_has(flags: FlagRules) -> None:
    known = flags.with_value | flags.with_values | flags.switches
    # argparse takes these two as short for longer ones.
    assert {*flags.owned, *flags.dangerous} - known <= {"--tp", "--pp"}
    assert not set(flags.owned) & set(flags.dangerous)
    assert not flags.switches & (flags.with_value | flags.with_values)


@pytest.mark.parametrize("value", ["0", "1.5", "-1", "much", "nan"])
@pytest.mark.parametrize(
    ("runtime", "flag"),
    [(RuntimeType.VLLM, "--gpu-memory-utilization"), (RuntimeType.SGLANG, "--mem-fraction-static")],
)
def test_a_part_of_the_memory_is_a_part(runtime: RuntimeType, flag: str, value: str) -> None:
    with pytest.raises(FlagRefused, match="above 0 and at most 1"):
        RUNTIMES[runtime].budget([flag, value])


def test_the_last_word_about_the_memory_counts() -> None:
    twice = ["--gpu-memory-utilization=0.5", "--seed", "1", "--gpu-memory-utilization", "0.6"]
    assert RUNTIMES[RuntimeType.VLLM].budget(twice).utilization == 0.6
    assert RUNTIMES[RuntimeType.SGLANG].budget(["--mem-fraction-static", "0.7"]).static == 0.7
    fraction = ["--kv_cache_free_gpu_memory_fraction", "0.6"]
    assert RUNTIMES[RuntimeType.TENSORRT_LLM].budget(fraction).of_the_rest == 0.6


@pytest.mark.parametrize(
    ("text", "tokens"), [("16384", 16_384), ("16k", 16_000), ("16K", 16_384), ("25.6k", 25_600), ("1M", 2**20)]
)
def test_numbers_of_tokens_are_read_as_vllm_reads_them(text: str, tokens: int) -> None:
    assert RUNTIMES[RuntimeType.VLLM].budget(["--max-num-batched-tokens", text]).batch_tokens == tokens


@pytest.mark.parametrize(
    ("runtime", "flag", "text"),
    [
        (RuntimeType.VLLM, "--max-num-batched-tokens", "-1"),
        (RuntimeType.VLLM, "--max-num-batched-tokens", "k"),
        (RuntimeType.VLLM, "--max-num-batched-tokens", "1.5"),
        (RuntimeType.VLLM, "--max-num-batched-tokens", "1.5K"),
        (RuntimeType.VLLM, "--max-num-batched-tokens", "0.0001k"),
        (RuntimeType.SGLANG, "--chunked-prefill-size", "16k"),
        (RuntimeType.SGLANG, "--chunked-prefill-size", "-2"),
        (RuntimeType.TENSORRT_LLM, "--max_num_tokens", "-1"),
    ],
)
def test_a_number_of_tokens_that_the_runtime_cannot_read_is_refused(runtime: RuntimeType, flag: str, text: str) -> None:
    with pytest.raises(FlagRefused, match=f"{flag} takes a whole number"):
        RUNTIMES[runtime].budget([flag, text])
