"""Pod security: what the standards forbid, sentence by sentence, and how the API server says it."""

from typing import Any

import httpx
import pytest

from sandbox.kubernetes.app import ApiServer
from sandbox.kubernetes.cluster import Cluster, Options
from sandbox.kubernetes.pod_security import BASELINE, PRIVILEGED, RESTRICTED, violations
from tests.sandbox.api import DEPLOYMENTS, Obj, a_deployment, client_of

NAMESPACES = "/api/v1/namespaces"
LABEL = "pod-security.kubernetes.io/"
MODEST = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def spec(security: Obj | None = None, *, pod: Obj | None = None, **container: Any) -> Obj:
    """A pod of one container that the strictest level takes, but for what is given."""
    main = {"name": "main", "image": "nginx:1", "securityContext": {**MODEST, **(security or {})}, **container}
    return {"containers": [main], **(pod or {})}


def said(pod: Obj, level: str) -> list[str]:
    return [str(one) for one in violations(pod, level)]


@pytest.mark.parametrize(
    ("pod", "sentence"),
    [
        (spec(pod={"hostNetwork": True, "hostIPC": True}), "host namespaces (hostNetwork=true, hostIPC=true)"),
        (spec(ports=[{"hostPort": 90}, {"hostPort": 8}]), 'hostPort (container "main" uses hostPorts 8, 90)'),
        (spec(livenessProbe={"httpGet": {"host": "10.0.0.1", "port": 80}}),
         'probe or lifecycle host (container "main" uses probe or lifecycle host "10.0.0.1")'),
        (spec({"privileged": True}),
         'privileged (container "main" must not set securityContext.privileged=true)'),
        (spec({"procMount": "Unmasked"}),
         'procMount (container "main" must not set securityContext.procMount to "Unmasked")'),
        (spec({"seccompProfile": {"type": "Unconfined"}}), "seccompProfile "
         '(container "main" must not set securityContext.seccompProfile.type to "Unconfined")'),
        (spec(pod={"securityContext": {"seccompProfile": {"type": "Unconfined"}}}),
         'seccompProfile (pod must not set securityContext.seccompProfile.type to "Unconfined")'),
        (spec(pod={"securityContext": {"sysctls": [{"name": "kernel.msgmax"}, {"name": "net.ipv4.tcp_rmem"}]}}),
         "forbidden sysctls (kernel.msgmax)"),
    ],
)  # fmt: skip
def test_both_levels_forbid_what_reaches_for_the_host(pod: Obj, sentence: str) -> None:
    assert said(pod, BASELINE) == said(pod, RESTRICTED) == [sentence]
    assert said(pod, PRIVILEGED) == []


@pytest.mark.parametrize(
    ("pod", "baseline", "restricted"),
    [
        (spec({"capabilities": {"drop": ["ALL"], "add": ["SYS_NICE", "CHOWN"]}}),
         'non-default capabilities (container "main" must not include "SYS_NICE" in securityContext.capabilities.add)',
         'unrestricted capabilities (container "main" must not include "CHOWN", "SYS_NICE" in '
         "securityContext.capabilities.add)"),
        (spec(pod={"volumes": [{"name": "sys", "hostPath": {"path": "/sys"}}, {"name": "x", "emptyDir": {}}]}),
         'hostPath volumes (volume "sys")',
         'restricted volume types (volume "sys" uses restricted volume type "hostPath")'),
    ],
)  # fmt: skip
def test_the_strictest_level_forbids_more_in_other_words(pod: Obj, baseline: str, restricted: str) -> None:
    assert (said(pod, BASELINE), said(pod, RESTRICTED)) == ([baseline], [restricted])


@pytest.mark.parametrize(
    ("pod", "sentence"),
    [
        (spec({"allowPrivilegeEscalation": None}), "allowPrivilegeEscalation != false "
         '(container "main" must set securityContext.allowPrivilegeEscalation=false)'),
        (spec({"capabilities": {"add": ["NET_BIND_SERVICE"]}}), "unrestricted capabilities "
         '(container "main" must set securityContext.capabilities.drop=["ALL"])'),
        (spec(pod={"volumes": [{"name": "a", "nfs": {}}, {"name": "b", "gitRepo": {}}]}), "restricted volume types "
         '(volumes "a", "b" use restricted volume types "gitRepo", "nfs")'),
        (spec({"runAsNonRoot": None}), "runAsNonRoot != true "
         '(pod or container "main" must set securityContext.runAsNonRoot=true)'),
        (spec({"runAsNonRoot": False}, pod={"securityContext": {"runAsNonRoot": True}}), "runAsNonRoot != true "
         '(container "main" must not set securityContext.runAsNonRoot=false)'),
        (spec(pod={"securityContext": {"runAsUser": 0}}), "runAsUser=0 (pod must not set runAsUser=0)"),
        (spec({"seccompProfile": None}), 'seccompProfile (pod or container "main" must set '
         'securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")'),
    ],
)  # fmt: skip
def test_only_the_strictest_level_asks_for_modesty(pod: Obj, sentence: str) -> None:
    assert (said(pod, BASELINE), said(pod, RESTRICTED)) == ([], [sentence])


