"""What events say of a pod, and that old ones say nothing."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from budcluster.kube.diagnosis import PodEvidence, diagnose

Obj = dict[str, Any]
NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
DENIED = 'Failed to pull image "x": failed to authorize: 401 Unauthorized'
NO_NVIDIA = 'failed to get sandbox runtime: no runtime for "nvidia" is configured'
UNBOUND = "0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims."
NO_CLASS = "no persistent volumes available for this claim and no storage class is set"


def after(seconds: int) -> str:
    return (NOON + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def event(reason: str, message: str, *, at: int | None = None, container: str | None = None) -> Obj:
    field = {"fieldPath": f"spec.containers{{{container}}}"} if container else {}
    stamps = {} if at is None else {"firstTimestamp": after(at), "lastTimestamp": after(at)}
    return {"reason": reason, "message": message, "involvedObject": field, **stamps}


def placed(*containers: Obj) -> Obj:
    return {"metadata": {"name": "p"}, "spec": {"nodeName": "n1"}, "status": {"containerStatuses": list(containers)}}


def running(*, since: int, name: str = "runtime", last: Obj | None = None) -> Obj:
    return {"name": name, "state": {"running": {"startedAt": after(since)}}, "lastState": last or {}}


def ended(start: int, end: int, *, code: int = 137) -> Obj:
    return {"terminated": {"exitCode": code, "reason": "Error", "startedAt": after(start), "finishedAt": after(end)}}


def waiting(reason: str, *, name: str = "runtime", last: Obj | None = None) -> Obj:
    return {"name": name, "state": {"waiting": {"reason": reason}}, "lastState": last or {}}


def kind_of(pod: Obj, *events: Obj, at: datetime | None = None) -> str | None:
    found = diagnose(PodEvidence(pod, events, at=at))
    return found.type if found else None


@pytest.mark.parametrize(
    ("reason", "message", "kind"),
    [
        ("FailedCreatePodSandBox", NO_NVIDIA, "runtime-class-missing"),
        ("FailedCreatePodSandBox", "failed to assign an IP address to container", "pod-network"),
        ("FailedCreatePodSandBox", "failed to setup network for sandbox", "pod-network"),
        ("FailedAttachVolume", 'Multi-Attach error for volume "pvc-1" Volume is already exclusively attached',
         "volume-in-use"),
        ("FailedMount", 'MountVolume.SetUp failed for volume "x" : no', "volume-mount"),
        ("FailedMount", "Unable to attach or mount volumes: unmounted volumes=[x]", "volume-mount"),
        ("Failed", DENIED, "registry-denied"),
        ("ErrImageNeverPull", 'Container image "x" is not present with pull policy of Never', "image-absent"),
        ("InspectFailed", 'Failed to inspect image "x": no', "image-broken"),
        ("FailedCreate", "exceeded quota: q, requested: requests.nvidia.com/gpu=1", "quota"),
        ("FailedCreate", 'violates PodSecurity "restricted:latest"', "pod-security"),
        ("FailedCreate", 'failed calling webhook "x": connection refused', "webhook"),
        ("FailedCreate", 'admission webhook "validation.gatekeeper.sh" denied the request: [own-images] no', "policy"),
        ("FailedCreate", "pods \"x\" is forbidden: ValidatingAdmissionPolicy 'own' with binding 'b' denied request: no",
         "policy"),
        ("FailedCreate", 'pods "x" is forbidden: pod rejected: RuntimeClass "nvidia" not found',
         "runtime-class-missing"),
        ("FailedCreate", "something new", "pod-refused"),
        ("Unhealthy", "Startup probe failed: HTTP probe failed with statuscode: 503", "still-starting"),
        ("Unhealthy", "Liveness probe failed: context deadline exceeded", "probe"),
        ("Killing", "Container vllm failed startup probe, will be restarted", "startup-timeout"),
        ("Killing", "Container vllm failed liveness probe, will be restarted", "probe"),
        ("NodeNotReady", "Node is not ready", "node-lost"),
    ],
)  # fmt: skip
def test_events_of_a_placed_pod_become_causes(reason: str, message: str, kind: str) -> None:
    assert kind_of(placed(), event(reason, message)) == kind


@pytest.mark.parametrize(
    "old",
    [
        event("Failed", DENIED, at=0, container="runtime"),
        event("Failed", DENIED),
        event("FailedCreatePodSandBox", NO_NVIDIA, at=0),
        event("FailedMount", 'MountVolume.SetUp failed for volume "x" : no', at=0),
        event("FailedScheduling", "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.", at=0),
        event("Unhealthy", "Liveness probe failed: connection refused", at=0),
        event("NodeNotReady", "Node is not ready", at=0),
    ],
)
def test_an_old_event_does_not_disturb_a_pod_that_loads(old: Obj) -> None:
    assert kind_of(placed(running(since=5)), old) is None


def test_what_the_kubelet_has_overcome_does_not_disturb_a_long_pull() -> None:
    pod = placed(waiting("ContainerCreating"))
    sandbox, denied = (
        event("FailedCreatePodSandBox", NO_NVIDIA, at=0),
        event("Failed", DENIED, at=3, container="runtime"),
    )
    pulling = event("Pulling", 'Pulling image "x"', at=9, container="runtime")
    assert kind_of(pod, sandbox) == "runtime-class-missing"
    assert kind_of(pod, sandbox, denied) == "registry-denied"
    assert kind_of(pod, sandbox, denied, pulling) is None
    assert kind_of(pod, sandbox, pulling, event("Failed", DENIED, at=10, container="runtime")) == "registry-denied"
    # The kubelet's status goes on to tell of the last try while it tries again.
    assert kind_of(placed(waiting("ErrImagePull")), denied, pulling) is None


def test_a_volume_that_is_mounted_anew_does_not_disturb_a_running_container() -> None:
    assert kind_of(placed(running(since=5)), event("FailedMount", "MountVolume.SetUp failed", at=9)) is None


def test_what_kept_a_container_from_starting_counts_again_after_it_has_ended() -> None:
    pod = placed(waiting("ContainerCreating", last=ended(5, 60, code=0)))
    assert kind_of(pod, event("FailedCreatePodSandBox", NO_NVIDIA, at=0)) is None
    assert kind_of(pod, event("FailedCreatePodSandBox", NO_NVIDIA, at=70)) == "runtime-class-missing"


def test_a_container_that_runs_does_not_hide_that_another_has_no_image() -> None:
    pod = placed(running(since=5, name="sidecar"), waiting("ImagePullBackOff"))
    assert kind_of(pod, event("Failed", DENIED, at=3, container="runtime")) == "registry-denied"
    assert kind_of(pod, event("Failed", DENIED, at=3, container="sidecar")) == "image-pull"


def test_of_several_events_the_latest_counts() -> None:
    denied, rate = event("Failed", DENIED, at=9), event("Failed", "Failed to pull image: 429 Too Many Requests", at=4)
    assert kind_of(placed(), rate, denied) == kind_of(placed(), denied, rate) == "registry-denied"


def test_a_start_that_a_probe_cut_off_is_told_while_it_waits_and_while_it_tries_again() -> None:
    killing = event("Killing", "Container runtime failed startup probe, will be restarted", at=600, container="runtime")
    assert kind_of(placed(waiting("CrashLoopBackOff", last=ended(5, 630))), killing) == "startup-timeout"
    assert kind_of(placed(running(since=640, last=ended(5, 630))), killing) == "startup-timeout"
    assert kind_of(placed(running(since=940, last=ended(640, 930))), killing) == "killed"


@pytest.mark.parametrize(
    ("reason", "message", "kind"),
    [
        ("FailedBinding", NO_CLASS, "storage-class-missing"),
        ("ProvisioningFailed", 'storageclass.storage.k8s.io "x" not found', "storage-class-missing"),
        ("ProvisioningFailed", "failed to provision volume: rpc error", "volume-not-provisioned"),
        ("WaitForFirstConsumer", "waiting for first consumer to be created before binding", "volume-unbound"),
    ],
)
def test_events_of_a_claim_tell_why_the_pod_waits_for_it(reason: str, message: str, kind: str) -> None:
    scheduling = event("FailedScheduling", UNBOUND, at=5)
    assert kind_of({"spec": {}}, scheduling, event(reason, message, at=1)) == kind


def test_a_claim_that_has_its_volume_by_now_is_no_cause() -> None:
    full = event("FailedScheduling", "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.", at=5)
    assert kind_of({"spec": {}}, event("FailedBinding", NO_CLASS, at=1), full) == "gpu-full"
    assert kind_of(placed(), event("FailedBinding", NO_CLASS, at=1)) is None


def test_a_pod_that_is_being_deleted_is_told_only_when_its_node_is_lost_or_it_stays() -> None:
    deleted = placed(running(since=0))
    deleted["metadata"]["deletionTimestamp"] = after(100)
    probe = event("Unhealthy", "Liveness probe failed: connection refused", at=99)
    assert kind_of(deleted, probe, at=NOON + timedelta(seconds=130)) is None
    assert kind_of(deleted, probe, at=NOON + timedelta(seconds=161)) == "stuck-terminating"
    assert kind_of(deleted, event("NodeNotReady", "Node is not ready", at=50)) == "node-lost"
    lost = {**deleted, "status": {"reason": "NodeLost", "message": "Node n1 which was running pod p is unresponsive"}}
    assert kind_of(lost) == "node-lost"


ROOT = 'runAsNonRoot != true (pod or container "runtime" must set securityContext.runAsNonRoot=true)'
NICE = 'non-default capabilities (container "runtime" must not include "SYS_NICE" in securityContext.capabilities.add)'


@pytest.mark.parametrize(
    ("level", "violation", "needed"),
    [
        ("restricted", ROOT, "baseline"),
        ("restricted", f'{ROOT}, seccompProfile (pod must not set securityContext.seccompProfile.type to "Unconfined")',
         "privileged"),
        ("restricted", 'restricted volume types (volume "cache" uses restricted volume type "hostPath")', "privileged"),
        ("baseline", NICE, "privileged"),
    ],
)  # fmt: skip
def test_a_pod_that_is_not_secure_enough_is_told_the_field_and_the_level_that_takes_it(
    level: str, violation: str, needed: str
) -> None:
    message = f'Error creating: pods "p" is forbidden: violates PodSecurity "{level}:latest": {violation}'
    found = diagnose(PodEvidence({}, [event("FailedCreate", message)]))
    assert found is not None
    assert f"Standard {level}; this one does not: {violation}." in found.detail
    assert f"pod-security.kubernetes.io/enforce={needed}," in found.fix
