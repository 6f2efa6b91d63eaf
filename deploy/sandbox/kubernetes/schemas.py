"""Schemas of the built-in kinds, out of the models that the Python client has of Kubernetes' own OpenAPI.

The models' source is read, and only of what is asked for: to import all of them takes most of a second and 40 MB.
"""

import ast
import re
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

Obj = dict[str, Any]

_REF = "#/components/schemas/"
_FIELDS = re.compile(r"^    (?:openapi_types|attribute_map) = (\{.*?^    \})", re.DOTALL | re.MULTILINE)
_TOLD = re.compile(r'def (\w+)\(self\):\n +"""Gets the .*\n\n +(.*?)(?:  # noqa: E501)?\n')
_IMPORT = re.compile(r"^from kubernetes\.client\.models\.(\w+) import (\w+)", re.MULTILINE)
_NAME = re.compile(r"((?:[A-Z][a-z]+)?V\d+(?:(?:alpha|beta)\d+)?)(\w+)")
_SCALARS: dict[str, Obj] = {
    "bool": {"type": "boolean"},
    "datetime": {"type": "string", "format": "date-time"},
    "float": {"type": "number"},
    "int": {"type": "integer"},
    "str": {"type": "string"},
}
_QUANTITY: Obj = {"oneOf": [{"type": "string"}, {"type": "number"}]}
# The models call quantities strings; a decoder takes numbers, too.
_QUANTITIES = frozenset(
    {
        "allocatable", "allocatedResources", "averageValue", "capacity", "default", "defaultRequest", "divisor", "hard",
        "limits", "max", "maxLimitRequestRatio", "min", "overhead", "podFixed", "requests", "sizeLimit", "used",
    }
)  # fmt: skip


def model_of(group: str, version: str, kind: str) -> str | None:
    """The model of a kind, or None where the client has none."""
    stem, prefix = group.partition(".")[0].capitalize() or "Core", version.capitalize()
    return next((name for name in (f"{stem}{prefix}{kind}", f"{prefix}{kind}") if name in _files()), None)


@cache
def component(model: str) -> Obj:
    """The OpenAPI v3 schema of a model; what it is made of is referred to."""
    source = (_folder() / f"{_files()[model]}.py").read_text()
    types, names = map(ast.literal_eval, _FIELDS.findall(source)[:2])
    told = dict(_TOLD.findall(source))
    fields = {names[one]: {**_schema(types[one], names[one]), "description": told.get(one, "")} for one in types}
    return {"type": "object", "properties": fields}


def published(model: str) -> str:
    """What documents call a model: `V1PodSpec` is io.k8s.V1.PodSpec."""
    found = _NAME.fullmatch(model)
    return f"io.k8s.{found[1]}.{found[2]}" if found else f"io.k8s.{model}"


def referred(schema: Obj) -> str | None:
    """The model that a schema refers to, or None."""
    (whole,) = schema.get("allOf") or (schema,)
    ref: str | None = whole.get("$ref")
    return ref.removeprefix(f"{_REF}io.k8s.").replace(".", "") if ref else None


def components(models: Iterable[str]) -> Obj:
    """The schemas of these models and of all that they are made of, by the names that documents call them."""
    found: Obj = {}
    left = list(models)
    while left:
        model = left.pop()
        if published(model) not in found:
            schema = found[published(model)] = component(model)
            left += [one for field in schema["properties"].values() for one in _models_in(field)]
    return found


def _models_in(schema: Obj) -> list[str]:
    inner = schema.get("items") or schema.get("additionalProperties") or schema
    model = referred(inner)
    return [model] if model else []


def _schema(kind: str, field: str = "") -> Obj:
    """The schema of a type as the models write it; where they say nothing, anything goes."""
    if kind.startswith("list["):
        return {"type": "array", "items": _schema(kind[5:-1])}
    if kind.startswith("dict["):
        return {"type": "object", "additionalProperties": _schema(kind.partition(", ")[2][:-1], field)}
    if kind == "str" and field in _QUANTITIES:
        return _QUANTITY
    if kind in _files():
        return {"allOf": [{"$ref": f"{_REF}{published(kind)}"}]}
    return _SCALARS.get(kind, {})


@cache
def _folder() -> Path:
    found = find_spec("kubernetes")
    assert found is not None
    assert found.submodule_search_locations is not None
    return Path(found.submodule_search_locations[0]) / "client" / "models"


@cache
def _files() -> dict[str, str]:
    """The models' names, and the modules that they are in."""
    listed = (_folder() / "__init__.py").read_text()
    return {model: file for file, model in _IMPORT.findall(listed)}
