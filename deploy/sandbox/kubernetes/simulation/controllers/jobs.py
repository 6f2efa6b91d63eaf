"""Jobs: pods until enough of them succeeded, or too many failed. CronJobs are stored and never run."""

from __future__ import annotations

from typing import Any

from sandbox.kubernetes.simulation.controllers.reconciler import Reconciler
from sandbox.kubernetes.simulation.view import is_ready
from sandbox.kubernetes.simulation.world import short_hash

Obj = dict[str, Any]

_RETRY_S = 10.0


class JobController(Reconciler):
    """Completions, parallelism, backoffLimit, activeDeadlineSeconds, ttlSecondsAfterFinished."""

    kind, child, source = "Job", "Pod", "job-controller"

    def reconcile(self, obj: Obj) -> None:
        """See the class."""
        if _verdict(obj) is not None or obj["spec"].get("suspend"):
            return
        pods = self.children(obj)
        by_phase: dict[str, list[Obj]] = {}
        for pod in pods:
            by_phase.setdefault((pod.get("status") or {}).get("phase", "Pending"), []).append(pod)
        succeeded, failed = len(by_phase.get("Succeeded", [])), by_phase.get("Failed", [])
        active = [pod for pod in pods if (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")]
        wanted, parallel = int(obj["spec"].get("completions", 1)), int(obj["spec"].get("parallelism", 1))
        retries = len(failed) + sum(_restarts(pod) for pod in active)
        status: Obj = {
            "active": len(active),
            "ready": sum(is_ready(pod) for pod in active),
            "succeeded": succeeded,
            "failed": len(failed),
            "startTime": (obj.get("status") or {}).get("startTime") or self.world.now(),
        }
        limit = int(obj["spec"].get("backoffLimit", 6))
        if succeeded >= wanted:
            self._finish(obj, status, "Complete", "CompletionsReached", "Reached expected number of succeeded pods")
        elif retries > limit:
            self._stop_pods(obj, active)
            self._finish(obj, status, "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
        else:
            self._start_pods(obj, min(parallel, wanted - succeeded) - len(active), len(pods), delay=bool(failed))
            self._watch_deadline(obj, status)
            self.write_status(obj, status)

    def _start_pods(self, obj: Obj, missing: int, made: int, *, delay: bool) -> None:
        meta = obj["metadata"]
        labels = {
            "batch.kubernetes.io/job-name": meta["name"],
            "batch.kubernetes.io/controller-uid": meta["uid"],
            "job-name": meta["name"],
            "controller-uid": meta["uid"],
        }
        for number in range(missing):
            name = f"{meta['name']}-{short_hash(meta['uid'] + str(made + number), length=5)}"

            def start(name: str = name) -> None:
                if self.world.store.find("Pod", meta["namespace"], name) is None:
                    newest = self.world.store.find("Job", meta["namespace"], meta["name"])
                    if newest is not None and newest["metadata"]["uid"] == meta["uid"] and _verdict(newest) is None:
                        self.make_pod(obj, name, obj["spec"]["template"], labels=labels)

            if delay:
                self.world.after(_RETRY_S, start)
            else:
                start()

    def _watch_deadline(self, obj: Obj, status: Obj) -> None:
        seconds = obj["spec"].get("activeDeadlineSeconds")
        if seconds is None or (obj.get("status") or {}).get("startTime"):
            return

        def expire() -> None:
            newest = self.world.store.find("Job", obj["metadata"]["namespace"], obj["metadata"]["name"])
            if newest is not None and newest["metadata"]["uid"] == obj["metadata"]["uid"] and _verdict(newest) is None:
                self._stop_pods(newest, self.children(newest))
                message = "Job was active longer than specified deadline"
                self._finish(newest, {**status, "active": 0}, "Failed", "DeadlineExceeded", message)

        self.world.after(float(seconds), expire)

    def _stop_pods(self, obj: Obj, pods: list[Obj]) -> None:
        for pod in pods:
            self.remove_pod(obj, pod)

    def _finish(self, obj: Obj, status: Obj, verdict: str, reason: str, message: str) -> None:
        now = self.world.now()
        row = {
            "status": "True", "reason": reason, "message": message, "lastProbeTime": now, "lastTransitionTime": now,
        }  # fmt: skip
        before = "SuccessCriteriaMet" if verdict == "Complete" else "FailureTarget"
        status |= {"active": 0, "ready": 0, "conditions": [{"type": before, **row}, {"type": verdict, **row}]}
        if verdict == "Complete":
            status["completionTime"] = now
            self.world.events.normal(obj, "Completed", "Job completed", source=self.source)
        else:
            self.world.events.warning(obj, reason, message, source=self.source)
        self.write_status(obj, status)
        ttl = obj["spec"].get("ttlSecondsAfterFinished")
        if ttl is not None:
            meta = obj["metadata"]
            self.world.after(float(ttl), lambda: self._expire(meta))

    def _expire(self, meta: Obj) -> None:
        found = self.world.store.find("Job", meta["namespace"], meta["name"])
        if found is not None and found["metadata"]["uid"] == meta["uid"]:
            self.world.store.delete("Job", meta["namespace"], meta["name"])


def _verdict(obj: Obj) -> str | None:
    for row in (obj.get("status") or {}).get("conditions") or []:
        if row["type"] in ("Complete", "Failed") and row["status"] == "True":
            return str(row["type"])
    return None


def _restarts(pod: Obj) -> int:
    return sum(int(row["restartCount"]) for row in (pod.get("status") or {}).get("containerStatuses") or [])
