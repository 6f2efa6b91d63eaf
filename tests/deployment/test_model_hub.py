"""What the hub says of a model, and that it never holds a request up."""

import asyncio
from typing import Any

import httpx
import pytest

from budcluster.config import ModelHubSettings
from budcluster.deployment.model_hub import ModelHub
from sandbox.kubernetes.simulation.models.hub import Hub

GATED = "meta-llama/Llama-3.1-8B-Instruct"


def _hub(app: Any = None, **settings: Any) -> ModelHub:
    return ModelHub(ModelHubSettings(**settings), transport=httpx.ASGITransport(app or Hub()))


async def test_a_model_is_described_with_the_size_of_its_weights() -> None:
    answer = await _hub().describe("Qwen/Qwen3-8B", revision=None, token=None)
    assert answer.facts is not None
    assert (answer.facts.layers, answer.facts.max_position) == (36, 40960)
    assert answer.facts.weights_bytes == 8_191_000_000 * 2


@pytest.mark.parametrize(
    ("model", "token", "said"),
    [(GATED, None, "gated"), ("nobody/nothing", None, "no such model"), ("s3://bucket/model", None, "does not lie")],
)
async def test_what_the_hub_does_not_give_is_unknown_with_a_sentence(model: str, token: str | None, said: str) -> None:
    answer = await _hub().describe(model, revision=None, token=token)
    assert answer.facts is None
    assert said in str(answer.problem)


async def test_a_token_opens_a_gated_model() -> None:
    assert (await _hub().describe(GATED, revision="main", token="hf_good")).facts is not None


async def test_what_one_token_may_see_is_not_shown_to_another() -> None:
    hub = _hub()
    assert (await hub.describe(GATED, revision=None, token="hf_good")).facts is not None
    refused = await hub.describe(GATED, revision=None, token="nonsense")
    assert refused.facts is None
    assert (await hub.describe(GATED, revision=None, token=None)).facts is None


@pytest.mark.parametrize(
    "config",
    [
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"num_hidden_layers": 99999, "hidden_size": 8, "num_attention_heads": 8}',
        b'{"num_hidden_layers": 8, "hidden_size": 8, "num_attention_heads": 8, "quantization_config": '
        b'{"quant_method": "compressed-tensors", "config_groups": {"a": 1, "b": {"weights": {"num_bits": []}}}}}',
        b"[]",
        b"\xff",
    ],
)
async def test_no_answer_of_a_hub_is_more_than_unknown(config: bytes) -> None:
    async def answer(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": config if "config" in scope["path"] else b"{}"})

    described = await _hub(answer).describe("a/b", revision=None, token=None)
    assert (described.facts is None) is not (described.problem is None)


async def test_a_hub_that_hangs_is_given_up_in_time() -> None:
    async def hang(*_: Any) -> None:
        await asyncio.Event().wait()

    answer = await asyncio.wait_for(_hub(hang, timeout_s=0.05).describe("a/b", revision=None, token=None), 5)
    assert "could not be asked" in str(answer.problem)


async def test_a_hub_that_is_switched_off_is_never_asked() -> None:
    answer = await _hub(lambda *_: pytest.fail("asked"), enabled=False).describe("a/b", revision=None, token=None)
    assert "switched off" in str(answer.problem)


async def test_requests_for_one_model_at_the_same_time_ask_once() -> None:
    asked = []
    hub = Hub()

    async def counting(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["path"])
        await hub(scope, receive, send)

    described = _hub(counting)
    await asyncio.gather(*(described.describe("Qwen/Qwen3-8B", revision=None, token=None) for _ in range(50)))
    assert len(asked) == 2
