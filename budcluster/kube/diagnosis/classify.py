"""Puts the evidence of one pod together."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

from budcluster.kit.redaction import Redactor
from budcluster.kube.diagnosis.containers import explain_exit, explain_waiting
from budcluster.kube.diagnosis.events import explain_events, pulls_again
from budcluster.kube.diagnosis.finding import Finding, Weight
from budcluster.kube.diagnosis.logs import explain_log, explain_silence
from budcluster.kube.diagnosis.pods import explain_deletion, explain_status
from budcluster.kube.times import moment

_REDACTOR: Final = Redactor()
_MAX_LINES: Final = 12
_MAX_LINE: Final = 500
_SILENT_AFTER: Final = timedelta(minutes=5)
"""A start that stands still for less is none to speak of."""


@dataclass(frozen=True, slots=True)
class PodEvidence:
    """What is known of one pod."""

    pod: Mapping[str, Any]
    events: Sequence[Mapping[str, Any]] = ()
    """Of the pod, and of the claims that it uses."""
    logs: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Last lines by container: of the attempt that ended, where there is one, else of the one that runs."""
    at: datetime | None = None
    """When it was seen; None: what takes too long is not told."""


def diagnose(evidence: PodEvidence) -> Finding | None:
    """The cause that explains most; None for a pod that is well, or is on its way."""
    findings = list(_findings(evidence))
    if not findings:
        return None
    best = max(findings, key=lambda finding: finding.weight)
    metadata = evidence.pod.get("metadata") or {}
    lines = tuple(_REDACTOR.mask(line)[:_MAX_LINE] for line in best.lines[-_MAX_LINES:])
    return replace(best, pod=str(metadata.get("name", "")), lines=lines)


def _findings(evidence: PodEvidence) -> Iterator[Finding]:
    pod = evidence.pod
    status = pod.get("status") or {}
    conditions = {c.get("type"): c.get("status") for c in status.get("conditions") or ()}
    if (pod.get("metadata") or {}).get("deletionTimestamp"):
        events = [event for event in evidence.events if event.get("reason") == "NodeNotReady"]
        if found := explain_deletion(pod, evidence.at):
            yield found
        yield from explain_events(pod, events)
        return
    if found := explain_status(status):
        yield found
    for container in (*_statuses(status, "initContainerStatuses"), *_statuses(status, "containerStatuses")):
        yield from _from_container(container, evidence)
    if conditions.get("Ready") != "True":
        yield from explain_events(pod, evidence.events)


def _statuses(status: Mapping[str, Any], key: str) -> Iterable[Mapping[str, Any]]:
    return status.get(key) or ()


def _from_container(container: Mapping[str, Any], evidence: PodEvidence) -> Iterator[Finding]:
    name = str(container.get("name"))
    log = evidence.logs.get(name, ())
    state = container.get("state") or {}
    waiting = state.get("waiting") or {}
    found = explain_waiting(str(waiting.get("reason", "")), str(waiting.get("message", "")))
    if found and not pulls_again(evidence.events, name):
        yield replace(found, container=name)
    if container.get("ready"):
        return  # it may have failed once, and is well again
    ended = state.get("terminated") or (container.get("lastState") or {}).get("terminated")
    if not ended:
        yield from _from_first_run(state, name, log, evidence.at)
    elif ended.get("exitCode") != 0 or waiting.get("reason") == "CrashLoopBackOff":
        yield from _from_end(ended, name, log)


def _from_first_run(state: Mapping[str, Any], name: str, log: Sequence[str], at: datetime | None) -> Iterator[Finding]:
    began = moment((state.get("running") or {}).get("startedAt"))
    if at and began and at >= began + _SILENT_AFTER and (found := explain_silence(log)):
        yield replace(found, container=name)


def _from_end(ended: Mapping[str, Any], name: str, log: Sequence[str]) -> Iterator[Finding]:
    exit_code, message = int(ended.get("exitCode", 0)), str(ended.get("message", ""))
    last = tuple(log[-_MAX_LINES:]) or tuple(message.splitlines()[-_MAX_LINES:])
    said = explain_log([*log, *message.splitlines()])
    own = explain_exit(str(ended.get("reason", "")), exit_code, message)
    found = [one for one in (explain_silence(log), own, said) if one]
    for one in found:
        yield replace(one, container=name, exit_code=exit_code, lines=one.lines or last)
    if not found:
        yield Finding(
            "crash", f"The container ended with exit code {exit_code}, and its log names no cause that is known.",
            "Read its last lines below, or the whole log with previous=true.", Weight.SYMPTOM,
            container=name, exit_code=exit_code, lines=last,
        )  # fmt: skip
