"""A sandbox Kubernetes whose containers print as fast as they are read.

`python -m benchmarks.log_flood KUBECONFIG MIB` writes a kubeconfig and serves until it is ended.
"""

import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from sandbox.kubernetes.cluster import Options
from sandbox.kubernetes.server import KubernetesServer

STAMP: Final = "2026-11-24T10:00:00.000000001Z "
LINE: Final = STAMP + 'INFO 11-24 10:00:00 [async_llm.py:323] Received request "GET /v1/models" with 128 tokens.\n'
"""A line as vLLM prints them."""
_CHUNK: Final = (LINE * (64 * 1024 // len(LINE))).encode()


def flood(server: KubernetesServer, size: int) -> None:
    """Let every container's log be about `size` bytes long."""

    async def logs(*_: Any, **__: Any) -> AsyncIterator[bytes]:
        for _chunk in range(size // len(_CHUNK)):
            yield _CHUNK

    assert server.cluster.simulation is not None
    vars(server.cluster.simulation.kubelets)["logs"] = logs


def main() -> None:
    with KubernetesServer(Options(nodes="cpu:1", clock_factor=60)) as server:
        flood(server, int(sys.argv[2]) * 2**20)
        server.write_kubeconfig(Path(sys.argv[1]))
        threading.Event().wait()


if __name__ == "__main__":
    main()
