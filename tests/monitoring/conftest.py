"""A simulated API server whose nodes the test itself writes, and the rows that make it known."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from budcluster.config import Settings
from budcluster.kit.database import Database
from sandbox.kubernetes.server import KubernetesServer
from tests.monitoring.fleet import Fleet, settings_in


@pytest.fixture
def fleet(settings: Settings, database: Database, tmp_path: Path) -> Fleet:
    return Fleet(settings_in(settings, tmp_path), database)


@pytest.fixture
def server() -> Iterator[KubernetesServer]:
    with KubernetesServer() as server:
        yield server
