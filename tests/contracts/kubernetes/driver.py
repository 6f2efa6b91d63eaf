"""The cluster under test, and the command-line tools pointed at it."""

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from sandbox.kubernetes.server import KubernetesServer

Object = dict[str, Any]
T = TypeVar("T")

PROCESS_LIMIT_S = 100
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Cluster:
    """An API server, real or simulated, and how to reach it as its administrator."""

    kubeconfig: Path
    simulated: bool
    server: KubernetesServer | None = None
    """The handle of a simulated one."""

    @property
    def configuration(self) -> Object:
        loaded: Object = yaml.safe_load(self.kubeconfig.read_text())
        return loaded

    @property
    def address(self) -> str:
        return str(self.configuration["clusters"][0]["cluster"]["server"])


@dataclass(frozen=True)
class Tool:
    """One program, run against the cluster and inside one namespace."""

    name: str
    cluster: Cluster
    namespace: str
    variables: dict[str, str]

    def run(self, *arguments: str, stdin: str | None = None) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [self.name, "--namespace", self.namespace, *arguments],
            env={**self.variables, "KUBECONFIG": str(self.cluster.kubeconfig)},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=PROCESS_LIMIT_S,
            check=False,
        )

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        """What it wrote; fails the test with what it complained about."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, f"{self.name} {' '.join(arguments)}: {done.stderr}{done.stdout}"
        return done.stdout

    def refused(self, *arguments: str, stdin: str | None = None) -> str:
        """What it complained about; fails the test when it did not."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode != 0, f"{self.name} {' '.join(arguments)} went through: {done.stdout}"
        return done.stderr

    def json(self, *arguments: str, stdin: str | None = None) -> Any:
        return json.loads(self(*arguments, "--output", "json", stdin=stdin))

    def apply(self, *objects: Object) -> str:
        return self("apply", "--filename", "-", stdin=as_yaml(*objects))

    def started(self, *arguments: str) -> "subprocess.Popen[str]":
        """A process that goes on, its output to be read line by line."""
        return subprocess.Popen(
            [self.name, "--namespace", self.namespace, *arguments],
            env={**self.variables, "KUBECONFIG": str(self.cluster.kubeconfig)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def as_yaml(*objects: Object) -> str:
    return yaml.safe_dump_all(objects)


def eventually(observe: Callable[[], T], *, within_s: float = PATIENCE_S) -> T:
    """The first truthy value that is observed; fails the test when there is none in time."""
    deadline = time.monotonic() + within_s
    while True:
        seen = observe()
        if seen or time.monotonic() > deadline:
            assert seen, f"not seen within {within_s} s"
            return seen
        time.sleep(0.05)
