"""Secrets of deployments: they reach the pods by reference, follow the revision that serves, and are nowhere else."""

import asyncio
import base64
import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from budcluster.bootstrap import make_service
from budcluster.config import Settings
from sandbox.kubernetes.faults import Fault
from sandbox.kubernetes.server import KubernetesServer
from tests.deployment.live import until
from tests.deployment.operator import Operator
from tests.fixtures.app import client_of, running
from tests.fixtures.canary import World, found_nowhere
from tests.fixtures.cluster import Onboarder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

NAMESPACE, MODEL = "budcluster-models", "Qwen/Qwen3-0.6B"


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


class Keeper(Operator):
    """Somebody who changes which credentials a deployment uses."""

    async def credentials(self, token: str, password: str) -> dict[str, str]:
        """What a deployment names to use new ones with these secrets."""
        login = {"server": "ghcr.io", "username": "robot", "password": password}
        hub = await self._made("HUGGING_FACE", {"token": token})
        return {"hugging_face_credential_id": hub, "registry_credential_id": await self._made("REGISTRY", login)}

    async def in_cluster(self) -> list[str]:
        """The token and the password that the pods would read now, as far as they are there."""
        found: dict[str, str] = {}
        for secret in await _objects(self.server, "Secret"):
            if secret["metadata"]["name"].startswith("bud-chat"):
                found |= _opened(secret)
        logins = json.loads(found.pop(".dockerconfigjson", "{}")).get("auths", {}).values()
        return [*found.values(), *(login["password"] for login in logins)]

    async def _made(self, purpose: str, secret: dict[str, str]) -> str:
        body = {"purpose": purpose, "name": f"one-{uuid4().hex[:8]}", "secret": secret}
        answer = await self.user.client.post("/credentials", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])


async def test_secrets_and_context_are_those_of_the_revision_that_serves(
    onboarder: Onboarder, gpu_cluster: KubernetesServer
) -> None:
    keeper = Keeper(onboarder, gpu_cluster, await onboarder.onboarded(gpu_cluster, gpu_sharing="none"))
    old, new = [[f"hf_{uuid4().hex}", f"password-{uuid4().hex}"] for _ in range(2)]
    of_old, of_new = await keeper.credentials(*old), await keeper.credentials(*new)
    chat = await keeper.deployed("chat", max_model_len=4096, **of_old)
    path = f"/deployments/{chat}"
    assert await keeper.in_cluster() == old

    async def shown() -> list[Any]:
        whole = await keeper.show(chat)
        return [whole[name] for name in ("config", "max_model_len", "endpoints", "status", "servable", "replicas")]

    before = await shown()
    change = {"max_model_len": 2048, "ingress_host": "chat.example.org", **of_new}

    # Cut off between the two secrets: the one that was replaced is put back, the release was never touched.
    slow = Fault("latency", verbs=("patch",), resources=("secrets",), seconds=1.5)
    with gpu_cluster.fault(slow):
        begun = (await onboarder.client.patch(path, json={"config": change})).json()
        assert begun["max_model_len"] == 2048
        await until(keeper.in_cluster, lambda found: found == [new[0], old[1]])
        await onboarder.client.post(f"/operations/{begun['operation_id']}/cancel")
        ended = await onboarder.ended(begun["operation_id"])
    assert (ended["status"], ended["result"]["undone"]) == ("CANCELLED", ["write_secrets"])
    assert (await keeper.in_cluster(), await shown()) == (old, before)

    # What does not start is taken back with its secrets, also by one that would have used none.
    nothing = dict.fromkeys(of_old)
    await keeper.gate(MODEL)
    for config in (change, {**change, **nothing}):
        failed = await keeper.done("PATCH", path, {"config": config})
        assert (failed["status"], failed["result"]["left"]) == ("FAILED", []), failed
        assert await keeper.in_cluster() == old
        await until(shown, lambda now: now == before)
    await keeper.gate(MODEL, gated=False)

    assert (await keeper.done("PATCH", path, {"config": {**change, **nothing}}))["status"] == "SUCCEEDED"
    whole = await keeper.show(chat)
    assert (whole["max_model_len"], [one["kind"] for one in whole["endpoints"]]) == (2048, ["cluster", "ingress"])
    assert await keeper.in_cluster() == []

    assert (await keeper.done("POST", f"{path}/rollback", {}))["status"] == "SUCCEEDED"
    assert (await keeper.in_cluster(), await shown()) == (old, before)

    for method, where, body in (("POST", f"{path}/scale", {"replicas": 0}), ("PATCH", path, {"config": nothing})):
        assert (await keeper.done(method, where, body))["status"] == "SUCCEEDED"
    assert ((await keeper.show(chat))["status"], await keeper.in_cluster()) == ("PARKED", [])
