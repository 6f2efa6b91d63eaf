"""Turns what pydantic says about a request into a problem that never repeats what was sent."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from budcluster.api.errors import MalformedRequest
from budcluster.kit.errors import DomainError, Invalid

_MOST = 50
"""Errors listed in one answer: a body of a million wrong fields must not make a million sentences."""

# Their text holds only the rule, never the value (pydantic 2.14, `ErrorType` of pydantic_core).
_SAFE_MESSAGES: Final = frozenset(
    {
        *(
            "missing",
            "extra_forbidden",
            "none_required",
            "enum",
            "literal_error",
            "model_type",
            "model_attributes_type",
        ),
        *("string_type", "string_too_short", "string_too_long", "string_unicode", "too_long", "too_short"),
        *("int_type", "bool_type", "float_type", "list_type", "dict_type", "uuid_type", "datetime_type"),
        *("greater_than", "greater_than_equal", "less_than", "less_than_equal", "multiple_of", "finite_number"),
        "timezone_aware",
    }
)
_SENTENCES: Final = {
    "uuid_parsing": "must be a UUID",
    "uuid_version": "must be a UUID of the stated version",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "is too large a number",
    "int_from_float": "must be a whole number",
    "bool_parsing": "must be true or false",
    "float_parsing": "must be a number",
    "datetime_parsing": "must be a date and time as in RFC 3339",
    "datetime_from_date_parsing": "must be a date and time as in RFC 3339",
    "json_invalid": "must be JSON",
    "string_pattern_mismatch": "does not have the form that the documentation gives",
}


def from_validation(errors: Sequence[Mapping[str, Any]]) -> DomainError:
    """Invalid (422) with a pointer and a reason for each value; MalformedRequest (400) for a body that is no JSON."""
    if any(error["type"] == "json_invalid" and error["loc"][:1] == ("body",) for error in errors):
        return MalformedRequest("The body is not valid JSON; correct it and send it again.")
    listed = [field_problem(error["loc"], error["type"], _sentence(error)) for error in errors[:_MOST]]
    count = f"{len(errors)} values are" if len(errors) > 1 else "One value is"
    return Invalid(f"{count} not acceptable; errors says which and why.", errors=listed)


def field_problem(location: Sequence[int | str], code: str, detail: str) -> dict[str, str]:
    """One entry of `errors[]`; the location starts with body, query, path or header."""
    place, *rest = location or ("body",)
    pointer = "".join("/" + str(part)[:100].replace("~", "~0").replace("/", "~1") for part in rest)
    return {"in": str(place), "pointer": pointer, "code": code, "detail": detail}


def _sentence(error: Mapping[str, Any]) -> str:
    kind = str(error["type"])
    if kind in _SAFE_MESSAGES:
        return str(error["msg"])
    if kind == "value_error":
        # Raised by our own validators, which state the rule and not the value.
        return str(error["msg"]).removeprefix("Value error, ")
    return _SENTENCES.get(kind, "is not acceptable here")
