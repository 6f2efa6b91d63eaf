"""Node Feature Discovery v0.19: workers report NodeFeatures, the master makes labels of them, prune removes those."""

from __future__ import annotations

from typing import Any

import yaml

from sandbox.kubernetes.history import Event
from sandbox.kubernetes.simulation.addons.agents import Agent, annotate_node, images_of, label_node, words_of
from sandbox.kubernetes.simulation.addons.features import DEFAULT_CLASSES, FEATURE_PREFIX, features, labels_of
from sandbox.kubernetes.simulation.view import controller_of
from sandbox.kubernetes.simulation.world import World, owner_reference

Obj = dict[str, Any]

KIND = "NodeFeature.nfd.k8s-sigs.io"
ANNOTATION = "nfd.node.kubernetes.io/feature-labels"
_VERSION = "v0.19.0"


def _is_nfd(pod: Obj, role: str) -> bool:
    labels = pod["metadata"].get("labels") or {}
    if (
        "node-feature-discovery" not in images_of(pod)
        and labels.get("app.kubernetes.io/name") != "node-feature-discovery"
    ):
        return False
    return labels.get("role") == role or any(word.endswith(f"nfd-{role}") for word in words_of(pod))


class NfdWorkers(Agent):
    """Each ready worker describes its node some seconds later. `local` adds what other agents drop into features.d."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._places: dict[str, Obj] = {}
        self.local: dict[str, dict[str, str]] = {}

    def is_mine(self, pod: Obj) -> bool:
        """A worker's pod."""
        return _is_nfd(pod, "worker")

    def ready(self, pod: Obj) -> None:
        """Describe the node after a first round of discovery."""
        self.world.after(self.world.settings.agent_s, lambda: self._describe(pod))

    def gone(self, pod: Obj) -> None:
        """Nobody describes the node any more."""
        self._places.pop(pod["spec"]["nodeName"], None)

    def drop(self, node: str, labels: dict[str, str] | None) -> None:
        """A file in features.d appears, changes, or (None) goes: labels follow where a worker runs."""
        if labels is None:
            self.local.pop(node, None)
        else:
            self.local[node] = labels
        self.refresh(node)

    def refresh(self, node: str) -> None:
        """The PCI bus of a machine changed."""
        pod = self._places.get(node)
        if pod is not None:
            self.world.after(self.world.settings.agent_s, lambda: self._describe(pod))

    def _describe(self, pod: Obj) -> None:
        node = pod["spec"]["nodeName"]
        machine = self.world.machines.get(node)
        if machine is None or not self.still_live(pod) or machine.down:
            return
        self._places[node] = pod
        namespace, config = pod["metadata"]["namespace"], self._config(pod)
        pci = (config.get("sources") or {}).get("pci") or {}
        classes = tuple(str(one) for one in pci.get("deviceClassWhitelist") or DEFAULT_CLASSES)
        fields = tuple(pci.get("deviceLabelFields") or ("class", "vendor"))
        labels = labels_of(machine, classes=classes, fields=fields)
        wanted: Obj = {
            "apiVersion": "nfd.k8s-sigs.io/v1alpha1",
            "kind": "NodeFeature",
            "metadata": {
                "name": node,
                "namespace": namespace,
                "labels": {"nfd.node.kubernetes.io/node-name": node},
                "annotations": {
                    "nfd.node.kubernetes.io/worker.version": _VERSION,
                    "nfd.node.kubernetes.io/worker.pod.uid": pod["metadata"]["uid"],
                },
                "ownerReferences": self._owners(pod),
            },
            "spec": {"features": features(machine), "labels": {**labels, **self.local.get(node, {})}},
        }
        found = self.world.store.find(KIND, namespace, node) if self._is_served() else None
        if found is None:
            if self._is_served():
                self.world.store.create(wanted)
            return

        def replace(current: Obj) -> None:
            current["spec"] = wanted["spec"]
            for part in ("labels", "annotations", "ownerReferences"):
                current["metadata"][part] = wanted["metadata"][part]

        self.world.store.update(KIND, namespace, node, replace)

    def _is_served(self) -> bool:
        return self.world.store.find("CustomResourceDefinition", None, "nodefeatures.nfd.k8s-sigs.io") is not None

    def _owners(self, pod: Obj) -> list[Obj]:
        reference = {**owner_reference(pod), "controller": False}
        daemonset = controller_of(pod)
        return [reference, {**daemonset, "controller": False}] if daemonset else [reference]

    def _config(self, pod: Obj) -> Obj:
        for volume in pod["spec"].get("volumes") or []:
            name = (volume.get("configMap") or {}).get("name")
            found = self.world.store.find("ConfigMap", pod["metadata"]["namespace"], name) if name else None
            text = ((found or {}).get("data") or {}).get("nfd-worker.conf")
            if text:
                loaded = yaml.safe_load(text)
                return loaded if isinstance(loaded, dict) else {}
        return {}


