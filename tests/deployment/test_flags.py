"""Extra arguments: known and harmless ones pass, the rest is refused with the reason."""

import pytest

from budcluster.deployment.models import RuntimeType
from budcluster.deployment.runtimes import RUNTIMES
from budcluster.deployment.runtimes.flags import FlagRefused

VLLM = RUNTIMES[RuntimeType.VLLM].flags


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["--enforce-eager"],
        ["--gpu-memory-utilization", "0.8"],
        ["--gpu-memory-utilization=0.8", "--enable-lora", "--max-loras", "4"],
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
        (["--max-loras"], "needs a value"),
        (["--max-loras", "--enable-lora"], "needs a value"),
        (["--enforce-eager=yes"], "takes no value"),
        (["--seed", "a\x00b"], "not printable"),
        (["--seed", "9" * 2000], "longer than"),
        (["--enforce-eager"] * 100, "at most 64"),
    ],
)
def test_other_flags_are_refused_with_the_reason(args: list[str], reason: str) -> None:
    with pytest.raises(FlagRefused, match=reason):
        VLLM.check(args)
