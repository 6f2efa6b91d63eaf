"""What the events of a pod, and of the claims that it waits for, say of it: only those that still hold.

Events outlive what they tell of by an hour. What kept a container from starting (an image, a sandbox, a volume) is over
once the container has started, or the kubelet has come further; what befell a run is over when the next one has begun.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from budcluster.kube.diagnosis.admission import explain_refusal
from budcluster.kube.diagnosis.containers import explain_runtime
from budcluster.kube.diagnosis.finding import Finding, Weight
from budcluster.kube.diagnosis.images import explain_image, explain_pull
from budcluster.kube.diagnosis.pods import lost_with_node
from budcluster.kube.diagnosis.scheduling import WAITS_FOR_VOLUME
from budcluster.kube.diagnosis.scheduling import explain as explain_scheduling
from budcluster.kube.diagnosis.volumes import explain_claim, explain_mount
from budcluster.kube.times import last_seen, moment

Json = Mapping[str, Any]

_PROBE: Final = re.compile(r"(Startup|Liveness|Readiness) probe failed: ", re.IGNORECASE)
_KILLED: Final = re.compile(r"failed (startup|liveness) probe", re.IGNORECASE)
_FIELD: Final = re.compile(r"spec\.(?:initC|c)ontainers\{(.+)\}")
_FURTHER: Final = frozenset({"Pulling", "Pulled"})
_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)


def explain_events(pod: Json, events: Sequence[Json]) -> Iterator[Finding]:
    """The causes that the events of a pod which is not ready name, those of the latest event first."""
    latest = sorted(events, key=lambda event: last_seen(event) or _LONG_AGO, reverse=True)
    if not _is_placed(pod):
        yield from _before_placement(pod, latest)
    for event in latest:
        reason, message = _said(event)
        if reason in _BEFORE_STARTING and _is_overcome(event, latest):
            continue
        for kinds, holds in _KINDS:
            if reason in kinds and holds(event, _concerned(pod, event)) and (found := kinds[reason](message)):
                yield found


def pulls_again(events: Sequence[Json], container: str) -> bool:
    """Whether a container's image is being pulled after that failed: its status goes on to tell of the failure."""
    its = [event for event in events if _container_of(event) in {None, container}]
    pulls = [event for event in its if event.get("reason") == "Failed" and _pull(_said(event)[1])]
    failed = [at for event in pulls if (at := last_seen(event))]
    return bool(failed) and any(
        at > max(failed) for event in its if event.get("reason") == "Pulling" and (at := last_seen(event))
    )


def is_telling(event: Json) -> bool:
    """Whether an event may say why a pod does not run: Kubernetes calls some of those normal."""
    return event.get("type") != "Normal" or event.get("reason") in {"Killing", "FailedBinding", *_FURTHER}


def _before_placement(pod: Json, latest: Iterable[Json]) -> Iterator[Finding]:
    said = [_said(event) for event in latest]
    conditions = (pod.get("status") or {}).get("conditions") or ()
    messages = [str(one.get("message", "")) for one in conditions if one.get("reason") == "Unschedulable"]
    messages += [message for reason, message in said if reason == "FailedScheduling"]
    found = explain_scheduling(messages[0]) if messages else None
    # A claim may be bound by now, and the pod wait for something else: the scheduler knows.
    if found is None or found.type in WAITS_FOR_VOLUME:
        yield from (cause for reason, message in said if (cause := explain_claim(reason, message)))
    if found:
        yield found
    for reason, message in said:
        if reason == "FilteringFailed":
            yield Finding(
                "gpu-share-full", "No GPU has the share of memory and cores that was asked for (HAMi).",
                "Ask for a smaller share, or free one; a dry run names what would fit.", Weight.CAUSE, lines=(message,),
            )  # fmt: skip


# -- which events still hold -------------------------------------------------------------------------------------------


def _keeps_from_starting(event: Json, containers: Sequence[Json]) -> bool:
    """Whether none of the containers has begun to run since."""
    runs = [run for container in containers for run in _runs_of(container)]
    if any("running" in (container.get("state") or {}) for container in containers):
        return False
    ends = [end for run in runs if (end := moment(run.get("finishedAt")))]
    at = last_seen(event)
    return not runs or (at is not None and bool(ends) and at > max(ends))


