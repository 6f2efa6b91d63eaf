"""Helm releases of one cluster: the house's one door to Helm.

pyhelm3 0.5.8 builds the command lines and reads the answers; `helm_command` runs them. Values go in as one JSON
document on standard input and the kubeconfig as a file in memory: neither is on a command line or on a disk.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import structlog

from budcluster.kit.command import LineSink, ToolFailed, ToolTimedOut
from budcluster.kit.disk import raise_if_full
from budcluster.kit.process import ProcessSlots
from budcluster.kube.helm_command import OWNER_LABEL, HelmCommand
from budcluster.kube.helm_errors import NotReadyInTime, OwnedByAnother, ReleaseNotFound, classify
from budcluster.kube.kubeconfig import Kubeconfig

log = structlog.get_logger(__name__)

_QUICK_S: Final = 60.0
_SLACK_S: Final = 30.0
_MANY: Final = 100_000
"""Releases of one cluster; Helm stops at 256 by itself."""


class ReleaseStatus(StrEnum):
    """Helm's words (Helm 4, pkg/release)."""

    UNKNOWN = "unknown"
    DEPLOYED = "deployed"
    UNINSTALLED = "uninstalled"
    SUPERSEDED = "superseded"
    FAILED = "failed"
    UNINSTALLING = "uninstalling"
    PENDING_INSTALL = "pending-install"
    PENDING_UPGRADE = "pending-upgrade"
    PENDING_ROLLBACK = "pending-rollback"

    @property
    def is_pending(self) -> bool:
        """Left so by a Helm that is at work, or that was killed."""
        return self in _PENDING


_PENDING: Final = {
    ReleaseStatus.UNINSTALLING,
    ReleaseStatus.PENDING_INSTALL,
    ReleaseStatus.PENDING_UPGRADE,
    ReleaseStatus.PENDING_ROLLBACK,
}


@dataclass(frozen=True, slots=True)
class ChartRef:
    """Which chart: a folder, or a name in a repository, or an `oci://` address; and its exact version."""

    name: str
    version: str | None = None
    repository: str | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """What should be there."""

    name: str
    namespace: str
    chart: ChartRef
    values: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Revision:
    """What is there."""

    name: str
    namespace: str
    number: int
    status: ReleaseStatus
    chart: str
    """Name and version, joined by a hyphen as Helm writes them."""
    description: str
    is_ours: bool
    """Whether this service made the release."""
    updated: str = ""