class NfdMaster(Agent):
    """While a master is up, every NodeFeature becomes labels and the annotation that lists them."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._stop_features = world.store.subscribe(self._on_feature, kinds=(KIND,))

    def stop(self) -> None:
        """Listen no longer."""
        super().stop()
        self._stop_features()

    def is_mine(self, pod: Obj) -> bool:
        """The master's pod."""
        return _is_nfd(pod, "master") and "-prune" not in words_of(pod)

    def ready(self, pod: Obj) -> None:  # noqa: ARG002 -- any master labels all nodes
        """Label every node that has been described."""
        if self.world.store.find("CustomResourceDefinition", None, "nodefeatures.nfd.k8s-sigs.io") is None:
            return
        for feature in self.world.store.list(KIND):
            self._plan(feature["metadata"]["name"], feature)

    def _on_feature(self, event: Event) -> None:
        self._plan(event.obj["metadata"]["name"], None if event.type == "DELETED" else event.obj)

    def _plan(self, node: str, feature: Obj | None) -> None:
        self.world.driver.coalesce(("nfd-master", node), 1.0, lambda: self._label(node, feature))

    def _label(self, node: str, feature: Obj | None) -> None:
        if not self.is_up or node not in self.world.view.nodes:
            return
        labels: dict[str, str] = dict(feature["spec"].get("labels") or {}) if feature is not None else {}
        listed = (self.world.view.nodes[node]["metadata"].get("annotations") or {}).get(ANNOTATION, "")
        former = {_full(name) for name in listed.split(",") if name}
        changes: dict[str, str | None] = dict.fromkeys(former - set(labels))
        changes.update(labels)
        label_node(self.world, node, changes)
        names = ",".join(sorted(name.removeprefix(FEATURE_PREFIX) for name in labels))
        annotate_node(self.world, node, {ANNOTATION: names if feature is not None else None})


class NfdPrune(Agent):
    """The post-delete Job of the chart: everything NFD wrote on nodes goes."""

    def is_mine(self, pod: Obj) -> bool:
        """A pod that runs `nfd-master -prune`."""
        return "node-feature-discovery" in images_of(pod) and any(
            word in ("-prune", "--prune") for word in words_of(pod)
        )

    def finished(self, pod: Obj) -> None:  # noqa: ARG002 -- any such Job cleans all nodes
        """Remove labels and annotations."""
        for name, node in list(self.world.view.nodes.items()):
            listed = (node["metadata"].get("annotations") or {}).get(ANNOTATION, "")
            labels = {_full(one) for one in listed.split(",") if one}
            labels |= {key for key in node["metadata"].get("labels") or {} if key.startswith(FEATURE_PREFIX)}
            label_node(self.world, name, dict.fromkeys(labels))
            annotate_node(self.world, name, {ANNOTATION: None})


def _full(name: str) -> str:
    return name if "/" in name else f"{FEATURE_PREFIX}{name}"
