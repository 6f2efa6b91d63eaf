"""A process that brings a release of the chart up and waits for it: `python -m tests.deployment.killed_helm FOLDER`.

The folder holds `kubeconfig` and `values.json`. Tests kill it in the middle.
"""

import asyncio
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from budcluster.deployment.helm_utils import release_of
from budcluster.kit.process import ProcessSlots
from budcluster.kube.helm import HelmGateway, Release
from budcluster.kube.kubeconfig import read_kubeconfig

NAME = "bud-llama-0b7e1234"
NAMESPACE = "budcluster-models"
WAIT_S = 100.0


def gateway(folder: Path) -> HelmGateway:
    """Helm on the cluster of the folder's kubeconfig."""
    kubeconfig = read_kubeconfig((folder / "kubeconfig").read_bytes(), now=datetime.now(UTC), allow_local=True)
    return HelmGateway(kubeconfig, home=folder, slots=ProcessSlots(1))


def wanted(folder: Path) -> Release:
    """The release with the folder's values."""
    return release_of(NAME, NAMESPACE, json.loads((folder / "values.json").read_text()))


if __name__ == "__main__":
    place = Path(sys.argv[1])
    asyncio.run(gateway(place).ensure(wanted(place), timeout_s=WAIT_S))
