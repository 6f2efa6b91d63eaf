"""The OpenAPI document is valid and complete: what every route promises."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from openapi_spec_validator import validate

METHODS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture
async def spec(shared_client: httpx.AsyncClient) -> dict[str, Any]:
    document: dict[str, Any] = (await shared_client.get("/openapi.json")).json()
    return document


def operations(spec: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in spec["paths"].items():
        for method in METHODS & item.keys():
            yield f"{method.upper()} {path}", item[method]


async def test_the_document_is_valid(spec: dict[str, Any]) -> None:
    validate(spec)  # type: ignore[arg-type]


async def test_every_route_has_a_name_a_summary_and_a_group(spec: dict[str, Any]) -> None:
    names = []
    for route, operation in operations(spec):
        names.append(operation["operationId"])
        assert operation["summary"], route
        assert operation["tags"], route
    assert len(names) == len(set(names))


async def test_every_route_lists_its_problems_with_examples(spec: dict[str, Any]) -> None:
    for route, operation in operations(spec):
        refusals = {status: answer for status, answer in operation["responses"].items() if status >= "400"}
        assert "500" in refusals, route
        for status, answer in refusals.items():
            media = answer["content"].get("application/problem+json")
            if media is None:
                assert (route, status) == ("GET /readyz", "503")
                continue
            assert media["schema"] == {"$ref": "#/components/schemas/Problem"}
            assert media["examples"], f"{route} {status}"
        if "security" in operation:
            assert {"401", "422", "503"} <= refusals.keys(), route
        if "{" in route and "security" in operation:
            assert "404" in refusals, route
        if "requestBody" in operation:
            assert {"400", "413", "415", "422"} <= refusals.keys(), route


async def test_bodies_are_typed_and_closed(spec: dict[str, Any]) -> None:
    schemas = spec["components"]["schemas"]
    for route, operation in operations(spec):
        if body := operation.get("requestBody"):
            schema = body["content"]["application/json"]["schema"]
            for kind in schema.get("oneOf", [schema]):
                name = kind["$ref"].rpartition("/")[2]
                assert schemas[name]["additionalProperties"] is False, name
                assert schemas[name]["examples"], name
        for status, answer in operation["responses"].items():
            if status < "300" and status != "204":
                for media in answer["content"].values():
                    assert media["schema"], f"{route} {status}"


async def test_every_text_in_a_request_has_a_limit(spec: dict[str, Any]) -> None:
    def unlimited(schema: dict[str, Any], where: str) -> Iterator[str]:
        if schema.get("type") == "string" and not {"maxLength", "format", "enum", "const"} & schema.keys():
            yield where
        if schema.get("type") == "array" and "maxItems" not in schema:
            yield where
        items = [schema["items"]] if "items" in schema else []
        for part in (*schema.get("anyOf", ()), *schema.get("allOf", ()), *items):
            yield from unlimited(part, where)
        for name, part in schema.get("properties", {}).items():
            yield from unlimited(part, f"{where}.{name}")

    found = []
    for route, operation in operations(spec):
        for parameter in operation.get("parameters", ()):
            found += unlimited(parameter["schema"], f"{route} {parameter['name']}")
        if body := operation.get("requestBody"):
            schema = body["content"]["application/json"]["schema"]
            for kind in schema.get("oneOf", [schema]):
                name = kind["$ref"].rpartition("/")[2]
                found += unlimited(spec["components"]["schemas"][name], name)
    assert found == []
