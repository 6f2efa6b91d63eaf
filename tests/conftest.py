"""Options and fixtures that every test may use."""

import os

import pytest

pytest_plugins = [
    "tests.fixtures.keys",
    "tests.fixtures.app",
    "tests.fixtures.database",
    "tests.fixtures.tools",
    "tests.fixtures.cluster",
    "tests.fixtures.canary",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("dapr", "a live Dapr sidecar for the workflow contract tests")
    group.addoption(
        "--dapr-http-port", type=int, help="HTTP port of the live sidecar; without it those tests are skipped"
    )
    group.addoption("--dapr-api-token", default="", help="its API token")
    group.addoption(
        "--dapr-grpc-endpoint",
        default=os.environ.get("DAPR_GRPC_ENDPOINT", "127.0.0.1:50001"),
        help="its gRPC endpoint (default: DAPR_GRPC_ENDPOINT, else 127.0.0.1:50001)",
    )
