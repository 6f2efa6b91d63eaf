"""Everything that speaks to one cluster, behind one credential: API, Helm and Ansible."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from budcluster.kit.command import LineSink
from budcluster.kit.disk import writing_below
from budcluster.kit.process import ProcessSlots
from budcluster.kube.client import ClusterClient
from budcluster.kube.helm import HelmGateway, Release
from budcluster.kube.kubeconfig import Kubeconfig
from budcluster.kube.playbooks import PlaybookGateway, PlaybookRun, TaskSink


@dataclass(frozen=True)
class Door:
    """One cluster, open."""

    kubeconfig: Kubeconfig
    client: ClusterClient
    helm: HelmGateway
    _playbooks: PlaybookGateway
    _on_line: LineSink | None

    async def play(
        self, playbook: str, *, variables: Mapping[str, Any], timeout_s: float, on_task: TaskSink | None = None
    ) -> PlaybookRun:
        """Run a playbook against the cluster. Raises PlaybookError."""
        return await self._playbooks.run(
            playbook, self.kubeconfig, variables=variables, timeout_s=timeout_s, on_task=on_task, on_line=self._on_line
        )


class Doors:
    """Opens clusters. One a process: it limits how many tools run at once."""

    def __init__(
        self,
        *,
        playbooks: Path,
        workspace: Path,
        max_tools: int,
        collections: Path | None,
        path: str | None,
        allow_local: bool = False,
    ) -> None:
        """`path` is where programs such as helm are looked for, `allow_local` is KUBERNETES__ALLOW_LOCAL_SERVERS."""
        self._allow_local = allow_local
        self._slots = ProcessSlots(max_tools)
        self._helm_home = workspace / "helm"
        self._path = path
        self._playbooks = PlaybookGateway(
            playbooks, workspace=workspace, slots=self._slots, collections=collections, path=path
        )

    async def sweep(self) -> None:
        """Remove what processes that are dead left of their playbooks."""
        await asyncio.to_thread(self._playbooks.sweep)

    async def render(self, release: Release) -> list[dict[str, Any]]:
        """The objects that a release would make. Talks to no cluster.

        Raises RenderFailed, ChartUnavailable, DiskFull.
        """
        nowhere = Kubeconfig(server="https://nowhere.invalid", certificate_authority=b"")
        return await self._helm(nowhere).render(release)

    @asynccontextmanager
    async def open(self, kubeconfig: Kubeconfig, *, on_line: LineSink | None = None) -> AsyncIterator[Door]:
        """The cluster behind this credential. Lines of the tools go masked to `on_line`. Raises DiskFull."""
        helm = self._helm(kubeconfig, on_line)
        async with self.connect(kubeconfig) as client:
            yield Door(kubeconfig, client, helm, self._playbooks, on_line)

    def connect(self, kubeconfig: Kubeconfig) -> ClusterClient:
        """The cluster's API alone."""
        return ClusterClient(kubeconfig, allow_local=self._allow_local)

    def _helm(self, kubeconfig: Kubeconfig, on_line: LineSink | None = None) -> HelmGateway:
        with writing_below(self._helm_home):
            self._helm_home.mkdir(parents=True, exist_ok=True, mode=0o700)
        return HelmGateway(kubeconfig, home=self._helm_home, slots=self._slots, on_line=on_line, path=self._path)
