"""FIELD=VALUE: any field of a deployment's `config`, as the API takes it."""

import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer

Choices = Annotated[
    list[str],
    typer.Argument(help="A field of `config` and its value, JSON or text; null takes it away.", metavar="FIELD=VALUE…"),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="FIELD=VALUE of `config`, JSON or text, for what has no option; repeat it."),
]


def choices(texts: Sequence[str], *, hint: str) -> dict[str, Any]:
    """Fields with their values. Raises BadParameter."""
    return {field: _value(text) for field, text in pairs(texts, hint=hint, form="FIELD=VALUE").items()}


def pairs(texts: Sequence[str], *, hint: str, form: str = "NAME=VALUE") -> dict[str, str]:
    """Names with their texts. Raises BadParameter."""
    found = [text.partition("=") for text in texts]
    for name, sign, value in found:
        if not (name and sign):
            raise typer.BadParameter(f"{name}{sign}{value} is not {form}", param_hint=hint)
    return {name: value for name, _, value in found}


def _value(text: str) -> Any:
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)
    except ValueError:
        return text
    return value
