"""Deployments: one ReplicaSet per template, rolled over within the surge and unavailability that are allowed."""

from __future__ import annotations

import json
import math
from typing import Any

from sandbox.kubernetes.simulation.controllers.reconciler import Reconciler
from sandbox.kubernetes.simulation.quantities import exact
from sandbox.kubernetes.simulation.world import World, owner_reference, seconds_of, short_hash

Obj = dict[str, Any]

REVISION = "deployment.kubernetes.io/revision"
_HASH = "pod-template-hash"
_QUANTITIES = ("limits", "requests")


class DeploymentController(Reconciler):
    """RollingUpdate and Recreate, revisions kept for rollback, progress deadline."""

    kind, child, source = "Deployment", "ReplicaSet", "deployment-controller"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._marks: dict[str, str] = {}

    def reconcile(self, obj: Obj) -> None:
        """See the class."""
        sets = self.children(obj)
        newest = next((one for one in sets if _template(one) == _template(obj)), None)
        if newest is None:
            newest = self._create_set(obj, sets)
            sets = self.children(obj)
        else:
            self._promote(obj, newest, sets)
        former = [one for one in sets if one["metadata"]["uid"] != newest["metadata"]["uid"]]
        if not obj["spec"].get("paused"):
            if (obj["spec"].get("strategy") or {}).get("type") == "Recreate":
                self._recreate(obj, newest, former)
            else:
                self._roll(obj, newest, former)
            self._prune(obj, former)
        self._report(obj, newest["metadata"]["uid"])

    def _create_set(self, obj: Obj, sets: list[Obj]) -> Obj:
        meta, template = obj["metadata"], obj["spec"]["template"]
        digest = short_hash(json.dumps(template, sort_keys=True))
        labels = {**(template["metadata"].get("labels") or {}), _HASH: digest}
        selector = {**obj["spec"]["selector"]}
        selector["matchLabels"] = {**(selector.get("matchLabels") or {}), _HASH: digest}
        revision = str(max((_revision(one) for one in sets), default=0) + 1)
        made = self.world.store.create({
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {
                "name": f"{meta['name']}-{digest}",
                "namespace": meta["namespace"],
                "labels": labels,
                "annotations": {**_inherited(meta), REVISION: revision},
                "ownerReferences": [owner_reference(obj)],
            },
            "spec": {
                "replicas": 0,
                "minReadySeconds": obj["spec"].get("minReadySeconds", 0),
                "selector": selector,
                "template": {**template, "metadata": {**template["metadata"], "labels": labels}},
            },
        })  # fmt: skip
        self._annotate(obj, revision)
        return made

    def _promote(self, obj: Obj, newest: Obj, sets: list[Obj]) -> None:
        """A rollback makes an old ReplicaSet the newest revision again."""
        highest = max(_revision(one) for one in sets)
        if _revision(newest) == highest:
            self._annotate(obj, str(highest))
            return

        def renumber(current: Obj) -> None:
            current["metadata"].setdefault("annotations", {})[REVISION] = str(highest + 1)

        self.world.change(newest, renumber)
        self._annotate(obj, str(highest + 1))

    def _annotate(self, obj: Obj, revision: str) -> None:
        if (obj["metadata"].get("annotations") or {}).get(REVISION) == revision:
            return

        def write(current: Obj) -> None:
            current["metadata"].setdefault("annotations", {})[REVISION] = revision

        self.world.change(obj, write)

    def _recreate(self, obj: Obj, newest: Obj, former: list[Obj]) -> None:
        for one in former:
            self._scale(obj, one, 0)
        pods = [pod for one in former for pod in self.world.view.owned(one["metadata"]["uid"], "Pod")]
        if pods:
            # Woken again when the last old pod is really gone: its ReplicaSet is touched then.
            key = (self.kind, obj["metadata"]["namespace"], obj["metadata"]["name"])
            self.world.after(1.0, lambda: self.wake(key))
            return
        self._scale(obj, newest, _wanted(obj))

    def _roll(self, obj: Obj, newest: Obj, former: list[Obj]) -> None:
        wanted = _wanted(obj)
        surge, unavailable = _bounds(obj)
        old = [one for one in former if one["spec"]["replicas"]]
        total = newest["spec"]["replicas"] + sum(one["spec"]["replicas"] for one in old)
        room = wanted + surge - total
        target = newest["spec"]["replicas"]
        if target > wanted:
            target = wanted
        elif room > 0:
            target = min(wanted, target + room)
        newest_scaled = target != newest["spec"]["replicas"]
        self._scale(obj, newest, target)
        if newest_scaled and not old:
            return
        available = _available(newest) + sum(_available(one) for one in old)
        spare = available - (wanted - unavailable)
        for one in sorted(old, key=_revision):
            # Replicas that never became ready cost nothing to remove.
            idle = one["spec"]["replicas"] - _available(one)
            cut = min(one["spec"]["replicas"], idle + max(spare, 0))
            if cut:
                spare -= max(cut - idle, 0)
                self._scale(obj, one, one["spec"]["replicas"] - cut)

    def _scale(self, obj: Obj, replica_set: Obj, replicas: int) -> None:
        current = int(replica_set["spec"]["replicas"])
        if current == replicas:
            return
        self.world.change(replica_set, lambda one: one["spec"].update(replicas=replicas))
        direction, name = ("up" if replicas > current else "down"), replica_set["metadata"]["name"]
        message = f"Scaled {direction} replica set {name} from {current} to {replicas}"
        self.world.events.normal(obj, "ScalingReplicaSet", message, source=self.source)

    def _prune(self, obj: Obj, former: list[Obj]) -> None:
        keep = int(obj["spec"].get("revisionHistoryLimit", 10))
        empty = [one for one in former if not one["spec"]["replicas"] and not one.get("status", {}).get("replicas")]
        for one in sorted(empty, key=_revision)[: max(len(empty) - keep, 0)]:
            self.world.store.delete("ReplicaSet", one["metadata"]["namespace"], one["metadata"]["name"])

    def _report(self, obj: Obj, newest_uid: str) -> None:
        sets = self.children(obj)
        newest = next((one for one in sets if one["metadata"]["uid"] == newest_uid), None)
        if newest is None:
            return
        wanted, updated = _wanted(obj), int(newest.get("status", {}).get("replicas", 0))
        total = sum(int(one.get("status", {}).get("replicas", 0)) for one in sets)
        available = sum(_available(one) for one in sets)
        complete = updated == wanted == total and available >= wanted
        status: Obj = {
            "observedGeneration": obj["metadata"].get("generation", 1),
            "replicas": total,
            "updatedReplicas": updated,
            "readyReplicas": available,
            "availableReplicas": available,
            "unavailableReplicas": max(wanted - available, 0),
            "conditions": self._conditions(obj, newest, complete=complete, available=available, updated=updated),
        }
        self.write_status(obj, status)

    def _conditions(self, obj: Obj, newest: Obj, *, complete: bool, available: int, updated: int) -> list[Obj]:
        now = self.world.now()
        former = {row["type"]: row for row in (obj.get("status") or {}).get("conditions") or []}
        minimum = available >= _wanted(obj) - _bounds(obj)[1]
        reason = "MinimumReplicasAvailable" if minimum else "MinimumReplicasUnavailable"
        words = "has minimum availability" if minimum else "does not have minimum availability"
        rows = [_row("Available", minimum, reason, f"Deployment {words}.", former, now)]
        rows.append(self._progress(obj, newest, former, complete=complete, mark=f"{updated}/{available}"))
        failures = [row for row in newest.get("status", {}).get("conditions") or [] if row["type"] == "ReplicaFailure"]
        rows += [_row("ReplicaFailure", True, "FailedCreate", row["message"], former, now) for row in failures]
        return rows

    def _progress(self, obj: Obj, newest: Obj, former: dict[str, Obj], *, complete: bool, mark: str) -> Obj:
        """The Progressing condition; its clock restarts whenever the numbers of the rollout move."""
        now, name = self.world.now(), newest["metadata"]["name"]
        if complete:
            message = f'ReplicaSet "{name}" has successfully progressed.'
            return _row("Progressing", True, "NewReplicaSetAvailable", message, former, now)
        limit = float(obj["spec"].get("progressDeadlineSeconds", 600))
        seen, moved = former.get("Progressing"), f"{newest['metadata']['uid']}/{mark}/{_wanted(obj)}"
        if seen is not None and self._marks.get(obj["metadata"]["uid"]) == moved:
            waited = self.world.driver.seconds() - seconds_of(seen["lastUpdateTime"])
            if seen["reason"] == "ProgressDeadlineExceeded" or waited >= limit:
                message = f'ReplicaSet "{name}" has timed out progressing.'
                return _row("Progressing", False, "ProgressDeadlineExceeded", message, former, now)
            return seen
        self._marks[obj["metadata"]["uid"]] = moved
        key = (self.kind, obj["metadata"]["namespace"], obj["metadata"]["name"])
        self.world.after(limit + 1.0, lambda: self.wake(key))
        message = f'ReplicaSet "{name}" is progressing.'
        row = _row("Progressing", True, "ReplicaSetUpdated", message, former, now)
        return {**row, "lastUpdateTime": now}


