"""Faults on demand, through the handle and through the admin API."""

import httpx
import pytest

from sandbox.kubernetes.app import ApiServer
from sandbox.kubernetes.cluster import Cluster, Options
from sandbox.kubernetes.faults import ConnectionDropped, Fault
from sandbox.kubernetes.simulation.simulation import Simulation
from sandbox.kubernetes.simulation.world import Settings
from tests.sandbox.api import CONFIG_MAPS, a_config_map, client_of

MERGE = {"content-type": "application/merge-patch+json"}


async def test_a_throttled_client_is_told_when_to_come_back(app: ApiServer, api: httpx.AsyncClient) -> None:
    app.cluster.faults.add(Fault("throttle", times=1, retry_after=7))
    answer = await api.get(CONFIG_MAPS)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
    assert (await api.get(CONFIG_MAPS)).status_code == 200


async def test_a_token_that_has_run_out_stays_refused(app: ApiServer, api: httpx.AsyncClient) -> None:
    app.cluster.faults.add(Fault("unauthorized"))
    assert [(await api.get(CONFIG_MAPS)).status_code for _ in range(3)] == [401, 401, 401]


async def test_one_verb_on_one_resource_is_forbidden(app: ApiServer, api: httpx.AsyncClient) -> None:
    app.cluster.faults.add(Fault("forbidden", verbs=("list",), resources=("nodes",)))
    refused = await api.get("/api/v1/nodes")
    assert refused.json()["message"] == (
        'nodes is forbidden: User "kubernetes-admin" cannot list resource "nodes" in API group "" at the cluster scope'
    )
    assert (await api.get(CONFIG_MAPS)).status_code == 200


async def test_a_storm_of_conflicts_passes(app: ApiServer, api: httpx.AsyncClient) -> None:
    await api.post(CONFIG_MAPS, json=a_config_map("c"))
    app.cluster.faults.add(Fault("conflict", times=2))
    codes = [(await api.patch(f"{CONFIG_MAPS}/c", json={}, headers=MERGE)).status_code for _ in range(3)]
    assert codes == [409, 409, 200]


async def test_errors_at_a_rate_repeat_with_the_seed() -> None:
    async def codes() -> list[int]:
        app = ApiServer(Cluster(Options(seed=5)))
        app.cluster.faults.add(Fault("error", rate=0.3))
        async with client_of(app) as api:
            return [(await api.get(CONFIG_MAPS)).status_code for _ in range(40)]

    first = await codes()
    assert first == await codes()
    assert 4 < first.count(500) < 24


async def test_a_dropped_connection_has_no_answer(app: ApiServer, api: httpx.AsyncClient) -> None:
    app.cluster.faults.add(Fault("drop", times=1))
    with pytest.raises(ConnectionDropped):
        await api.get(CONFIG_MAPS)


async def test_faults_are_managed_over_http(api: httpx.AsyncClient) -> None:
    made = await api.post("/sandbox/faults", json={"kind": "unavailable", "resources": ["configmaps"]})
    assert (await api.get(CONFIG_MAPS)).status_code == 503
    (listed,) = (await api.get("/sandbox/faults")).json()["faults"]
    assert (listed["kind"], listed["suffered"]) == ("unavailable", 1)
    await api.delete(f"/sandbox/faults/{made.json()['id']}")
    assert (await api.get(CONFIG_MAPS)).status_code == 200


@pytest.mark.parametrize("body", [{"kind": "flood"}, {"kind": "drop", "colour": 1}, {"kind": "error", "rate": 2}])
async def test_a_fault_is_refused_when_it_makes_no_sense(api: httpx.AsyncClient, body: dict[str, object]) -> None:
    assert (await api.post("/sandbox/faults", json=body)).status_code == 400


async def test_the_admin_api_is_closed_to_others(app: ApiServer) -> None:
    async with client_of(app, token=app.cluster.tokens.viewer) as viewer:
        assert (await viewer.post("/sandbox/faults", json={"kind": "drop"})).status_code == 403


async def test_a_revoked_token_is_refused(app: ApiServer, api: httpx.AsyncClient) -> None:
    viewer_token = app.cluster.tokens.viewer
    await api.post("/sandbox/token/revoke", json={"token": viewer_token})
    async with client_of(app, token=viewer_token) as viewer:
        assert (await viewer.get(CONFIG_MAPS)).status_code == 401


async def test_an_unknown_simulated_fault_is_refused() -> None:
    app = ApiServer(Cluster(simulate=lambda store: Simulation(store, Settings(nodes="cpu:1"))))
    assert app.cluster.simulation is not None
    async with client_of(app) as api:
        unknown = await api.post("/sandbox/simulation/earthquake", json={})
    assert (unknown.status_code, unknown.json()["message"].split(";")[0]) == (400, 'there is no fault "earthquake"')
