"""What in an add-on's namespace is nobody's, and what keeps it: content of others, and content that is not known."""

from collections.abc import Callable
from typing import Any

import pytest
import trustme

from budcluster.hardware.namespaces import _is_residue, remove_namespace
from budcluster.kube.client import ClusterClient
from budcluster.kube.errors import Unreachable
from budcluster.kube.ownership import OWNED
from budcluster.kube.resources import CLAIMS, SECRETS, Resource
from tests.kube.api_server import Answer, ApiServer, Asked, serving, status

MAPS, ACCOUNTS = Resource("", "v1", "configmaps"), Resource("", "v1", "serviceaccounts")
OF_RELEASE = {"app.kubernetes.io/instance": "kps"}
AUTHORITY = trustme.CA()
SPACE = "/api/v1/namespaces/monitoring"


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


class Cluster:
    """Answers as an API server with one namespace, with what each kind of its groups holds there."""

    def __init__(self) -> None:
        self.groups: list[dict[str, Any]] = []
        self.answers: dict[str, Callable[[Asked], Answer]] = {}
        self.is_there = True
        self.serve("", "v1", configmaps=["kube-root-ca.crt"], pods=[])

    def serve(self, group: str, *versions: str, **kinds: list[str]) -> None:
        """Serve these kinds in all of the versions; the first one is preferred."""
        served = [{"groupVersion": f"{group}/{version}", "version": version} for version in versions]
        if group:
            self.groups.append({"name": group, "versions": served, "preferredVersion": served[0]})
        for version in versions:
            listed = [{"name": kind, "namespaced": True, "verbs": ["list"]} for kind in kinds]
            self.answer(self.place(group, version), Answer({"resources": listed}))
            for kind, names in kinds.items():
                self.hold(group, version, kind, names)

    def hold(self, group: str, version: str, kind: str, names: list[str]) -> None:
        """What a kind has in the namespace."""
        items = [{"metadata": {"name": name}} for name in names]
        self.answer(f"{self.place(group, version)}/namespaces/monitoring/{kind}", Answer({"items": items}))

    def answer(self, path: str, *answers: Answer) -> None:
        """Give these in turn, the last one for ever."""
        left = list(answers)
        self.answers[path] = lambda _: left.pop(0) if len(left) > 1 else left[0]

    def place(self, group: str, version: str) -> str:
        return f"/apis/{group}/{version}" if group else f"/api/{version}"

    def __call__(self, asked: Asked) -> Answer:
        if asked.path in self.answers:
            return self.answers[asked.path](asked)
        if asked.path == "/apis":
            return Answer({"groups": self.groups})
        if asked.path == SPACE and self.is_there:
            self.is_there = asked.method != "DELETE"
            return Answer({"metadata": {"name": "monitoring", "labels": OWNED}})
        return status(404, "NotFound")


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


async def removal(cluster: Cluster, *, patience_s: float = 0) -> str | None:
    """Why the namespace is left."""
    server = ApiServer(AUTHORITY)
    server.answer = cluster
    async with serving(server), ClusterClient(server.config(), timeout_s=5) as client:
        return await remove_namespace(client, "monitoring", release="kps", patience_s=patience_s)


async def test_what_holds_nothing_of_others_is_removed(cluster: Cluster) -> None:
    cluster.serve("apps", "v1", deployments=[])
    assert await removal(cluster, patience_s=60) is None
    assert not cluster.is_there


async def test_content_of_others_is_named(cluster: Cluster) -> None:
    cluster.serve("apps", "v1", deployments=["theirs"])
    assert await removal(cluster) == "namespace monitoring, which holds deployments theirs"
    assert cluster.is_there


BROKEN = [
    ("/apis", status(503, "ServiceUnavailable")),
    ("/apis/apps/v1", status(503, "ServiceUnavailable")),
    ("/apis/apps/v1", status(404, "NotFound")),
    ("/apis/apps/v1/namespaces/monitoring/deployments", status(403, "Forbidden")),
    ("/apis/apps/v1/namespaces/monitoring/deployments", status(404, "NotFound")),
    ("/apis/apps/v1/namespaces/monitoring/deployments", status(410, "Expired")),
    ("/apis/apps/v1/namespaces/monitoring/deployments", status(429, "TooManyRequests")),
    ("/apis/apps/v1/namespaces/monitoring/deployments", status(500, "InternalError")),
    ("/apis/apps/v1/namespaces/monitoring/deployments", Answer(b"upstream connect error")),
    (SPACE, status(503, "ServiceUnavailable")),
    (SPACE, status(403, "Forbidden")),
]


