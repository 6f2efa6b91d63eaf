"""What controllers share: one queue entry per object, woken by the object itself and by what it controls."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from sandbox.kubernetes.admission import PodAdmission
from sandbox.kubernetes.errors import Forbidden
from sandbox.kubernetes.history import Event
from sandbox.kubernetes.simulation.gpu_runtime import check_runtime_class
from sandbox.kubernetes.simulation.view import Key, controller_of, key_of
from sandbox.kubernetes.simulation.world import World, owner_reference

Obj = dict[str, Any]


_CROWD, _CROWD_S = 50, 0.5
_CREATE_RETRY_S = 5.0


class Reconciler(ABC):
    """Base of a controller for `kind` that makes objects of kind `child`."""

    kind: ClassVar[str]
    child: ClassVar[str]
    source: ClassVar[str]

    def __init__(self, world: World) -> None:
        self.world = world
        self._admission = PodAdmission(world.store, default=world.settings.pod_security)
        self._stop = world.store.subscribe(self._on_event, kinds=(self.kind, self.child))

    def stop(self) -> None:
        """Listen no longer."""
        self._stop()

    def _on_event(self, event: Event) -> None:
        if event.obj["kind"] == self.kind:
            if event.type != "DELETED":
                self.wake(key_of(event.obj))
            return
        owner = controller_of(event.obj)
        if owner is not None and owner["kind"] == self.kind:
            key = (self.kind, event.obj["metadata"].get("namespace"), owner["name"])
            if self.world.view.count(owner["uid"]) < _CROWD:
                self.wake(key)
            else:
                # Each look costs one pass over the children: with thousands of them, look once for many changes.
                self.world.driver.coalesce((type(self).__name__, key), _CROWD_S, lambda: self.wake(key))

    def wake(self, key: Key) -> None:
        """Look at an object as soon as possible."""
        self.world.driver.soon((type(self).__name__, key), lambda: self._look(key))

    def _look(self, key: Key) -> None:
        obj = self.world.store.find(*key)
        if obj is not None and not obj["metadata"].get("deletionTimestamp"):
            self.reconcile(obj)

    @abstractmethod
    def reconcile(self, obj: Obj) -> None:
        """Bring the world one step closer to the object's spec."""

    def children(self, obj: Obj) -> list[Obj]:
        """What the object controls and is not being deleted."""
        return [
            child for child in self.world.view.owned(obj["metadata"]["uid"], self.child)
            if not child["metadata"].get("deletionTimestamp")
        ]  # fmt: skip

    def make_pod(self, owner: Obj, name: str, template: Obj, *, labels: dict[str, str] | None = None) -> str | None:
        """Create a pod of a template.

        Returns the API server's refusal when there is one; writes FailedCreate then, and looks again a while later.
        """
        pod = self._pod(owner, name, template, labels or {})
        try:
            check_runtime_class(self.world, pod)
            for admit in self.world.admission:
                admit(pod)
            self._admission.check_pod(pod)
        except Forbidden as refused:
            self.world.events.warning(owner, "FailedCreate", f"Error creating: {refused}", source=self.source)
            self.world.after(_CREATE_RETRY_S, lambda: self.wake(key_of(owner)))
            return str(refused)
        self.world.store.create(pod)
        self.world.events.normal(owner, "SuccessfulCreate", f"Created pod: {name}", source=self.source)
        return None

    def _pod(self, owner: Obj, name: str, template: Obj, labels: dict[str, str]) -> Obj:
        meta = template.get("metadata") or {}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": owner["metadata"]["namespace"],
                "labels": {**(meta.get("labels") or {}), **labels},
                "annotations": dict(meta.get("annotations") or {}),
                "ownerReferences": [owner_reference(owner)],
            },
            "spec": with_defaults(template["spec"]),
        }

    def remove_pod(self, owner: Obj, pod: Obj) -> None:
        """Delete a pod gracefully."""
        meta = pod["metadata"]
        self.world.store.delete("Pod", meta["namespace"], meta["name"])
        self.world.events.normal(owner, "SuccessfulDelete", f"Deleted pod: {meta['name']}", source=self.source)

    def write_status(self, obj: Obj, status: Obj) -> None:
        """Replace the status fields given; the store drops a write that changes nothing."""

        def merge(current: Obj) -> None:
            current["status"] = {**(current.get("status") or {}), **status}

        self.world.change(obj, merge, subresource="status")


def with_defaults(spec: Obj) -> Obj:
    """The few defaults of a pod spec that others read."""
    defaults = {
        "restartPolicy": "Always", "schedulerName": "default-scheduler", "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst", "securityContext": {}, "serviceAccountName": "default",
        "enableServiceLinks": True,
    }  # fmt: skip
    return {**defaults, **spec}
