"""Puts the evidence of one pod together."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from budcluster.kit.redaction import Redactor
from budcluster.kube.diagnosis.containers import explain_exit, explain_pull, explain_runtime, explain_waiting
from budcluster.kube.diagnosis.finding import Finding, Weight
from budcluster.kube.diagnosis.logs import explain_log
from budcluster.kube.diagnosis.scheduling import explain as explain_scheduling

_REDACTOR: Final = Redactor()
_MAX_LINES: Final = 12
_MAX_LINE: Final = 500


@dataclass(frozen=True, slots=True)
class PodEvidence:
    """What is known of one pod."""

    pod: Mapping[str, Any]
    events: Sequence[Mapping[str, Any]] = ()
    logs: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Last lines by container: of the attempt that ended, where there is one, else of the one that runs."""


def diagnose(evidence: PodEvidence) -> Finding | None:
    """The cause that explains most; None for a pod that is well, or is on its way."""
    findings = [*_from_status(evidence), *_from_events(evidence)]
    if not findings:
        return None
    best = max(findings, key=lambda finding: finding.weight)
    metadata = evidence.pod.get("metadata") or {}
    lines = tuple(_REDACTOR.mask(line)[:_MAX_LINE] for line in best.lines[-_MAX_LINES:])
    return replace(best, pod=str(metadata.get("name", "")), lines=lines)


def _from_status(evidence: PodEvidence) -> Iterator[Finding]:
    status = evidence.pod.get("status") or {}
    if status.get("reason") == "Evicted":
        yield Finding(
            "evicted", f"The node pushed the pod out: {status.get('message', '')}"[:_MAX_LINE],
            "Free disk or memory on the node, or use another one.", Weight.CAUSE,
        )  # fmt: skip
    if status.get("reason") == "UnexpectedAdmissionError":
        yield Finding(
            "gpu-lost", "The node could not give the pod the GPU that the scheduler promised.",
            "A GPU or its device plugin was lost there; the pod is made again elsewhere.", Weight.CAUSE,
            lines=(str(status.get("message", "")),),
        )  # fmt: skip
    for container in (*_statuses(status, "initContainerStatuses"), *_statuses(status, "containerStatuses")):
        yield from _from_container(container, evidence.logs.get(str(container.get("name")), ()))


def _statuses(status: Mapping[str, Any], key: str) -> Iterable[Mapping[str, Any]]:
    return status.get(key) or ()


def _from_container(container: Mapping[str, Any], log: Sequence[str]) -> Iterator[Finding]:
    name = str(container.get("name"))
    state = container.get("state") or {}
    waiting = state.get("waiting") or {}
    if found := explain_waiting(str(waiting.get("reason", "")), str(waiting.get("message", ""))):
        yield replace(found, container=name)
    ended = state.get("terminated") or (container.get("lastState") or {}).get("terminated")
    if not ended or (ended.get("exitCode") == 0 and waiting.get("reason") != "CrashLoopBackOff"):
        return
    if container.get("ready"):
        return  # it failed once, and is well again
    exit_code = int(ended.get("exitCode", 0))
    own = explain_exit(str(ended.get("reason", "")), exit_code)
    said = explain_log([*log, *str(ended.get("message", "")).splitlines()])
    if own:
        yield replace(own, container=name)
    if said:
        yield replace(said, container=name, exit_code=exit_code)
    if not own and not said:
        lines = tuple(log[-_MAX_LINES:]) or tuple(str(ended.get("message", "")).splitlines()[-_MAX_LINES:])
        yield Finding(
            "crash", f"The container ended with exit code {exit_code}, and its log names no cause that is known.",
            "Read its last lines below, or the whole log with previous=true.", Weight.SYMPTOM,
            container=name, exit_code=exit_code, lines=lines,
        )  # fmt: skip


_PROBE: Final = re.compile(r"(Startup|Liveness|Readiness) probe failed: (.*)", re.DOTALL)


