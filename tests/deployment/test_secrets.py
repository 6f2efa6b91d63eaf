"""Secrets of deployments: they reach the pods by reference, go with the deployment, and are found nowhere else."""

import asyncio
import base64
import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from budcluster.bootstrap import make_service
from budcluster.config import Settings
from sandbox.kubernetes.server import KubernetesServer
from tests.deployment.operator import Operator
from tests.fixtures.app import client_of, running
from tests.fixtures.canary import World, found_nowhere
from tests.fixtures.cluster import Onboarder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

NAMESPACE = "budcluster-models"


@pytest.fixture
async def world(cluster_settings: Settings, log_lines: list[str]) -> AsyncIterator[World]:
    """A running service whose every word is kept."""
    service = make_service(cluster_settings)
    async with running(service) as app, client_of(app, timeout=60) as client:
        yield World(client, service, log_lines)


async def _plant(world: World) -> dict[str, tuple[str, str]]:
    """Credentials for a deployment: id and planted secret, by purpose."""
    hub, key, login = world.canary("hf_"), world.canary(), world.canary()
    secrets: dict[str, tuple[dict[str, Any], str]] = {
        "HUGGING_FACE": ({"token": hub}, hub),
        "AWS": ({"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": key}, key),
        "REGISTRY": ({"server": "ghcr.io", "username": "robot", "password": login}, login),
    }
    kept = {}
    for purpose, (secret, planted) in secrets.items():
        name = purpose.lower().replace("_", "-")
        made = await world.post("/credentials", {"purpose": purpose, "name": name, "secret": secret})
        kept[purpose] = (str(made.json()["id"]), planted)
    return kept


async def _objects(server: KubernetesServer, kind: str) -> list[dict[str, Any]]:
    return await asyncio.to_thread(server.call, lambda: server.cluster.store.list(kind, NAMESPACE))


def _opened(secret: dict[str, Any]) -> dict[str, str]:
    return {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}


async def test_secrets_reach_the_pods_by_reference_and_go_with_the_deployment(
    world: World, gpu_cluster: KubernetesServer, tmp_path: Path
) -> None:
    user = Onboarder(world.client)
    operator = Operator(user, gpu_cluster, await user.onboarded(gpu_cluster, gpu_sharing="none"))
    planted = await _plant(world)
    chat = await operator.deployed(
        "chat",
        hugging_face_credential_id=planted["HUGGING_FACE"][0],
        registry_credential_id=planted["REGISTRY"][0],
        secrets=[{"env": "AWS_KEY", "credential_id": planted["AWS"][0], "field": "secret_access_key"}],
    )
    release = (await operator.show(chat))["helm_release"]
    secrets = {one["metadata"]["name"]: one for one in await _objects(gpu_cluster, "Secret")}
    assert _opened(secrets[f"{release}-env"]) == {
        "HF_TOKEN": planted["HUGGING_FACE"][1],
        "AWS_KEY": planted["AWS"][1],
    }
    login = json.loads(_opened(secrets[f"{release}-pull"])[".dockerconfigjson"])
    assert login["auths"]["ghcr.io"]["password"] == planted["REGISTRY"][1]
    [pod] = await _objects(gpu_cluster, "Pod")
    references = {
        one["name"]: one["valueFrom"]["secretKeyRef"]
        for one in pod["spec"]["containers"][0]["env"]
        if "valueFrom" in one
    }
    assert references == {name: {"name": f"{release}-env", "key": name} for name in ("HF_TOKEN", "AWS_KEY")}
    assert pod["spec"]["imagePullSecrets"] == [{"name": f"{release}-pull"}]

    async def the_rest_of_the_cluster(_: World) -> AsyncIterator[tuple[str, bytes]]:
        for kind in ("Pod", "Deployment", "ConfigMap", "Event"):
            yield kind, json.dumps(await _objects(gpu_cluster, kind)).encode()
        for name, secret in secrets.items():
            if secret["type"] == "helm.sh/release.v1":
                yield "Helm's record", gzip.decompress(base64.b64decode(_opened(secret)["release"]))
                assert name.startswith("sh.helm.release.v1.bud-chat")

    async def every_file(_: World) -> AsyncIterator[tuple[str, bytes]]:
        for file in await asyncio.to_thread(lambda: [path for path in tmp_path.rglob("*") if path.is_file()]):
            yield "file", await asyncio.to_thread(file.read_bytes)

    for path in (f"/deployments/{chat}", f"/deployments/{chat}/revisions", f"/deployments/{chat}/logs"):
        world.answers.append(await world.client.get(path))
    places = await found_nowhere(world, the_rest_of_the_cluster, every_file)
    assert {"Helm's record", "Pod", "deployment_revisions.values", "operation_log_lines.text", "log"} <= places, places

    assert (await world.client.delete(f"/credentials/{planted['AWS'][0]}")).status_code == 409
    assert (await operator.done("DELETE", f"/deployments/{chat}"))["status"] == "SUCCEEDED"
    assert [one for one in await _objects(gpu_cluster, "Secret") if "bud-chat" in one["metadata"]["name"]] == []
    assert (await world.client.delete(f"/credentials/{planted['AWS'][0]}")).status_code == 204
