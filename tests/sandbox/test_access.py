"""Tokens, RBAC and its wording, reviews."""

import base64
from typing import Any

import httpx
import pytest

from sandbox.kubernetes.app import ApiServer
from tests.sandbox.api import CONFIG_MAPS, a_config_map, client_of

Obj = dict[str, Any]
RBAC = "/apis/rbac.authorization.k8s.io/v1"
ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"
SECRETS = "/api/v1/namespaces/default/secrets"


async def account_token(api: httpx.AsyncClient, name: str) -> str:
    await api.post(ACCOUNTS, json={"metadata": {"name": name}})
    answer = await api.post(f"{ACCOUNTS}/{name}/token", json={"spec": {"expirationSeconds": 3600}})
    token: str = answer.json()["status"]["token"]
    return token


async def grant(api: httpx.AsyncClient, account: str, **rule: list[str]) -> None:
    await api.post(f"{RBAC}/namespaces/default/roles", json={"metadata": {"name": account}, "rules": [rule]})
    binding = {
        "metadata": {"name": account},
        "roleRef": {"kind": "Role", "name": account},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": "default"}],
    }
    await api.post(f"{RBAC}/namespaces/default/rolebindings", json=binding)


async def secret_token(api: httpx.AsyncClient, name: str) -> str:
    """Makes a service account and a Secret with a token for it."""
    await api.post(ACCOUNTS, json={"metadata": {"name": name}})
    meta = {"name": f"{name}-token", "annotations": {"kubernetes.io/service-account.name": name}}
    await api.post(SECRETS, json={"metadata": meta, "type": "kubernetes.io/service-account-token"})
    data = (await api.get(f"{SECRETS}/{name}-token")).json()["data"]
    assert set(data) == {"ca.crt", "namespace", "token"}
    return base64.b64decode(data["token"]).decode()


async def test_a_bad_token_is_unauthorized(app: ApiServer) -> None:
    async with client_of(app, token="wrong") as stranger:
        answer = await stranger.get(CONFIG_MAPS)
    assert (answer.status_code, answer.json()["message"]) == (401, "Unauthorized")


async def test_nobody_may_do_little(app: ApiServer) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://sandbox") as nobody:
        assert (await nobody.get("/version")).status_code == 200
        refused = await nobody.get("/api/v1/nodes")
    assert (
        'User "system:anonymous" cannot list resource "nodes" in API group "" at the cluster scope'
        in refused.text.replace('\\"', '"')
    )


async def test_the_viewer_reads_and_does_not_write(app: ApiServer) -> None:
    async with client_of(app, token=app.cluster.tokens.viewer) as viewer:
        assert (await viewer.get("/api/v1/nodes")).status_code == 200
        assert (await viewer.get("/apis")).status_code == 200
        refused = await viewer.post(CONFIG_MAPS, json=a_config_map("c"))
        secret = await viewer.get(f"{SECRETS}/s")
    assert refused.json()["message"] == (
        'configmaps is forbidden: User "viewer" cannot create resource "configmaps" in API group "" '
        'in the namespace "default"'
    )
    assert secret.json()["message"] == (
        'secrets "s" is forbidden: User "viewer" cannot get resource "secrets" in API group "" '
        'in the namespace "default"'
    )


async def test_an_account_may_do_what_its_role_says(app: ApiServer, api: httpx.AsyncClient) -> None:
    token = await account_token(api, "robot")
    await grant(api, "robot", apiGroups=[""], resources=["configmaps"], verbs=["get", "list"], resourceNames=[])
    async with client_of(app, token=token) as robot:
        assert (await robot.get(CONFIG_MAPS)).status_code == 200
        refused = await robot.delete(f"{CONFIG_MAPS}/c")
    assert 'User "system:serviceaccount:default:robot" cannot delete resource "configmaps"' in refused.json()["message"]


