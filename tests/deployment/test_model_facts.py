"""What is read of a config.json, whoever wrote it."""

from typing import Any

import pytest

from budcluster.deployment.fitting.model_facts import ModelFacts, UnusableConfig, read_config

SMALL: dict[str, Any] = {"num_hidden_layers": 28, "hidden_size": 1024, "num_attention_heads": 16}


@pytest.mark.parametrize(
    "name",
    ["num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim",
     "n_routed_experts", "num_experts", "max_position_embeddings", "vocab_size", "intermediate_size", "kv_lora_rank"],
)  # fmt: skip
def test_a_number_that_no_model_has_is_told(name: str) -> None:
    with pytest.raises(UnusableConfig, match=f"{name} is above"):
        read_config({**SMALL, name: 10**9})
    with pytest.raises(UnusableConfig, match=f"{name} is above"):
        read_config({**SMALL, "text_config": {name: 10**5000}})


@pytest.mark.parametrize("value", [None, 0, -1, True, "28", 28.5, [], {}])
def test_what_is_no_number_is_as_if_it_were_absent(value: object) -> None:
    assert read_config({**SMALL, "num_key_value_heads": value}).kv_heads == 16
    with pytest.raises(UnusableConfig, match="no usable num_hidden_layers"):
        read_config({**SMALL, "num_hidden_layers": value})


@pytest.mark.parametrize("groups", [None, [], {"a": 1}, {"a": {"weights": 1}}, {"a": {"weights": {"num_bits": []}}}])
def test_an_odd_quantization_is_what_its_method_says(groups: object) -> None:
    config = {"quant_method": "compressed-tensors", "config_groups": groups}
    assert read_config({**SMALL, "quantization_config": config}).quantization == "compressed-tensors"


def test_what_is_kept_of_a_model_can_be_read_by_versions_that_know_less_or_more() -> None:
    facts = read_config(SMALL)
    kept = facts.document()
    assert kept.keys().isdisjoint({"sliding_layers", "has_more_parts", "experts"})
    assert ModelFacts.of(kept) == facts
    assert ModelFacts.of({**kept, "known_to_a_later_version": 1}) == facts
