"""A sandbox Kubernetes in a process of its own, so that its work is not counted as the client's."""

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from kubernetes import client, config

_START_LIMIT_S = 60.0


@dataclass(frozen=True)
class SandboxProcess:
    kubeconfig: Path
    process: "subprocess.Popen[bytes]"
    start_s: float
    """From the start of the process until it has answered a first question about its nodes."""

    def resident_mib(self) -> float:
        return float(psutil.Process(self.process.pid).memory_info().rss) / 2**20


@contextlib.contextmanager
def sandbox_of(*, nodes: str, clock_factor: float = 1) -> Iterator[SandboxProcess]:
    """A cluster of these node profiles; ends with the block."""
    with tempfile.TemporaryDirectory(prefix="budcluster-bench-") as folder:
        kubeconfig = Path(folder) / "kubeconfig"
        argv = [sys.executable, "-m", "sandbox", "--nodes", nodes, "--kubeconfig", str(kubeconfig)]
        argv += ["--clock-factor", str(clock_factor)]
        began = time.perf_counter()
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
        try:
            while not (kubeconfig.exists() and kubeconfig.stat().st_size):
                if process.poll() is not None or time.perf_counter() - began > _START_LIMIT_S:
                    raise RuntimeError("the sandbox Kubernetes did not start")
                time.sleep(0.01)
            with config.new_client_from_config(str(kubeconfig)) as api:
                client.CoreV1Api(api).list_node(limit=1)
            yield SandboxProcess(kubeconfig, process, time.perf_counter() - began)
        finally:
            process.terminate()
            process.wait()