class HelmGateway:
    """Helm on one cluster. Every call may be cancelled: Helm is stopped politely, and waited for."""

    def __init__(
        self,
        kubeconfig: Kubeconfig,
        *,
        home: Path,
        slots: ProcessSlots,
        on_line: LineSink | None = None,
        executable: str = "helm",
        path: str | None = None,
    ) -> None:
        """`home` is a private folder for Helm's caches; `path` is where programs are looked for.

        `on_line` is told what Helm complains of; what it answers holds values, and those are nobody's to read.
        """
        self._kubeconfig = kubeconfig
        self._home = home
        self._slots = slots
        self._on_line = on_line
        self._executable = executable
        self._path = path

    async def ensure(
        self, release: Release, *, timeout_s: float, wait: bool = True, repair: str | None = None
    ) -> Revision:
        """Bring the release to this chart and these values. Safe to repeat: nothing is done where nothing differs.

        What others did to its objects Helm's own record does not tell. With `repair`, a few words that name the
        occasion, that is put right as well, once for each occasion: objects that were deleted are made again, and
        fields of the chart that somebody else has taken are taken back.

        A release that a killed Helm left pending is repaired first: a half install is removed, a half upgrade rolled
        back. Raises OwnedByAnother for a release that somebody else made, and every other HelmError.
        """
        force = repair is not None
        present = await self.recover(release.name, release.namespace, timeout_s=timeout_s, force=force)
        if present is not None and not present.is_ours:
            raise OwnedByAnother(f"the release {release.name} in {release.namespace} was made by somebody else.")
        if present is not None and await self._is_as_wanted(release, present, repair):
            return present
        async with self._command(timeout_s) as helm:
            made = await helm.install_or_upgrade(
                release.name,
                release.chart.name,
                dict(release.values),
                namespace=release.namespace,
                repo=release.chart.repository,
                version=release.chart.version,
                timeout=f"{int(timeout_s)}s",
                wait=wait,
                description=repair,
                force_conflicts=force,
            )
        revision = _made(release, made)
        log.info("release.applied", release=release.name, namespace=release.namespace, revision=revision.number)
        return revision

    async def recover(self, name: str, namespace: str, *, timeout_s: float, force: bool = False) -> Revision | None:
        """The present revision, after repairing one that was left pending. The caller makes sure no Helm is at work.

        With `force`, fields that others have taken do not stop a half upgrade from being rolled back.
        """
        present = await self.find(name, namespace)
        if present is None or not present.status.is_pending or not present.is_ours:
            return present
        log.warning("release.left_pending", release=name, namespace=namespace, status=present.status.value)
        if present.status in {ReleaseStatus.PENDING_INSTALL, ReleaseStatus.UNINSTALLING}:
            await self.remove(name, namespace, timeout_s=timeout_s)
            return None
        await self.roll_back(name, namespace, to=None, timeout_s=timeout_s, wait=False, force=force)
        return await self.find(name, namespace)

    async def find(self, name: str, namespace: str) -> Revision | None:
        """The newest revision, whatever its status; None when there is no such release."""
        try:
            return await self.get(name, namespace)
        except ReleaseNotFound:
            return None

    async def get(self, name: str, namespace: str) -> Revision:
        """The newest revision. Raises ReleaseNotFound."""
        history = await self.history(name, namespace)
        return history[-1]

    async def history(self, name: str, namespace: str) -> list[Revision]:
        """All kept revisions, oldest first. Raises ReleaseNotFound."""
        async with self._command(_QUICK_S) as helm:
            rows = list(await helm.history(name, namespace=namespace))
            labels = await helm.labels(name, namespace)
        return [
            Revision(
                name=name,
                namespace=namespace,
                number=int(row["revision"]),
                status=ReleaseStatus(row["status"]),
                chart=str(row["chart"]),
                description=str(row.get("description", "")),
                is_ours=OWNER_LABEL in labels,
                updated=str(row.get("updated", "")),
            )
            for row in rows
        ]

    async def list_releases(self) -> Sequence[Mapping[str, Any]]:
        """Every release of the cluster as Helm lists them: name, namespace, chart, status.

        Those, too, whose removal was begun and not ended.
        """
        async with self._command(_QUICK_S) as helm:
            return list(
                await helm.list(
                    all_namespaces=True,
                    include_failed=True,
                    include_pending=True,
                    include_uninstalling=True,
                    max_releases=_MANY,
                )
            )

    async def values(self, name: str, namespace: str, *, revision: int | None = None) -> dict[str, Any]:
        """The values that a revision was made with. May hold what its author thought secret: never log them."""
        async with self._command(_QUICK_S) as helm:
            found: dict[str, Any] = await helm.get_values(name, namespace=namespace, revision=revision)
        return found

    async def render(self, release: Release) -> list[dict[str, Any]]:
        """The objects that the release would make. Talks to no cluster. Raises RenderFailed, ChartUnavailable."""
        documents = await self._template(release)
        # Read as they are taken, in plain Python: tens of milliseconds.
        return [found for found in await asyncio.to_thread(list, documents) if found]

    async def require_sound(self, release: Release) -> None:
        """See that the release renders, and look at nothing of it. Raises RenderFailed, ChartUnavailable."""
        await self._template(release)

    async def roll_back(
        self, name: str, namespace: str, *, to: int | None, timeout_s: float, wait: bool = True, force: bool = False
    ) -> None:
        """Go back to revision `to`, or to the last good one. Raises ReleaseNotFound."""
        async with self._command(timeout_s, *(["--force-conflicts"] if force else [])) as helm:
            await helm.rollback(name, to, namespace=namespace, timeout=f"{int(timeout_s)}s", wait=wait)

    async def remove(
        self, name: str, namespace: str, *, timeout_s: float, wait: bool = True, run_hooks: bool = True
    ) -> None:
        """Uninstall, and with `wait` until its objects are gone. A release that is not there is success."""
        try:
            async with self._command(timeout_s) as helm:
                await helm.uninstall(
                    name, namespace=namespace, timeout=f"{int(timeout_s)}s", wait=wait, no_hooks=not run_hooks
                )
        except ReleaseNotFound:
            return
        log.info("release.removed", release=name, namespace=namespace)

    async def _template(self, release: Release) -> Iterable[dict[str, Any] | None]:
        async with self._command(_QUICK_S) as helm:
            documents: Iterable[dict[str, Any] | None] = await helm.template(
                release.name,
                release.chart.name,
                dict(release.values),
                namespace=release.namespace,
                repo=release.chart.repository,
                version=release.chart.version,
            )
        return documents

    async def _is_as_wanted(self, release: Release, present: Revision, repair: str | None) -> bool:
        if present.status is not ReleaseStatus.DEPLOYED or (repair is not None and present.description != repair):
            return False
        name = await self._chart_label(release.chart)
        if name != present.chart:
            return False
        return await self.values(release.name, release.namespace) == dict(release.values)

    async def _chart_label(self, chart: ChartRef) -> str:
        async with self._command(_QUICK_S) as helm:
            about = await helm.show_chart(chart.name, repo=chart.repository, version=chart.version)
        return f"{about['name']}-{about['version']}"

    @asynccontextmanager
    async def _command(self, timeout_s: float, *extra: str) -> AsyncIterator[HelmCommand]:
        """A command whose kubeconfig lives as long as this block. Raises HelmError, and DiskFull."""
        with self._kubeconfig.in_memory() as path:
            try:
                async with self._slots:
                    yield HelmCommand(
                        executable=self._executable,
                        kubeconfig=path,
                        environment=self._environment(),
                        timeout_s=timeout_s + _SLACK_S,
                        on_line=self._on_line,
                        secrets=self._kubeconfig.secrets,
                        extra=extra,
                    )
            except ToolTimedOut as error:
                raise NotReadyInTime(f"Helm did not end within {error.timeout_s:.0f} s and was stopped.") from error
            except ToolFailed as error:
                raise_if_full(error.tail, self._home)
                raise classify(error.tail) from error

    def _environment(self) -> dict[str, str]:
        home = str(self._home)
        found = {"HOME": home, "HELM_CACHE_HOME": home, "HELM_CONFIG_HOME": home, "HELM_DATA_HOME": home}
        return {**found, **({"PATH": self._path} if self._path else {})}


def _made(release: Release, answer: Mapping[str, Any]) -> Revision:
    """The revision that an upgrade tells of."""
    about, chart = answer["info"], answer["chart"]["metadata"]
    return Revision(
        name=release.name,
        namespace=release.namespace,
        number=int(answer["version"]),
        status=ReleaseStatus(about["status"]),
        chart=f"{chart['name']}-{chart['version']}",
        description=str(about.get("description", "")),
        is_ours=True,
        updated=str(about.get("last_deployed", "")),
    )