async def test_a_token_dies_with_its_account(app: ApiServer, api: httpx.AsyncClient) -> None:
    token = await account_token(api, "robot")
    await api.delete(f"{ACCOUNTS}/robot")
    async with client_of(app, token=token) as robot:
        assert (await robot.get("/version")).status_code == 401


async def test_a_token_secret_is_filled(app: ApiServer, api: httpx.AsyncClient) -> None:
    token = await secret_token(api, "robot")
    async with client_of(app, token=token) as robot:
        assert (await robot.get("/version")).status_code == 200
    await api.delete(f"{SECRETS}/robot-token")
    async with client_of(app, token=token) as robot:
        assert (await robot.get("/version")).status_code == 401


async def test_a_token_ends_when_its_secret_holds_another_one(app: ApiServer, api: httpx.AsyncClient) -> None:
    token = await secret_token(api, "robot")
    await api.delete(f"{SECRETS}/robot-token")
    await api.delete(f"{ACCOUNTS}/robot")
    another = await secret_token(api, "robot")
    assert another != token
    async with client_of(app, token=token) as robot:
        assert (await robot.get("/version")).status_code == 401
    other = {"data": {"token": base64.b64encode(b"another").decode()}}
    headers = {"content-type": "application/merge-patch+json"}
    assert (await api.patch(f"{SECRETS}/robot-token", json=other, headers=headers)).status_code == 200
    async with client_of(app, token=another) as robot:
        assert (await robot.get("/version")).status_code == 401


async def test_nobody_grants_what_they_do_not_hold(app: ApiServer, api: httpx.AsyncClient) -> None:
    token = await account_token(api, "robot")
    rule = {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"], "verbs": ["create"]}
    await grant(api, "robot", **rule)
    role = {"metadata": {"name": "more"}, "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]}
    async with client_of(app, token=token) as robot:
        refused = await robot.post(f"{RBAC}/namespaces/default/roles", json=role)
    assert refused.status_code == 403
    assert "is attempting to grant RBAC permissions not currently held" in refused.json()["message"]


@pytest.mark.parametrize(("verb", "allowed"), [("get", True), ("delete", False)])
async def test_one_may_ask_what_one_may_do(app: ApiServer, verb: str, allowed: bool) -> None:
    spec = {"resourceAttributes": {"verb": verb, "resource": "pods", "namespace": "default"}}
    async with client_of(app, token=app.cluster.tokens.viewer) as viewer:
        answer = await viewer.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", json={"spec": spec})
    assert answer.json()["status"]["allowed"] is allowed


async def test_one_may_list_ones_rules_and_ask_who_one_is(app: ApiServer) -> None:
    async with client_of(app, token=app.cluster.tokens.viewer) as viewer:
        rules = await viewer.post(
            "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", json={"spec": {"namespace": "default"}}
        )
        who = await viewer.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", json={})
    assert rules.json()["status"]["resourceRules"]
    assert who.json()["status"]["userInfo"]["username"] == "viewer"


async def test_roles_grow_by_aggregation(app: ApiServer, api: httpx.AsyncClient) -> None:
    role = {
        "metadata": {"name": "more", "labels": {"rbac.authorization.k8s.io/aggregate-to-edit": "true"}},
        "rules": [{"apiGroups": ["example.com"], "resources": ["widgets"], "verbs": ["get"]}],
    }
    await api.post(f"{RBAC}/clusterroles", json=role)
    token = await account_token(api, "robot")
    binding = {
        "metadata": {"name": "robot"},
        "roleRef": {"kind": "ClusterRole", "name": "edit"},
        "subjects": [{"kind": "ServiceAccount", "name": "robot", "namespace": "default"}],
    }
    await api.post(f"{RBAC}/namespaces/default/rolebindings", json=binding)
    spec = {
        "resourceAttributes": {"verb": "get", "group": "example.com", "resource": "widgets", "namespace": "default"}
    }
    async with client_of(app, token=token) as robot:
        answer = await robot.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", json={"spec": spec})
    assert answer.json()["status"]["allowed"] is True
