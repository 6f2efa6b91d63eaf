"""The account that the command line makes on a person's own machine."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from budcluster.kube.client import ClusterClient
from budcluster.kube.kubeconfig import read_kubeconfig
from budcluster.kube.local_account import AccountNotMade, make_account
from budcluster.kube.ownership import ACCOUNT, SYSTEM_NAMESPACE
from budcluster.kube.resources import NAMESPACES
from sandbox.kubernetes.server import KubernetesServer


async def test_the_account_is_an_administrator_and_making_it_again_changes_nothing(tmp_path: Path) -> None:
    with KubernetesServer() as server:
        own = str(server.write_kubeconfig(tmp_path / "config"))
        before = datetime.now(UTC)
        kubeconfigs = [
            read_kubeconfig(make_account(own, None).kubeconfig, now=before, allow_local=True) for _ in range(2)
        ]
        kubeconfig = kubeconfigs[-1]
        assert kubeconfigs[0].fingerprint == kubeconfig.fingerprint
        assert kubeconfig.expires_at is not None
        assert kubeconfig.expires_at - before < timedelta(hours=1, minutes=1)
        async with ClusterClient(kubeconfig) as client:
            assert await client.may("create", NAMESPACES)
            await client.delete(NAMESPACES, SYSTEM_NAMESPACE)
        assert not server.call(lambda: server.cluster.store.find("ClusterRoleBinding", None, ACCOUNT))


@pytest.mark.parametrize(("kind", "name"), [("Namespace", SYSTEM_NAMESPACE), ("ClusterRoleBinding", ACCOUNT)])
def test_what_somebody_else_made_by_a_name_of_ours_is_not_used(tmp_path: Path, kind: str, name: str) -> None:
    binding = {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}}
    version, content = ("v1", {}) if kind == "Namespace" else ("rbac.authorization.k8s.io/v1", binding)
    theirs = {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **content}
    with KubernetesServer() as server:
        own = str(server.write_kubeconfig(tmp_path / "config"))
        server.call(lambda: server.cluster.store.create(theirs))
        with pytest.raises(AccountNotMade, match=f"{name} .* made by somebody else"):
            make_account(own, None)
        store = server.cluster.store
        assert server.call(lambda: store.find("ServiceAccount", SYSTEM_NAMESPACE, ACCOUNT)) is None


def test_a_context_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with KubernetesServer() as server:
        own = str(server.write_kubeconfig(tmp_path / "config"))
        with pytest.raises(AccountNotMade, match="cannot be used"):
            make_account(own, "none")


def test_a_person_who_may_not_is_told_what_the_cluster_answered(tmp_path: Path) -> None:
    with KubernetesServer() as server:
        own = str(server.write_kubeconfig(tmp_path / "config", token=server.cluster.tokens.viewer))
        with pytest.raises(AccountNotMade, match="403"):
            make_account(own, None)


def test_the_name_that_the_certificate_bears_is_kept(tmp_path: Path) -> None:
    with KubernetesServer() as server:
        document = yaml.safe_load(server.kubeconfig())
        document["clusters"][0]["cluster"]["tls-server-name"] = "localhost"
        own = tmp_path / "config"
        own.write_text(yaml.safe_dump(document))
        made = read_kubeconfig(make_account(str(own), None).kubeconfig, now=datetime.now(UTC), allow_local=True)
        assert made.tls_server_name == "localhost"


def test_nothing_is_made_with_a_kubeconfig_that_the_service_would_refuse(tmp_path: Path) -> None:
    with KubernetesServer() as server:
        document = yaml.safe_load(server.kubeconfig())
        document["clusters"][0]["cluster"] = {"server": server.url, "insecure-skip-tls-verify": True}
        own = tmp_path / "config"
        own.write_text(yaml.safe_dump(document))
        with pytest.raises(AccountNotMade, match="certificate authority"):
            make_account(str(own), None)
        assert not server.call(lambda: server.cluster.store.find("Namespace", None, SYSTEM_NAMESPACE))
