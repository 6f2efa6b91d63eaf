"""The life of an add-on's pods, reduced to two moments: one is ready on a node, one is gone."""

from __future__ import annotations

from typing import Any

from sandbox.kubernetes.history import Event
from sandbox.kubernetes.simulation.view import Key, is_finished, is_ready, key_of
from sandbox.kubernetes.simulation.world import World

Obj = dict[str, Any]


class Agent:
    """Subclasses say which pods are theirs and what follows. `ready` and `gone` alternate for each pod."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._live: dict[Key, str] = {}
        self._stop = world.store.subscribe(self._on_event, kinds=("Pod",))

    def stop(self) -> None:
        """Listen no longer."""
        self._stop()

    def is_mine(self, pod: Obj) -> bool:
        """Whether the pod belongs to this add-on's role."""
        raise NotImplementedError

    def ready(self, pod: Obj) -> None:
        """A pod of this role became ready."""

    def gone(self, pod: Obj) -> None:
        """A pod that was ready is no more (or not ready any more)."""

    def finished(self, pod: Obj) -> None:
        """A pod of this role ran to its end successfully."""

    @property
    def is_up(self) -> bool:
        """Whether any pod of this role is ready now."""
        return bool(self._live)

    def _on_event(self, event: Event) -> None:
        pod = event.obj
        if not self.is_mine(pod):
            return
        key, uid = key_of(pod), pod["metadata"]["uid"]
        alive = event.type != "DELETED" and is_ready(pod)
        if alive and self._live.get(key) != uid:
            self._live[key] = uid
            self.world.driver.soon((type(self).__name__, "ready", uid), lambda: self.ready(pod))
        elif not alive and self._live.get(key) == uid:
            del self._live[key]
            self.world.driver.soon((type(self).__name__, "gone", uid), lambda: self.gone(pod))
        ended = event.type != "DELETED" and is_finished(pod) and (event.old is None or not is_finished(event.old))
        if ended and pod["status"]["phase"] == "Succeeded":
            self.world.driver.soon((type(self).__name__, "finished", uid), lambda: self.finished(pod))

    def still_live(self, pod: Obj) -> bool:
        """Whether that very pod is ready now; for work that was planned some time ago."""
        return self._live.get(key_of(pod)) == str(pod["metadata"]["uid"])


def images_of(pod: Obj) -> str:
    """All image references of a pod in one text, for recognition."""
    return " ".join(container["image"] for container in pod["spec"]["containers"])


def words_of(pod: Obj) -> list[str]:
    """Commands and arguments of all containers."""
    return [
        word
        for container in pod["spec"]["containers"]
        for word in [*(container.get("command") or []), *(container.get("args") or [])]
    ]


def label_node(world: World, node: str, labels: dict[str, str | None]) -> None:
    """Set labels of a node; None removes one."""

    def write(current: Obj) -> None:
        present = current["metadata"].setdefault("labels", {})
        for key, value in labels.items():
            if value is None:
                present.pop(key, None)
            else:
                present[key] = value

    world.store.update("Node", None, node, write)


def annotate_node(world: World, node: str, annotations: dict[str, str | None]) -> None:
    """Set annotations of a node; None removes one."""

    def write(current: Obj) -> None:
        present = current["metadata"].setdefault("annotations", {})
        for key, value in annotations.items():
            if value is None:
                present.pop(key, None)
            else:
                present[key] = value

    world.store.update("Node", None, node, write)


def offer(world: World, node: str, resource: str, count: int | None) -> None:
    """Set capacity and allocatable of an extended resource, as kubelet does for a device plugin.

    A plugin that goes away leaves the resource with 0; None removes it altogether.
    """

    def write(current: Obj) -> None:
        for part in ("capacity", "allocatable"):
            if count is None:
                current["status"][part].pop(resource, None)
            else:
                current["status"][part][resource] = str(count)

    world.store.update("Node", None, node, write, subresource="status")
