"""What the service adds to onboarding: against the same playbooks and Helm commands, run by hand one after the other.

Two machines without GPUs, clock factor 1: a GPU operator spends five minutes on its drivers, which would hide what the
service itself costs.
"""

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from benchmarks.live_service import CHARTS, PLAYBOOKS, onboard, run_tool, service_in
from benchmarks.measure import Table
from benchmarks.scratch import scratch_folder
from budcluster.config import AddonSettings
from budcluster.hardware import nfd, prometheus
from budcluster.hardware.addons import Platform, Surroundings
from budcluster.kube.versions import Version
from devstack.tools import ensure_tools, tool_environment, tools_home
from sandbox.kubernetes.cluster import Options
from sandbox.kubernetes.server import KubernetesServer

NAME = "onboarding"

NODES = "cpu-amx:2"


def run() -> list[Table]:
    ensure_tools()
    os.environ.update(tool_environment())
    with scratch_folder() as folder:
        with _cluster() as server:
            by_hand = _by_hand(server, folder)
        with _cluster() as server:
            serviced = asyncio.run(_by_service(server, folder))
    rows = [("by hand", f"{by_hand:.1f}", "1.00"), ("service", f"{serviced:.1f}", f"{serviced / by_hand:.2f}")]
    return [Table(f"Onboarding {NODES} at clock factor 1", ("way", "seconds", "ratio"), rows)]


@contextmanager
def _cluster() -> Iterator[KubernetesServer]:
    with KubernetesServer(Options(nodes=NODES, clock_factor=1)) as server:
        yield server


def _by_hand(server: KubernetesServer, folder: Path) -> float:
    kubeconfig = server.write_kubeconfig(folder / "kubeconfig")
    about = Surroundings(platform=Platform.OTHER, server=Version.parse(server.cluster.version))
    claim = {"cluster": "by-hand", "name": "by-hand"}
    prepare = {"system_namespace": "budcluster-system", "manage_addons": True, "oldest_minor": 25, "claim": claim}
    began = time.perf_counter()
    _play("onboard.yml", prepare, kubeconfig)
    for addon in (prometheus.addon(AddonSettings()), nfd.addon(AddonSettings())):
        if addon.name == "nfd":
            _play("install_nfd.yml", {"namespace": addon.namespace}, kubeconfig)
        argv = [
            "helm",
            "upgrade",
            addon.release,
            str(CHARTS / addon.chart),
            "--install",
            "--namespace",
            addon.namespace,
        ]
        options = ["--create-namespace", "--wait", "--values", "-", "--kubeconfig", str(kubeconfig)]
        run_tool([*argv, *options], stdin=orjson.dumps(addon.values(about)))
    return time.perf_counter() - began


def _play(playbook: str, variables: dict[str, Any], kubeconfig: Path) -> None:
    program = Path(sys.executable).parent / "ansible-playbook"
    python = f"ansible_python_interpreter={sys.executable}"
    places = {"K8S_AUTH_KUBECONFIG": str(kubeconfig), "ANSIBLE_COLLECTIONS_PATH": str(tools_home() / "collections")}
    argv = [str(program), str(PLAYBOOKS / playbook), "-e", python, "-e", orjson.dumps(variables).decode()]
    run_tool(argv, environment=places)


async def _by_service(server: KubernetesServer, folder: Path) -> float:
    async with service_in(folder) as client:
        began = time.perf_counter()
        await onboard(client, server)
        return time.perf_counter() - began