def _from_events(evidence: PodEvidence) -> Iterator[Finding]:
    status = evidence.pod.get("status") or {}
    conditions = {c.get("type"): c.get("status") for c in status.get("conditions") or ()}
    scheduled = conditions.get("PodScheduled") == "True" or bool((evidence.pod.get("spec") or {}).get("nodeName"))
    ready = conditions.get("Ready") == "True"
    if not scheduled:
        unscheduled = next((c for c in status.get("conditions") or () if c.get("reason") == "Unschedulable"), None)
        if unscheduled:
            yield explain_scheduling(str(unscheduled.get("message", "")))
    if ready:
        return
    for event in evidence.events:
        reason, message = str(event.get("reason", "")), str(event.get("message") or event.get("note") or "")
        if found := _from_event(reason, message, scheduled=scheduled):
            yield found


def _from_event(reason: str, message: str, *, scheduled: bool) -> Finding | None:
    if reason in _BEFORE_PLACEMENT:
        return None if scheduled else _BEFORE_PLACEMENT[reason](message)
    if reason == "Failed" and "pull" not in message.lower():
        return None
    explain = _AFTER_PLACEMENT.get(reason)
    return explain(message) if explain else None


def _no_share(message: str) -> Finding:
    return Finding(
        "gpu-share-full", "No GPU has the share of memory and cores that was asked for (HAMi).",
        "Ask for a smaller share, or free one; a dry run names what would fit.", Weight.CAUSE, lines=(message,),
    )  # fmt: skip


def _volume(message: str) -> Finding:
    if "multi-attach" in message.lower():
        return Finding(
            "volume-in-use", "The model cache's volume is held by another node.",
            "Use one replica with this cache, or a cache that several nodes can mount.", Weight.CAUSE, lines=(message,),
        )  # fmt: skip
    return Finding("volume-mount", "A volume of the pod cannot be mounted.", "Read the message below.", Weight.LIKELY,
                   lines=(message,))  # fmt: skip


def _probe(message: str) -> Finding | None:
    found = _PROBE.search(message)
    if found is None or found[1] == "Readiness":
        return None
    if found[1] == "Startup":
        return Finding("still-starting", "It does not answer yet.", "Wait: it may still be loading.", Weight.SYMPTOM,
                       lines=(message,))  # fmt: skip
    return Finding("probe", "It has stopped answering.", "Look at its log.", Weight.SYMPTOM, lines=(message,))


def _refused(message: str) -> Finding:
    if "exceeded quota" in message:
        return Finding("quota", "The namespace's quota does not allow another pod.", "Raise the quota, or free some.",
                       Weight.CAUSE, lines=(message,))  # fmt: skip
    if "violates PodSecurity" in message:
        return Finding("pod-security", "The namespace's security policy refuses the pod.",
                       "Relax the policy of the namespace, or use an image that meets it.", Weight.CAUSE,
                       lines=(message,))  # fmt: skip
    if "failed calling webhook" in message:
        return Finding("webhook", "An admission webhook of the cluster does not answer.",
                       "Repair or remove that webhook.", Weight.CAUSE, lines=(message,))  # fmt: skip
    return Finding("pod-refused", "The cluster refuses to make the pod.", "Read the message below.", Weight.LIKELY,
                   lines=(message,))  # fmt: skip


_BEFORE_PLACEMENT: Final[Mapping[str, Callable[[str], Finding]]] = {
    "FailedScheduling": explain_scheduling,
    "FilteringFailed": _no_share,
}
_AFTER_PLACEMENT: Final[Mapping[str, Callable[[str], Finding | None]]] = {
    "Failed": explain_pull,
    "FailedCreatePodSandBox": explain_runtime,
    "FailedMount": _volume,
    "FailedAttachVolume": _volume,
    "Unhealthy": _probe,
    "FailedCreate": _refused,
}
