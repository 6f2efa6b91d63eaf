"""Why Helm did not do it: its words as errors of the house."""

import re
from collections.abc import Sequence
from typing import Final

from budcluster.kube.helm_command import DEBUG


class HelmError(Exception):
    """Helm did not do it. `sentence` says why without values, arguments or environment."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


class ReleaseNotFound(HelmError):
    """There is no release of this name in the namespace."""


class ChartUnavailable(HelmError):
    """The chart, or this version of it, cannot be had: a wrong name, or no way to its repository."""


class RenderFailed(HelmError):
    """The chart does not render with these values, or its schema refuses them. Trying again is useless."""


class OwnedByAnother(HelmError):
    """An object that the chart would make exists and belongs to somebody else. It was not touched."""


class ReleaseBusy(HelmError):
    """Another Helm works on this release, or was killed while it did."""


class ObjectRefused(HelmError):
    """The API server does not accept an object: invalid, forbidden, or of a kind it does not know."""


class PermissionMissing(ObjectRefused):
    """The cluster does not permit it to our account. The sentence says what: a verb and a kind."""

    next_step = (
        "Permit it to the service's account in budcluster-system, or onboard the cluster again with the kubeconfig of "
        "an administrator; then retry the operation."
    )


class CredentialRefused(ObjectRefused):
    """The cluster does not accept the credential any more."""


class ClusterUnreachable(HelmError):
    """Helm could not reach the API server."""


class NotReadyInTime(HelmError):
    """The objects were made but did not become ready within the time."""


_NOT_DELETED: Final = re.compile(rf'{DEBUG} msg="uninstall: Failed to delete release" error="\[(.*)\]"')
_PATTERNS: Final[tuple[tuple[str, type[HelmError], str], ...]] = (
    ("release: not found", ReleaseNotFound, "there is no such release."),
    ("another operation", ReleaseBusy, "another Helm operation is in progress on this release, or was cut off."),
    # Another Helm has made it since it was looked for.
    ("cannot re-use a name", ReleaseBusy, "another Helm has made this release meanwhile, or was cut off."),
    # Helm calls it "cluster unreachable", too.
    ("provide credentials", CredentialRefused, "the cluster does not accept the stored credential any more."),
    ("cluster unreachable", ClusterUnreachable, "Helm cannot reach the cluster."),
    ("connection refused", ClusterUnreachable, "Helm cannot reach the cluster."),
    ("i/o timeout", ClusterUnreachable, "Helm cannot reach the cluster."),
    ("no such host", ClusterUnreachable, "Helm cannot resolve the name of the cluster or of the chart's repository."),
    ("etcdserver", ClusterUnreachable, "the cluster's store did not answer."),
    ("unauthorized", CredentialRefused, "the cluster does not accept the stored credential any more."),
    ("invalid ownership metadata", OwnedByAnother, "an object of the chart exists and belongs to somebody else."),
    ("that already exists", OwnedByAnother, "an object of the chart exists and belongs to somebody else."),
    ("conflict occurred while applying", OwnedByAnother, "somebody else manages a field that the chart sets."),
    ("no matches for kind", ObjectRefused, "the cluster does not know a kind of object that the chart makes."),
    ("don't meet the specifications of the schema", RenderFailed, "the chart's schema refuses the values."),
    ("execution error", RenderFailed, "the chart does not render with these values."),
    ("error converting yaml", RenderFailed, "the chart does not render with these values."),
    ("incompatible with kubernetes", RenderFailed, "the chart does not support this Kubernetes version."),
    ("failed to fetch", ChartUnavailable, "the chart could not be fetched."),
    ("chart not found", ChartUnavailable, "there is no such chart."),
    ("not found in", ChartUnavailable, "there is no such chart or version in its repository."),
    ("path not found", ChartUnavailable, "there is no such chart."),
    ("context deadline exceeded", NotReadyInTime, "the release was not ready in time."),
    ("timed out waiting", NotReadyInTime, "the release was not ready in time."),
    ("is forbidden: user", PermissionMissing, "the service's account may not do this in the cluster."),
    ("is forbidden", ObjectRefused, "the cluster forbids an object of the chart."),
    ("is invalid", ObjectRefused, "the cluster refuses an object of the chart as invalid."),
)  # fmt: skip


def classify(tail: Sequence[str]) -> HelmError:
    """Helm's last lines as one of our errors. The first pattern that occurs wins: specific ones stand first."""
    told = _reasons(tail)
    lowered = "\n".join(told).lower()
    said = next((line for line in reversed(told) if line.lower().startswith("error")), told[-1] if told else "")
    for pattern, kind, sentence in _PATTERNS:
        if pattern in lowered:
            return kind(f"{sentence} Helm says: {said[:500]}" if said else sentence)
    return HelmError(f"Helm failed: {said[:500]}" if said else "Helm failed without saying why.")


def _reasons(tail: Sequence[str]) -> list[str]:
    """Helm's lines without those of `--debug`, but for the one that alone says why a release cannot be deleted."""
    told = [line for line in tail if not line.startswith(DEBUG)]
    if hidden := [found[1] for line in tail if (found := _NOT_DELETED.fullmatch(line))]:
        told.append(f"Error: {hidden[-1]}".replace('\\"', '"'))
    return told
