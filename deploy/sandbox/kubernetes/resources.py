"""The kinds the server serves: names, scope, verbs, subresources, and the kinds that CRDs add at run time."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
READ_VERBS = ("get", "list")


@dataclass(frozen=True, slots=True)
class Kind:
    """One stored resource. `versions` lists what is served in `group`, the first one preferred and stored."""

    kind: str
    group: str
    versions: tuple[str, ...]
    plural: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    is_custom: bool = False
    definition: dict[str, Any] | None = field(default=None, compare=False)
    named_singular: str = ""

    @property
    def key(self) -> str:
        """What Store methods call this kind: `Pod`, or `Widget.example.com` for a custom resource."""
        return f"{self.kind}.{self.group}" if self.is_custom else self.kind

    @property
    def version(self) -> str:
        """The version that objects are stored in."""
        return self.versions[0]

    @property
    def api_version(self) -> str:
        """As stored objects have it."""
        return group_version(self.group, self.version)

    @property
    def singular(self) -> str:
        """The name for one, as discovery tells it."""
        return self.named_singular or self.kind.lower()

    @property
    def has_status(self) -> bool:
        """Whether the status is written apart from the rest."""
        return "status" in self.subresources


def group_version(group: str, version: str) -> str:
    """`apps/v1`, or the bare version in the core group."""
    return f"{group}/{version}" if group else version


def split_api_version(api_version: str) -> tuple[str, str]:
    """Group and version; the core group is empty."""
    group, _, version = api_version.rpartition("/")
    return group, version


# version kind plural scope short-names categories verbs subresources; a dash is nothing.
_TABLE = """
[core]
v1     Namespace                namespaces                 cluster    ns      -   all    status,finalize
v1     Node                     nodes                      cluster    no      -   all    status,proxy
v1     PersistentVolume         persistentvolumes          cluster    pv      -   all    status
v1 Pod pods namespaced po all all status,log,exec,attach,portforward,eviction,binding,ephemeralcontainers,resize,proxy
v1     Service                  services                   namespaced svc     all all    status,proxy
v1     ReplicationController    replicationcontrollers     namespaced rc      all all    status,scale
v1     ServiceAccount           serviceaccounts            namespaced sa      -   all    token
v1     ConfigMap                configmaps                 namespaced cm      -   all    -
v1     Secret                   secrets                    namespaced -       -   all    -
v1     Endpoints                endpoints                  namespaced ep      -   all    -
v1     Event                    events                     namespaced ev      -   all    -
v1     PersistentVolumeClaim    persistentvolumeclaims     namespaced pvc     -   all    status
v1     LimitRange               limitranges                namespaced limits  -   all    -
v1     ResourceQuota            resourcequotas             namespaced quota   -   all    status
v1     PodTemplate              podtemplates               namespaced -       -   all    -
v1     ComponentStatus          componentstatuses          cluster    cs      -   read   -
[apps]
v1     Deployment               deployments                namespaced deploy  all all    status,scale
v1     ReplicaSet               replicasets                namespaced rs      all all    status,scale
v1     StatefulSet              statefulsets               namespaced sts     all all    status,scale
v1     DaemonSet                daemonsets                 namespaced ds      all all    status
v1     ControllerRevision       controllerrevisions        namespaced -       -   all    -
[batch]
v1     Job                      jobs                       namespaced -       all all    status
v1     CronJob                  cronjobs                   namespaced cj      all all    status
[autoscaling]
v2,v1  HorizontalPodAutoscaler  horizontalpodautoscalers   namespaced hpa     all all    status
[policy]
v1     PodDisruptionBudget      poddisruptionbudgets       namespaced pdb     -   all    status
[networking.k8s.io]
v1     Ingress                  ingresses                  namespaced ing     -   all    status
v1     IngressClass             ingressclasses             cluster    -       -   all    -
v1     NetworkPolicy            networkpolicies            namespaced netpol  -   all    -
[rbac.authorization.k8s.io]
v1     Role                     roles                      namespaced -       -   all    -
v1     RoleBinding              rolebindings               namespaced -       -   all    -
v1     ClusterRole              clusterroles               cluster    -       -   all    -
v1     ClusterRoleBinding       clusterrolebindings        cluster    -       -   all    -
[storage.k8s.io]
v1     StorageClass             storageclasses             cluster    sc      -   all    -
v1     CSIDriver                csidrivers                 cluster    -       -   all    -
v1     CSINode                  csinodes                   cluster    -       -   all    -
v1     CSIStorageCapacity       csistoragecapacities       namespaced -       -   all    -
v1     VolumeAttachment         volumeattachments          cluster    -       -   all    status
[scheduling.k8s.io]
v1     PriorityClass            priorityclasses            cluster    pc      -   all    -
[coordination.k8s.io]
v1     Lease                    leases                     namespaced -       -   all    -
[discovery.k8s.io]
v1     EndpointSlice            endpointslices             namespaced -       -   all    -
[node.k8s.io]
v1     RuntimeClass             runtimeclasses             cluster    -       -   all    -
[apiextensions.k8s.io]
v1     CustomResourceDefinition customresourcedefinitions  cluster    crd,crds -   all    status
[apiregistration.k8s.io]
v1     APIService               apiservices                cluster    -       -   all    status
[admissionregistration.k8s.io]
v1     MutatingWebhookConfiguration mutatingwebhookconfigurations cluster    -       -   all    -
v1     ValidatingWebhookConfiguration validatingwebhookconfigurations cluster    -       -   all    -
v1     ValidatingAdmissionPolicyBinding validatingadmissionpolicybindings cluster    -       -   all    -
v1     ValidatingAdmissionPolicy validatingadmissionpolicies cluster    -       -   all    status
[certificates.k8s.io]
v1     CertificateSigningRequest certificatesigningrequests cluster    csr     -   all    status,approval
[authorization.k8s.io]
v1     SelfSubjectAccessReview  selfsubjectaccessreviews   cluster    -       -   create -
v1     SelfSubjectRulesReview   selfsubjectrulesreviews    cluster    -       -   create -
v1     SubjectAccessReview      subjectaccessreviews       cluster    -       -   create -
v1     LocalSubjectAccessReview localsubjectaccessreviews  namespaced -       -   create -
[authentication.k8s.io]
v1     TokenReview              tokenreviews               cluster    -       -   create -
v1     SelfSubjectReview        selfsubjectreviews         cluster    -       -   create -
[metrics.k8s.io]
v1beta1 NodeMetrics              nodes                      cluster    -       -   read   -
v1beta1 PodMetrics               pods                       namespaced -       -   read   -
"""
_VERBS = {"all": ALL_VERBS, "read": READ_VERBS, "create": ("create",)}


def _kinds() -> Iterator[Kind]:
    """The well-known kinds, out of the table."""
    group = ""
    for line in _TABLE.strip().splitlines():
        if line.startswith("["):
            group = line.strip("[]").replace("core", "")
            continue
        versions, kind, plural, scope, short, categories, verbs, subresources = line.split()
        yield Kind(
            kind=kind,
            group=group,
            versions=_words(versions),
            plural=plural,
            namespaced=scope == "namespaced",
            short_names=_words(short),
            subresources=_words(subresources),
            categories=_words(categories),
            verbs=_VERBS[verbs],
        )


def _words(text: str) -> tuple[str, ...]:
    return () if text == "-" else tuple(text.split(","))


# Events are one storage under two groups; every other kind lives in one group.
EVENTS_GROUP = "events.k8s.io"


class Resources:
    """Looks kinds up by their key, by kind and group, and by the plural of a URL."""

    def __init__(self, kinds: Iterable[Kind] | None = None) -> None:
        self._by_key: dict[str, Kind] = {}
        self._by_group_kind: dict[tuple[str, str], Kind] = {}
        self._by_path: dict[tuple[str, str, str], Kind] = {}
        for kind in kinds or _kinds():
            self.register(kind)

    def register(self, kind: Kind) -> None:
        """Serve this kind from now on, instead of any earlier one with the same key."""
        if (old := self._by_key.get(kind.key)) is not None:
            self.forget(old)
        self._by_key[kind.key] = kind
        self._by_group_kind[kind.group, kind.kind] = kind
        for version in kind.versions:
            self._by_path[kind.group, version, kind.plural] = kind
        if kind.kind == "Event" and not kind.group:
            self._by_group_kind[EVENTS_GROUP, "Event"] = kind
            self._by_path[EVENTS_GROUP, "v1", "events"] = kind

    def forget(self, kind: Kind) -> None:
        """Serve this kind no more."""
        self._by_key.pop(kind.key, None)
        self._by_group_kind.pop((kind.group, kind.kind), None)
        for version in kind.versions:
            self._by_path.pop((kind.group, version, kind.plural), None)

    def __iter__(self) -> Iterator[Kind]:
        return iter(list(self._by_key.values()))

    def get(self, kind: "Kind | str") -> Kind:
        """The kind with this key. Raises KeyError when it is not served."""
        return kind if isinstance(kind, Kind) else self._by_key[kind]

    def find(self, group: str, kind: str) -> Kind | None:
        """The kind of this name in a group, or None."""
        return self._by_group_kind.get((group, kind))

    def at_path(self, group: str, version: str, plural: str) -> Kind | None:
        """The kind that a URL addresses, or None."""
        return self._by_path.get((group, version, plural))

    def of_object(self, obj: dict[str, Any]) -> Kind | None:
        """The kind of an object, or None when it is not served."""
        group, _ = split_api_version(obj.get("apiVersion", ""))
        return self.find(group, obj.get("kind", ""))

    def served(self) -> dict[str, dict[str, list[Kind]]]:
        """Group -> version -> kinds, in the order of registration."""
        tree: dict[str, dict[str, list[Kind]]] = {}
        for (group, version, _), kind in self._by_path.items():
            tree.setdefault(group, {}).setdefault(version, []).append(kind)
        return tree