def test_what_the_pod_says_counts_for_containers_that_say_nothing() -> None:
    modest_pod = {"securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}}
    assert said(spec({"runAsNonRoot": None, "seccompProfile": None}, pod=modest_pod), RESTRICTED) == []


def test_every_container_counts_and_root_of_another_user_namespace_does_not() -> None:
    root = {"name": "setup", "securityContext": {**MODEST, "runAsUser": 0, "runAsNonRoot": None}}
    assert [one.reason for one in violations(spec(pod={"initContainers": [root]}), RESTRICTED)] == [
        "runAsNonRoot != true",
        "runAsUser=0",
    ]
    assert said(spec(pod={"initContainers": [root], "hostUsers": False}), RESTRICTED) == []


async def label(api: httpx.AsyncClient, **labels: str) -> httpx.Response:
    named = {LABEL + mode.replace("_", "-"): level for mode, level in labels.items()}
    patch = {"metadata": {"labels": named}}
    headers = {"content-type": "application/merge-patch+json"}
    return await api.patch(f"{NAMESPACES}/default", json=patch, headers=headers)


def a_pod(**security: Any) -> Obj:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec(security)}


async def test_a_namespace_refuses_pods_and_says_every_reason(api: httpx.AsyncClient) -> None:
    await label(api, enforce="restricted", enforce_version="v1.36")
    refused = await api.post(f"{NAMESPACES}/default/pods", json=a_pod(runAsNonRoot=None, privileged=True))
    assert (refused.status_code, refused.json()["reason"]) == (403, "Forbidden")
    assert refused.json()["message"] == (
        'pods "web" is forbidden: violates PodSecurity "restricted:v1.36": privileged (container "main" must not set '
        'securityContext.privileged=true), runAsNonRoot != true (pod or container "main" must set '
        "securityContext.runAsNonRoot=true)"
    )
    made = await api.post(f"{NAMESPACES}/default/pods", json=a_pod())
    assert made.status_code == 201
    assert "warning" not in made.headers


async def test_a_workload_that_would_be_refused_is_taken_with_a_warning(api: httpx.AsyncClient) -> None:
    await label(api, enforce="baseline", warn="restricted")
    made = await api.post(DEPLOYMENTS, json=a_deployment("web"))
    assert made.status_code == 201
    assert made.headers["warning"].startswith(
        r'299 - "would violate PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false (container \"main\"'
    )
    scaled = await api.patch(
        f"{DEPLOYMENTS}/web", json={"spec": {"replicas": 2}}, headers={"content-type": "application/merge-patch+json"}
    )
    assert "would violate" in scaled.headers["warning"]


async def test_what_is_enforced_is_warned_of_too(api: httpx.AsyncClient) -> None:
    await label(api, enforce="restricted")
    assert "restricted:latest" in (await api.post(DEPLOYMENTS, json=a_deployment("web"))).headers["warning"]


async def test_a_label_that_names_no_level_is_refused(api: httpx.AsyncClient) -> None:
    refused = await label(api, enforce="strict", warn_version="1.30")
    assert refused.status_code == 422
    assert [(cause["field"], cause["message"]) for cause in refused.json()["details"]["causes"]] == [
        (f"metadata.labels[{LABEL}enforce]",
         'Invalid value: "strict": must be one of privileged, baseline, restricted'),
        (f"metadata.labels[{LABEL}warn-version]", 'Invalid value: "1.30": must be "latest" or "v1.x"'),
    ]  # fmt: skip


async def test_a_cluster_may_be_strict_by_default_but_for_its_own_pods() -> None:
    async with client_of(ApiServer(Cluster(Options(pod_security="baseline")))) as api:
        privileged = a_pod(privileged=True)
        assert (await api.post(f"{NAMESPACES}/default/pods", json=privileged)).status_code == 403
        assert (await api.post(f"{NAMESPACES}/kube-system/pods", json=privileged)).status_code == 201
        await label(api, enforce="privileged")
        assert (await api.post(f"{NAMESPACES}/default/pods", json=privileged)).status_code == 201
