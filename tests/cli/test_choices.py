import pytest
import typer

from budcluster.cli.choices import choices


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("max_num_seqs=8", "max_num_seqs", 8),
        ("dtype=bfloat16", "dtype", "bfloat16"),
        ("image=vllm/vllm-openai:v0.33.0", "image", "vllm/vllm-openai:v0.33.0"),
        ('revision="42"', "revision", "42"),
        ("gpu_model=null", "gpu_model", None),
        ('env={"A": "b=c"}', "env", {"A": "b=c"}),
        ("revision=a=b", "revision", "a=b"),
        ("revision=", "revision", ""),
        ("revision=NaN", "revision", "NaN"),
        ("max_num_seqs=1e999", "max_num_seqs", "1e999"),
    ],
)
def test_a_value_is_json_or_else_text(text: str, field: str, value: object) -> None:
    assert choices([text], hint="--set") == {field: value}


def test_a_choice_needs_a_field_and_a_value() -> None:
    for text in ("max_num_seqs", "=8", ""):
        with pytest.raises(typer.BadParameter, match="FIELD=VALUE"):
            choices([text], hint="--set")