def _row(kind: str, holds: bool, reason: str, message: str, former: dict[str, Obj], now: str) -> Obj:
    status, seen = ("True" if holds else "False"), former.get(kind)
    if seen is not None and (seen["status"], seen["reason"], seen["message"]) == (status, reason, message):
        return seen
    since = seen["lastTransitionTime"] if seen is not None and seen["status"] == status else now
    return {
        "type": kind, "status": status, "reason": reason, "message": message,
        "lastUpdateTime": now, "lastTransitionTime": since,
    }  # fmt: skip


def _template(obj: Obj) -> str:
    """A template as text, without the label that the controller itself adds and without nulls and empty values."""
    template = obj["spec"]["template"]
    labels = {key: value for key, value in (template["metadata"].get("labels") or {}).items() if key != _HASH}
    bare = _semantic({**template, "metadata": {**template["metadata"], "labels": labels}})
    return json.dumps(bare, sort_keys=True)


def _semantic(value: Any) -> Any:
    """What Kubernetes' semantic equality compares: empty values count as absent, quantities by value (`1` is `"1"`)."""
    if isinstance(value, dict):
        pruned = {key: _quantities(part) if key in _QUANTITIES else _semantic(part) for key, part in value.items()}
        return {key: part for key, part in pruned.items() if part not in (None, {}, [])}
    return [_semantic(part) for part in value] if isinstance(value, list) else value


