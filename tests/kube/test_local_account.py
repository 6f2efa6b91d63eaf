"""The account that the command line makes on a person's own machine."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from budcluster.kube.client import ClusterClient
from budcluster.kube.kubeconfig import read_kubeconfig
from budcluster.kube.local_account import AccountNotMade, make_account
from budcluster.kube.resources import NAMESPACES
from sandbox.kubernetes.server import KubernetesServer


async def test_the_account_is_an_administrator_and_making_it_again_changes_nothing(tmp_path: Path) -> None:
    with KubernetesServer() as server:
        own = str(server.write_kubeconfig(tmp_path / "config"))
        first = make_account(own, None).kubeconfig
        assert make_account(own, None).kubeconfig == first
        kubeconfig = read_kubeconfig(first, now=datetime.now(UTC), allow_local=True)
        async with ClusterClient(kubeconfig) as client:
            assert await client.may("create", NAMESPACES)


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
