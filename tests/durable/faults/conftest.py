"""Replicas as real processes that tests can kill and freeze, and a client that outlives them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dapr.ext.workflow as wf
import pytest

from tests.fixtures.workflows import Backend, embedded_backend
from tests.waiting import eventually

ROOT = Path(__file__).parents[3]


@dataclass
class Replica:
    """A running replica."""

    process: "subprocess.Popen[str]"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def ended(self) -> bool:
        return self.process.poll() is not None


@dataclass
class Site:
    """A database with replicas on it, their common journal, and a client without a worker of its own."""

    url: str
    folder: Path
    client: wf.DaprWorkflowClient
    backend: Backend
    replicas: list[Replica] = field(default_factory=list)

    def replica(self, **options: Any) -> Replica:
        """Start one; returns when its worker is connected."""
        environment = {
            **os.environ,
            "REPLICA_DSN": self.url,
            "REPLICA_FOLDER": str(self.folder),
            "REPLICA_OPTIONS": json.dumps(options),
            "PYTHONPATH": f"{ROOT}:{ROOT / 'deploy'}",
        }
        with (self.folder / "replicas.log").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("replica.py"))],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        replica = Replica(process)
        self.replicas.append(replica)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", (self.folder / "replicas.log").read_text()[-2000:]
        return replica

    def start(self, workflow: str, payload: Any = None, *, instance_id: str) -> str:
        return self.client.schedule_new_workflow(workflow, input=payload, instance_id=instance_id)

    def ended(self, instance_id: str, *, within_s: int = 60) -> wf.WorkflowState:
        state = self.client.wait_for_workflow_completion(instance_id, timeout_in_seconds=within_s)
        assert state is not None
        return state

    def completed(self, instance_id: str, *, within_s: int = 60) -> bool:
        return self.ended(instance_id, within_s=within_s).runtime_status == wf.WorkflowStatus.COMPLETED

    def hold(self, number: int) -> Path:
        """Steps of this number wait until the returned file is removed."""
        path = self.folder / f"hold-{number}"
        path.touch()
        return path

    def journal(self) -> list[list[str]]:
        path = self.folder / "journal"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def count(self, what: str, instance_id: str | None = None) -> Counter[str]:
        """How often each step was noted as `begin`, `end`, `effect` or `refused`."""
        return Counter(
            f"{line[1]}/{line[2]}" for line in self.journal() if line[0] == what and instance_id in (None, line[1])
        )

    def until_begun(self, instance_id: str, number: int, *, times: int = 1) -> None:
        eventually(lambda: self.count("begin")[f"{instance_id}/{number}"] >= times, within_s=30)


@contextlib.contextmanager
def site_on(url: str, folder: Path) -> Iterator[Site]:
    with embedded_backend(url) as backend, backend.client() as client:
        site = Site(url, folder, client, backend)
        try:
            yield site
        finally:
            for replica in site.replicas:
                if not replica.ended():
                    replica.kill()
                assert replica.process.stdout is not None
                replica.process.stdout.close()


@pytest.fixture
def site(database_url: str, tmp_path: Path) -> Iterator[Site]:
    with site_on(database_url, tmp_path) as site:
        yield site
