"""A fresh simulated cluster without nodes, and its client."""

from collections.abc import AsyncIterator

import httpx
import pytest

from sandbox.kubernetes.app import ApiServer
from sandbox.kubernetes.cluster import Cluster
from tests.sandbox.api import client_of


@pytest.fixture
def app() -> ApiServer:
    return ApiServer(Cluster(ca_pem="-----BEGIN CERTIFICATE-----"))


@pytest.fixture
async def api(app: ApiServer) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client