def _quantities(value: Any) -> Any:
    return {name: str(exact(str(amount))) for name, amount in value.items()} if isinstance(value, dict) else value


def _inherited(meta: Obj) -> dict[str, str]:
    skipped = ("kubectl.kubernetes.io/last-applied-configuration", REVISION)
    return {key: value for key, value in (meta.get("annotations") or {}).items() if key not in skipped}


def _revision(replica_set: Obj) -> int:
    return int((replica_set["metadata"].get("annotations") or {}).get(REVISION, "0"))


def _wanted(obj: Obj) -> int:
    return int(obj["spec"].get("replicas", 1))


def _available(replica_set: Obj) -> int:
    return int((replica_set.get("status") or {}).get("availableReplicas", 0))


def _bounds(obj: Obj) -> tuple[int, int]:
    """MaxSurge rounded up and maxUnavailable rounded down, never both zero."""
    strategy = obj["spec"].get("strategy") or {}
    if strategy.get("type") == "Recreate":
        return 0, _wanted(obj)
    rolling = strategy.get("rollingUpdate") or {}
    surge = _share(rolling.get("maxSurge", "25%"), _wanted(obj), up=True)
    unavailable = _share(rolling.get("maxUnavailable", "25%"), _wanted(obj), up=False)
    return surge, unavailable if surge or unavailable else 1


def _share(value: Any, whole: int, *, up: bool) -> int:
    text = str(value)
    if not text.endswith("%"):
        return int(text)
    share = int(text[:-1]) * whole / 100
    return math.ceil(share) if up else math.floor(share)
