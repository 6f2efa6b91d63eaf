"""Whatever is sent to any route, the service answers as its OpenAPI document says and never fails."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from budcluster.api.openapi import document
from budcluster.app import create_app
from tests.fixtures.app import SettingsMaker, quiet_service

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.fixture
def service(make_settings: SettingsMaker, tmp_path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The URL and the document of a service that runs in a thread of its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    settings = make_settings()
    app = create_app(settings, quiet_service(settings))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    deadline = time.monotonic() + 60
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    while httpx.get(f"{url}/readyz", timeout=60).status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield url, document(app)
    server.should_exit = True
    thread.join()


def fuzz(service: tuple[str, dict[str, Any]], examples: int) -> int:
    """Send about `examples` fitting and as many unfitting requests to every route; returns how many were sent."""
    url, spec = service
    sent = 0
    for found in schemathesis.openapi.from_dict(spec).get_all_operations():
        operation = found.ok()
        takes_input = {"parameters", "requestBody"} & operation.definition.raw.keys()
        for mode in GenerationMode if takes_input else [GenerationMode.POSITIVE]:
            sent += send_many(url, operation, mode, examples)
    return sent


def send_many(url: str, operation: APIOperation, mode: GenerationMode, examples: int) -> int:
    # In a query everything is text, so only a body that breaks the schema must be refused.
    checks = [*CHECKS, negative_data_rejection] if "requestBody" in operation.definition.raw else CHECKS
    sent = 0

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def send(case: Case) -> None:
        nonlocal sent
        sent += 1
        case.validate_response(case.call(base_url=url), checks=checks)

    send()
    return sent


def test_no_request_makes_the_service_fail(service: tuple[str, dict[str, Any]]) -> None:
    assert fuzz(service, examples=10) > 100


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_request_of_very_many_makes_the_service_fail(service: tuple[str, dict[str, Any]]) -> None:
    assert fuzz(service, examples=150) > 1_500
