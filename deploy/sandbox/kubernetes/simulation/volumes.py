"""PersistentVolumeClaims: what they mean for scheduling, and the controller that binds them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sandbox.kubernetes.history import Event
from sandbox.kubernetes.simulation.world import World
from sandbox.kubernetes.store import Store

Obj = dict[str, Any]

SELECTED_NODE = "volume.kubernetes.io/selected-node"
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
_SOURCE = "persistentvolume-controller"
_PROVISION_S = 2.0


@dataclass
class Claims:
    """The claims of one pod: why it cannot be placed at all, or which ones wait to learn the node."""

    problem: str = ""
    waiting: list[Obj] = field(default_factory=list)


def claim_names(pod: Obj) -> Iterator[str]:
    """The names of the claims that a pod mounts, generic ephemeral ones included."""
    for volume in pod["spec"].get("volumes") or []:
        if "persistentVolumeClaim" in volume:
            yield volume["persistentVolumeClaim"]["claimName"]
        elif "ephemeral" in volume:
            yield f"{pod['metadata']['name']}-{volume['name']}"


def inspect_claims(store: Store, pod: Obj) -> Claims:
    """Look at a pod's claims the way the scheduler's VolumeBinding does before it looks at nodes."""
    found = Claims()
    for name in claim_names(pod):
        claim = store.find("PersistentVolumeClaim", pod["metadata"]["namespace"], name)
        if claim is None:
            return Claims(problem=f'persistentvolumeclaim "{name}" not found')
        if claim["metadata"].get("deletionTimestamp"):
            return Claims(problem=f'persistentvolumeclaim "{name}" is being deleted')
        if (claim.get("status") or {}).get("phase") == "Bound":
            continue
        if not _waits_for_consumer(store, claim):
            return Claims(problem="pod has unbound immediate PersistentVolumeClaims")
        found.waiting.append(claim)
    return found


def select_node(world: World, claims: list[Obj], node: str) -> None:
    """Tell the provisioner where the consumer will run."""

    def annotate(current: Obj) -> None:
        current["metadata"].setdefault("annotations", {})[SELECTED_NODE] = node

    for claim in claims:
        world.change(claim, annotate)


def storage_class(store: Store, claim: Obj) -> Obj | None:
    """The class a claim names, or the default one; None when there is neither."""
    name = claim["spec"].get("storageClassName")
    if name is not None:
        return store.find("StorageClass", None, name) if name else None
    for candidate in store.list("StorageClass"):
        if (candidate["metadata"].get("annotations") or {}).get(DEFAULT_CLASS) == "true":
            return candidate
    return None


def _waits_for_consumer(store: Store, claim: Obj) -> bool:
    found = storage_class(store, claim)
    return found is not None and found.get("volumeBindingMode") == "WaitForFirstConsumer"


class ClaimController:
    """Provisions a volume for every claim that has a class and, where the class asks, a consumer."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.broken = False
        """A fault: nothing gets provisioned any more."""
        self._stop = world.store.subscribe(self._on_event, kinds=("PersistentVolumeClaim", "StorageClass"))

    def stop(self) -> None:
        """Listen no longer."""
        self._stop()

    def retry_all(self) -> None:
        """Look at every claim again, after a class appeared or the fault was lifted."""
        for claim in self._world.store.list("PersistentVolumeClaim"):
            self._consider(claim)

    def _on_event(self, event: Event) -> None:
        if event.obj["kind"] == "StorageClass":
            if event.type == "ADDED":
                self._world.driver.soon("claims", self.retry_all)
            return
        if event.type != "DELETED":
            self._consider(event.obj)
        elif volume := event.obj["spec"].get("volumeName"):
            self._world.driver.soon(("volume", volume), lambda: self._release(volume))

    def _release(self, volume: str) -> None:
        kept = self._world.store.find("PersistentVolume", None, volume)
        if kept is not None and kept["spec"].get("persistentVolumeReclaimPolicy") == "Delete":
            self._world.store.delete("PersistentVolume", None, volume)

    def _consider(self, claim: Obj) -> None:
        meta = claim["metadata"]
        if (claim.get("status") or {}).get("phase") != "Bound" and not meta.get("deletionTimestamp"):
            place = ("PersistentVolumeClaim", meta["namespace"], meta["name"])
            self._world.driver.soon(("claim", place), lambda: self._reconcile(place))

    def _reconcile(self, place: tuple[str, str, str]) -> None:
        world, claim = self._world, self._world.store.find(*place)
        if claim is None or (claim.get("status") or {}).get("phase") == "Bound":
            return
        if not (claim.get("status") or {}).get("phase"):
            world.change(claim, lambda current: current.update(status={"phase": "Pending"}), subresource="status")
        found = storage_class(world.store, claim)
        if found is None:
            self._explain_missing_class(claim)
        elif found.get("volumeBindingMode") == "WaitForFirstConsumer" and not (
            claim["metadata"].get("annotations") or {}
        ).get(SELECTED_NODE):
            message = "waiting for first consumer to be created before binding"
            world.events.normal(claim, "WaitForFirstConsumer", message, source=_SOURCE)
        elif self.broken:
            message = (
                'failed to provision volume with StorageClass "' + found["metadata"]["name"] + '": out of capacity'
            )
            world.events.warning(claim, "ProvisioningFailed", message, source=found["provisioner"])
        else:
            world.after(_PROVISION_S, lambda: self._provision(place, found))

    def _explain_missing_class(self, claim: Obj) -> None:
        name = claim["spec"].get("storageClassName")
        if name:
            message = f'storageclass.storage.k8s.io "{name}" not found'
            self._world.events.warning(claim, "ProvisioningFailed", message, source=_SOURCE)
            return
        message = "no persistent volumes available for this claim and no storage class is set"
        self._world.events.normal(claim, "FailedBinding", message, source=_SOURCE)

    def _provision(self, place: tuple[str, str, str], storage: Obj) -> None:
        world, claim = self._world, self._world.store.find(*place)
        if claim is None or (claim.get("status") or {}).get("phase") == "Bound":
            return
        name = f"pvc-{claim['metadata']['uid']}"
        if world.store.find("PersistentVolume", None, name) is None:
            made = world.store.create(_volume(name, claim, storage))
            world.change(made, lambda current: current.update(status={"phase": "Bound"}), subresource="status")
        spec = {"volumeName": name, "storageClassName": storage["metadata"]["name"]}
        world.change(claim, lambda current: current["spec"].update(spec))
        bound = {
            "phase": "Bound",
            "accessModes": claim["spec"].get("accessModes"),
            "capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]},
        }
        world.change(claim, lambda current: current.update(status=bound), subresource="status")
        message = f"Successfully provisioned volume {name}"
        world.events.normal(claim, "ProvisioningSucceeded", message, source=storage["provisioner"])


def _volume(name: str, claim: Obj, storage: Obj) -> Obj:
    meta = claim["metadata"]
    reference = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": meta["namespace"]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": name,
            "annotations": {"pv.kubernetes.io/provisioned-by": storage["provisioner"]},
        },
        "spec": {
            "accessModes": claim["spec"].get("accessModes"),
            "capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]},
            "claimRef": {**reference, "name": meta["name"], "uid": meta["uid"]},
            "persistentVolumeReclaimPolicy": storage.get("reclaimPolicy", "Delete"),
            "storageClassName": storage["metadata"]["name"],
            "volumeMode": "Filesystem",
            "hostPath": {"path": f"/var/lib/volumes/{name}", "type": "DirectoryOrCreate"},
        },
    }
