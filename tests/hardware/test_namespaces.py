"""What in an add-on's namespace is nobody's, and what keeps it."""

from typing import Any

import pytest

from budcluster.hardware.namespaces import _is_residue
from budcluster.kube.resources import CLAIMS, SECRETS, Resource

MAPS, ACCOUNTS = Resource("", "v1", "configmaps"), Resource("", "v1", "serviceaccounts")
OF_RELEASE = {"app.kubernetes.io/instance": "kps"}


@pytest.mark.parametrize(
    ("kind", "name", "labels", "type_of", "is_it"),
    [
        (MAPS, "kube-root-ca.crt", {}, None, True),
        (ACCOUNTS, "default", {}, None, True),
        (SECRETS, "kps-operator", OF_RELEASE, None, True),
        (SECRETS, "sh.helm.release.v1.kps.v1", {"name": "kps"}, "helm.sh/release.v1", True),
        (SECRETS, "sh.helm.release.v1.theirs.v1", {"name": "theirs"}, "helm.sh/release.v1", False),
        (SECRETS, "kps-our-password", {}, None, False),
        (MAPS, "kps-dashboards", {}, None, False),
        (CLAIMS, "kps-data", OF_RELEASE, None, False),
    ],
)
def test_only_what_the_release_or_the_cluster_itself_made_is_residue(
    kind: Resource, name: str, labels: dict[str, str], type_of: str | None, is_it: bool
) -> None:
    item: dict[str, Any] = {"metadata": {"name": name, "labels": labels}, "type": type_of}
    assert _is_residue(kind, item, release="kps") is is_it