@pytest.mark.parametrize(("path", "answer"), BROKEN, ids=[f"{path} {answer.status}" for path, answer in BROKEN])
async def test_a_namespace_whose_content_is_not_known_is_kept_and_said(
    cluster: Cluster, path: str, answer: Answer
) -> None:
    cluster.serve("apps", "v1", deployments=[])
    cluster.answer(path, answer)
    left = await removal(cluster)
    assert (left or "").startswith("namespace monitoring, whose content is not known (")
    assert cluster.is_there


async def test_content_that_an_account_may_see_is_named_whatever_it_may_not_see(cluster: Cluster) -> None:
    cluster.serve("apps", "v1", daemonsets=[], deployments=["theirs"])
    cluster.answer("/apis/apps/v1/namespaces/monitoring/daemonsets", status(403, "Forbidden"))
    assert await removal(cluster) == "namespace monitoring, which holds deployments theirs"


async def test_an_account_that_may_not_remove_the_empty_namespace_says_so(cluster: Cluster) -> None:
    space = Answer({"metadata": {"name": "monitoring", "labels": OWNED}})
    cluster.answers[SPACE] = lambda asked: status(403, "Forbidden") if asked.method == "DELETE" else space
    left = await removal(cluster)
    assert left == "namespace monitoring, which is empty, but the credential may not delete namespaces"


async def test_kinds_that_only_another_version_than_the_preferred_one_has_count_and_each_kind_once(
    cluster: Cluster,
) -> None:
    cluster.serve("networking.istio.io", "v1", "v1beta1", gateways=[])
    both = [{"name": kind, "namespaced": True, "verbs": ["list"]} for kind in ("gateways", "envoyfilters")]
    cluster.answer("/apis/networking.istio.io/v1beta1", Answer({"resources": both}))
    cluster.answer("/apis/networking.istio.io/v1beta1/namespaces/monitoring/gateways", status(403, "Forbidden"))
    cluster.hold("networking.istio.io", "v1beta1", "envoyfilters", ["theirs"])
    assert await removal(cluster) == "namespace monitoring, which holds envoyfilters theirs"


async def test_hundreds_of_objects_are_read_to_the_last_page(cluster: Cluster) -> None:
    ours = [{"metadata": {"name": f"kps-{number}", "labels": OF_RELEASE}} for number in range(500)]
    pages = {
        "": {"items": ours, "metadata": {"continue": "second"}},
        "second": {"items": [*ours[:100], {"metadata": {"name": "theirs"}}]},
    }
    cluster.answers[f"{SPACE}/configmaps"] = lambda asked: Answer(pages[asked.params.get("continue", "")])
    assert await removal(cluster) == "namespace monitoring, which holds configmaps theirs"


async def test_what_disappears_while_it_is_looked_at_does_not_keep_the_namespace(cluster: Cluster) -> None:
    """A pod that ends, and a definition that goes with its whole API."""
    ending = Answer({"items": [{"metadata": {"name": "job-1"}}]})
    cluster.answer(f"{SPACE}/pods", ending, Answer({"items": []}))
    listed = {"resources": [{"name": "widgets", "namespaced": True, "verbs": ["list"]}]}
    cluster.serve("example.com", "v1")
    cluster.answer("/apis/example.com/v1", Answer(listed), Answer(listed), Answer({"resources": []}))
    assert await removal(cluster, patience_s=60) is None


async def test_lists_and_verbs_that_are_null_are_empty(cluster: Cluster) -> None:
    """As programs behind the aggregated API write them."""
    groups = [{"name": "old.example.com", "versions": [{"groupVersion": "old.example.com/v1", "version": "v1"}]}]
    cluster.answer("/apis", Answer({"groups": groups}))
    kinds = [{"name": "a", "namespaced": True, "verbs": None}, {"name": "b", "namespaced": True, "verbs": ["list"]}]
    cluster.answer("/apis/old.example.com/v1", Answer({"resources": kinds}))
    cluster.answer("/apis/old.example.com/v1/namespaces/monitoring/b", Answer({"items": None}))
    assert await removal(cluster, patience_s=60) is None


async def test_a_silent_cluster_is_no_answer(cluster: Cluster) -> None:
    cluster.answer("/apis", Answer(cut=True))
    with pytest.raises(Unreachable):
        await removal(cluster)