def _is_overcome(event: Json, latest: Iterable[Json]) -> bool:
    """Whether the kubelet pulls the image since, for which it needs the sandbox and the volumes."""
    at, of = last_seen(event), _container_of(event)
    further = [one for one in latest if one.get("reason") in _FURTHER and of in {None, _container_of(one)}]
    return at is not None and any(since > at for one in further if (since := last_seen(one)))


def _tells_of_this_run(event: Json, containers: Sequence[Json]) -> bool:
    """Whether no other run has begun since."""
    return _is_since(event, (run for container in containers for run in _runs_of(container)[:1]))


def _tells_of_the_last_end(event: Json, containers: Sequence[Json]) -> bool:
    """Whether it belongs to the run that ended last, or to one that is ending."""
    ended = [run for container in containers for run in _runs_of(container) if "finishedAt" in run]
    return _is_since(event, ended or (run for container in containers for run in _runs_of(container)))


def _is_since(event: Json, runs: Iterable[Json]) -> bool:
    at, starts = last_seen(event), [start for run in runs if (start := moment(run.get("startedAt")))]
    return at is None or not starts or at >= max(starts)


def _runs_of(container: Json) -> list[Json]:
    """The present run and the one before, as far as they are known; the latest first."""
    state = container.get("state") or {}
    runs = [state.get("running"), state.get("terminated"), (container.get("lastState") or {}).get("terminated")]
    return [run for run in runs if run is not None]


def _concerned(pod: Json, event: Json) -> list[Json]:
    """Statuses of the container that an event names, or of all."""
    status = pod.get("status") or {}
    every = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    named = _container_of(event)
    return [one for one in every if named is None or one.get("name") == named]


def _container_of(event: Json) -> str | None:
    found = _FIELD.fullmatch(str((event.get("involvedObject") or event.get("regarding") or {}).get("fieldPath", "")))
    return found[1] if found else None


def _is_placed(pod: Json) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    bound = any(one.get("type") == "PodScheduled" and one.get("status") == "True" for one in conditions)
    return bound or bool((pod.get("spec") or {}).get("nodeName"))


def _said(event: Json) -> tuple[str, str]:
    return str(event.get("reason", "")), str(event.get("message") or event.get("note") or "")


# -- what they mean ----------------------------------------------------------------------------------------------------


def _pull(message: str) -> Finding | None:
    return explain_pull(message) if "pull" in message.lower() else None


def _probe(message: str) -> Finding | None:
    found = _PROBE.search(message)
    if found is None or found[1].lower() == "readiness":
        return None
    if found[1].lower() == "startup":
        return Finding("still-starting", "It does not answer yet.", "Wait: it may still be loading.", Weight.SYMPTOM,
                       lines=(message,))  # fmt: skip
    return Finding("probe", "It has stopped answering.", "Look at its log.", Weight.SYMPTOM, lines=(message,))


def _killed(message: str) -> Finding | None:
    found = _KILLED.search(message)
    if found is None:
        return None
    if found[1].lower() == "startup":
        return Finding(
            "startup-timeout", "The container was restarted since it did not answer within its startup timeout.",
            "Give it a longer startup_timeout_s, unless its log names another cause.", Weight.LIKELY, lines=(message,),
        )  # fmt: skip
    return Finding("probe", "The container was restarted since it had stopped answering.", "Look at its log.",
                   Weight.LIKELY, lines=(message,))  # fmt: skip


_Explain = Callable[[str], Finding | None]
_BEFORE_STARTING: Final[Mapping[str, _Explain]] = {
    "ErrImageNeverPull": lambda message: explain_image("ErrImageNeverPull", message),
    "Failed": _pull,
    "FailedAttachVolume": explain_mount,
    "FailedCreate": explain_refusal,
    "FailedCreatePodSandBox": explain_runtime,
    "FailedMount": explain_mount,
    "InspectFailed": lambda message: explain_image("ImageInspectError", message),
}
_KINDS: Final[tuple[tuple[Mapping[str, _Explain], Callable[[Json, Sequence[Json]], bool]], ...]] = (
    (_BEFORE_STARTING, _keeps_from_starting),
    ({"Unhealthy": _probe, "NodeNotReady": lost_with_node}, _tells_of_this_run),
    ({"Killing": _killed}, _tells_of_the_last_end),
)
