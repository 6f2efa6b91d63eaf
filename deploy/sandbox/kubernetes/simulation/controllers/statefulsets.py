"""StatefulSets: numbered pods with claims of their own, one after the other unless told otherwise."""

from __future__ import annotations

import json
from typing import Any

from sandbox.kubernetes.simulation.controllers.reconciler import Reconciler
from sandbox.kubernetes.simulation.view import is_finished, is_ready
from sandbox.kubernetes.simulation.world import short_hash

Obj = dict[str, Any]

_HASH = "controller-revision-hash"


class StatefulSetController(Reconciler):
    """OrderedReady and Parallel; rolling update from the highest ordinal down."""

    kind, child, source = "StatefulSet", "Pod", "statefulset-controller"

    def reconcile(self, obj: Obj) -> None:
        """See the class."""
        meta, spec = obj["metadata"], obj["spec"]
        wanted = int(spec.get("replicas", 1))
        digest = f"{meta['name']}-{short_hash(json.dumps(spec['template'], sort_keys=True))}"
        everything = {pod["metadata"]["name"]: pod for pod in self.world.view.owned(meta["uid"], "Pod")}
        pods = {pod["metadata"]["name"]: pod for pod in self.children(obj)}
        parallel = spec.get("podManagementPolicy") == "Parallel"
        for ordinal in range(wanted):
            name = f"{meta['name']}-{ordinal}"
            pod = everything.get(name)
            if pod is not None and is_finished(pod):
                self.remove_pod(obj, pod)
            elif pod is None:
                self._create(obj, name, ordinal, digest)
            if not parallel and (pod is None or not is_ready(pod)):
                break
        else:
            self._shrink_or_update(obj, pods, wanted, digest)
        self._report(obj, digest)

    def _shrink_or_update(self, obj: Obj, pods: dict[str, Obj], wanted: int, digest: str) -> None:
        surplus = [pod for name, pod in pods.items() if _ordinal(name) >= wanted]
        if surplus:
            self.remove_pod(obj, max(surplus, key=lambda pod: _ordinal(pod["metadata"]["name"])))
            return
        if (obj["spec"].get("updateStrategy") or {}).get("type") == "OnDelete":
            return
        old = [pod for pod in pods.values() if pod["metadata"]["labels"].get(_HASH) != digest]
        if old and len(pods) == wanted:
            self.remove_pod(obj, max(old, key=lambda pod: _ordinal(pod["metadata"]["name"])))

    def _create(self, obj: Obj, name: str, ordinal: int, digest: str) -> None:
        meta, template = obj["metadata"], obj["spec"]["template"]
        volumes = list(template["spec"].get("volumes") or [])
        for claim in obj["spec"].get("volumeClaimTemplates") or []:
            claim_name = f"{claim['metadata']['name']}-{name}"
            volumes.append({"name": claim["metadata"]["name"], "persistentVolumeClaim": {"claimName": claim_name}})
            if self.world.store.find("PersistentVolumeClaim", meta["namespace"], claim_name) is None:
                labels = (obj["spec"].get("selector") or {}).get("matchLabels") or {}
                self.world.store.create({
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "metadata": {"name": claim_name, "namespace": meta["namespace"], "labels": labels},
                    "spec": claim["spec"],
                })  # fmt: skip
        spec = {**template["spec"], "hostname": name, "subdomain": obj["spec"].get("serviceName", "")}
        if volumes:
            spec["volumes"] = volumes
        labels = {
            _HASH: digest,
            "apps.kubernetes.io/pod-index": str(ordinal),
            "statefulset.kubernetes.io/pod-name": name,
        }
        self.make_pod(obj, name, {**template, "spec": spec}, labels=labels)

    def _report(self, obj: Obj, digest: str) -> None:
        pods = self.children(obj)
        ready = sum(is_ready(pod) for pod in pods)
        updated = sum(pod["metadata"]["labels"].get(_HASH) == digest for pod in pods)
        whole = updated == len(pods) == int(obj["spec"].get("replicas", 1)) == ready
        former = (obj.get("status") or {}).get("currentRevision", digest)
        self.write_status(obj, {
            "replicas": len(pods), "readyReplicas": ready, "availableReplicas": ready, "updatedReplicas": updated,
            "currentReplicas": updated if whole else len(pods) - updated or updated,
            "currentRevision": digest if whole else former, "updateRevision": digest, "collisionCount": 0,
            "observedGeneration": obj["metadata"].get("generation", 1),
        })  # fmt: skip


def _ordinal(name: str) -> int:
    return int(name.rpartition("-")[2])
