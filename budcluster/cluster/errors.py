"""Facts about clusters that callers see as problems."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from budcluster.cluster.models import ClusterStatus
from budcluster.kit.errors import Conflict, Invalid, NotFound


class ClusterNotFound(NotFound):
    """There is no cluster with this id. It never existed, or it was deleted; `GET /clusters` lists what there is."""

    title = "Cluster not found"

    def __init__(self, cluster_id: UUID) -> None:
        super().__init__("There is no cluster with this id; GET /clusters lists what there is.", cluster_id=cluster_id)


class ClusterNameTaken(Conflict):
    """Another cluster has this name; `cluster_id` is its id. Choose another name, or use that cluster."""

    title = "Cluster name is taken"

    def __init__(self, name: str, cluster_id: UUID) -> None:
        super().__init__(f"A cluster named {name} exists; choose another name, or use that one.", cluster_id=cluster_id)


class ProvisioningNotAvailable(Invalid):
    """New clusters cannot be made in this version, existing ones can be registered: send `"origin": "ADOPTED"`."""

    title = "Provisioning is not available"

    def __init__(self) -> None:
        super().__init__(
            'Making EKS and AKS clusters is not available in this version; register an existing one with "origin": '
            '"ADOPTED".',
            errors=[
                {"in": "body", "pointer": "/origin", "code": "unavailable", "detail": "only ADOPTED is available here"}
            ],
        )


class IllegalClusterMove(Conflict):
    """The cluster's present status does not allow this. Wait for the running operation, or look at its error."""

    title = "The cluster's status does not allow this"

    def __init__(self, present: ClusterStatus, wanted: ClusterStatus, allowed: list[ClusterStatus]) -> None:
        super().__init__(
            f"A cluster that is {present} cannot become {wanted}; wait for its operation to end, then look again.",
            status_now=present,
            allowed_statuses=allowed,
        )


class ClusterKnownAlready(Conflict):
    """The cluster behind this kubeconfig is onboarded already; `cluster_id` is its id. Use that one, or delete it."""

    title = "Cluster is known already"

    def __init__(self, cluster_id: UUID) -> None:
        super().__init__(
            f"This cluster is known already as {cluster_id}; use that one, or delete it first.", cluster_id=cluster_id
        )


class AnotherCluster(Conflict):
    """The kubeconfig leads to another cluster than the one onboarded under this name. Register that one anew."""

    title = "Kubeconfig of another cluster"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"This kubeconfig leads to another cluster than the one that was onboarded as {name}; send one of the same "
            "cluster. One that was built anew is another one: register it under a name of its own, or delete the "
            "former here first."
        )


class ClusterManagedElsewhere(Conflict):
    """Another budcluster manages this cluster; `claimed_as` is its entry there. Delete it there, or take it over."""

    title = "Cluster is managed by another budcluster"

    def __init__(self, claimed_as: str) -> None:
        super().__init__(
            f"Another budcluster manages this cluster, as {claimed_as}; delete it there. If that service or its "
            'database is lost, send "take_over": true (`--take-over`): what it installed is then ours, and its access '
            "ends.",
            claimed_as=claimed_as,
        )


class ClusterNotReady(Conflict):
    """Only a READY cluster can do this. Wait until its operation has ended, or onboard it again if it failed."""

    title = "Cluster is not ready"

    def __init__(self, name: str, status: ClusterStatus) -> None:
        super().__init__(
            f"The cluster {name} is {status}; wait for its operation, or onboard it again.", status_now=status
        )


class ClusterHasDeployments(Conflict):
    """Models are served on this cluster; `deployments` lists them. Delete those first."""

    title = "Cluster still serves deployments"

    def __init__(self, name: str, deployments: list[str]) -> None:
        super().__init__(
            f"The cluster {name} still serves {len(deployments)} deployments; delete them first.",
            deployments=deployments,
        )


class ClusterIsBeingDeleted(Conflict):
    """The cluster is being deleted. Wait for that to end; then the name is free again."""

    title = "Cluster is being deleted"

    def __init__(self, name: str) -> None:
        super().__init__(f"The cluster {name} is being deleted; wait for that to end.")


class KubeconfigNotAccepted(Invalid):
    """The kubeconfig cannot be used. `errors` lists each reason with its place in the kubeconfig and the way out."""

    title = "Kubeconfig cannot be used"

    def __init__(self, reasons: Sequence[tuple[str, str, str]], *, contexts: Sequence[str] = ()) -> None:
        """`reasons` are slug, pointer inside the kubeconfig, and sentence."""
        errors = [
            {"in": "body", "pointer": "/kubeconfig", "code": slug, "place": pointer, "detail": sentence}
            for slug, pointer, sentence in reasons
        ]
        extensions: dict[str, Any] = {"contexts": list(contexts)} if contexts else {}
        super().__init__(" ".join(sentence for _, _, sentence in reasons), errors=errors, **extensions)


class GpusInUse(Conflict):
    """Pods hold GPUs, and changing how GPUs are shared would break them; `pods` names up to 50. Stop them, or force."""

    title = "GPUs are in use"

    def __init__(self, pods: list[str]) -> None:
        super().__init__(
            f'{len(pods)} pods hold GPUs and would break; stop them first, or send "force": true.', pods=pods[:50]
        )


class AddonsNotManaged(Conflict):
    """Nothing may be installed here: `manage_addons` is false. Onboard the cluster again with true to change that."""

    title = "Add-ons are not managed"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"Nothing is installed in the cluster {name}, as was asked when it was onboarded; onboard it again with "
            '"manage_addons": true to change that.'
        )
