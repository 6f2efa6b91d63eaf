"""What bodies are made of: strict request bodies, answers, and the types that many of them share."""

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, Final, Generic, TypeVar
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

NAME_RULE: Final = (
    "must be 1 to 63 lower-case letters a-z, digits or hyphens, beginning and ending with a letter or digit, "
    "because it becomes a Kubernetes name (RFC 1123 label)"
)
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_LABEL_KEY: Final = re.compile(r"([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE: Final = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")


def _check_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(NAME_RULE)
    return value


def _check_labels(value: dict[str, str]) -> dict[str, str]:
    if not all(_LABEL_KEY.fullmatch(key) for key in value):
        raise ValueError("keys must be Kubernetes label keys: an optional prefix and slash, then at most 63 characters")
    if not all(_LABEL_VALUE.fullmatch(text) for text in value.values()):
        raise ValueError("values must be Kubernetes label values: at most 63 letters, digits, '-', '_' or '.'")
    return value


Name = Annotated[
    str,
    AfterValidator(_check_name),
    Field(
        description=f"The name; it {NAME_RULE}.",
        examples=["prod-eu-1"],
        json_schema_extra={"minLength": 1, "maxLength": 63, "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"},
    ),
]
"""A Kubernetes-safe name."""

Labels = Annotated[
    dict[Annotated[str, Field(max_length=317)], Annotated[str, Field(max_length=63)]],
    Field(max_length=64, description="Own key-value pairs, for filters.", examples=[{"team": "search"}]),
    AfterValidator(_check_labels),
]
"""Kubernetes-style labels, at most 64."""


class Body(BaseModel):
    """A request body: unknown fields, wrong types and NUL bytes are refused.

    Types are strict: "5" is no number. Enums, UUIDs and times arrive as JSON strings, so declare those fields with
    `Parsed[...]`.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _is_text(cls, value: Any) -> Any:
        if isinstance(value, dict) and any(not _storable(text) for text in _strings(value)):
            raise ValueError("text must not hold NUL bytes or lone surrogates")
        return value


T = TypeVar("T")
Parsed = Annotated[T, Field(strict=False)]
"""A field of a strict body whose JSON form is a string: an enum, a UUID, a time."""


class Answer(BaseModel):
    """A response body. Reads from rows by attribute."""

    model_config = ConfigDict(from_attributes=True, frozen=True)


class Versioned(Answer):
    """What every stored resource shows."""

    id: UUID
    version: int = Field(description="Rises with every change; the ETag.", examples=[1])
    created_at: datetime
    updated_at: datetime


ItemT = TypeVar("ItemT")


class Page(Answer, Generic[ItemT]):
    """One page of a list."""

    items: list[ItemT]
    next_cursor: str | None = Field(None, description="Ask again with this as `cursor`; null on the last page.")


def _storable(text: str) -> bool:
    if "\0" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _strings(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            waiting += [*item.keys(), *item.values()]
        elif isinstance(item, list):
            waiting += item
