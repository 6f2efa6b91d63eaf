"""CustomResourceDefinitions: established at once, served at once, and gone with their objects."""

from typing import Any

from sandbox.kubernetes.clock import timestamp
from sandbox.kubernetes.history import Event
from sandbox.kubernetes.resources import Kind
from sandbox.kubernetes.store import Store

Obj = dict[str, Any]


def follow_definitions(store: Store) -> None:
    """Serve what the definitions in the store define, from now on."""

    def on_change(event: Event) -> None:
        if event.type == "DELETED":
            _withdraw(store, event.obj)
        else:
            _serve(store, event.obj)

    store.subscribe(on_change, kinds=["CustomResourceDefinition"])


def kind_of_definition(definition: Obj) -> Kind:
    """The kind that a definition defines; the stored version first, then the others that are served."""
    spec, names = definition["spec"], definition["spec"]["names"]
    versions = [version for version in spec["versions"] if version.get("served", True)]
    versions.sort(key=lambda version: not version.get("storage"))
    subresources = {name for version in versions for name in version.get("subresources") or ()}
    return Kind(
        kind=names["kind"],
        group=spec["group"],
        versions=tuple(version["name"] for version in versions),
        plural=names["plural"],
        namespaced=spec.get("scope") == "Namespaced",
        short_names=tuple(names.get("shortNames") or ()),
        subresources=tuple(sorted(subresources)),
        categories=tuple(names.get("categories") or ()),
        is_custom=True,
        definition=definition,
        named_singular=names.get("singular") or names["kind"].lower(),
    )


def schema_of(kind: Kind) -> Obj | None:
    """The openAPIV3Schema of a custom resource's stored version."""
    for version in ((kind.definition or {}).get("spec") or {}).get("versions") or ():
        if version["name"] == kind.version:
            schema: Obj | None = (version.get("schema") or {}).get("openAPIV3Schema")
            return schema
    return None


def _serve(store: Store, definition: Obj) -> None:
    if "deletionTimestamp" in definition["metadata"]:
        return
    store.resources.register(kind_of_definition(definition))
    if (definition.get("status") or {}).get("conditions"):
        return
    now = timestamp(store.clock.now())
    conditions = [
        {"type": "NamesAccepted", "reason": "NoConflicts", "message": "no conflicts found"},
        {"type": "Established", "reason": "InitialNamesAccepted", "message": "the initial names have been accepted"},
    ]
    status = {
        "conditions": [{**each, "status": "True", "lastTransitionTime": now} for each in conditions],
        "acceptedNames": definition["spec"]["names"],
        "storedVersions": [v["name"] for v in definition["spec"]["versions"] if v.get("storage")],
    }
    name = definition["metadata"]["name"]
    store.update("CustomResourceDefinition", None, name, lambda obj: obj.update(status=status), subresource="status")


def _withdraw(store: Store, definition: Obj) -> None:
    kind = kind_of_definition(definition)
    if store.resources.find(kind.group, kind.kind) is None:
        return
    for obj in store.list(kind):
        place = obj["metadata"].get("namespace"), obj["metadata"]["name"]
        store.update(kind, *place, lambda each: each["metadata"].pop("finalizers", None))
        store.delete(kind, *place)
    store.resources.forget(kind)
