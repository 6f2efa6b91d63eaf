"""The API at 2,000 clusters: what a list takes and costs, how soon a start answers, what idling holds.

For comparison, measured on such a machine: the dstack 0.22.5 server spends 7.9 to 10.4 ms of processor time
on a list request of an empty project, idles at 261 MB and needs 27 s for its first start.
"""

import asyncio
import http.client
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import create_server

from sqlalchemy.engine import make_url

from benchmarks.measure import Table
from benchmarks.scratch import scratch_folder
from budcluster.cluster.models import Cluster, ClusterOrigin, ClusterProvider, ClusterStatus
from budcluster.credentials.keys import RSA_NAME, SYMMETRIC_NAME, make_key_files
from budcluster.kit.database import Database
from budcluster.migrations import migrate
from devstack.postgres import EmbeddedPostgres

NAME = "clusters-list"

CLUSTERS = 2_000
ROUNDS = 300
SERVE = "import sys; from budcluster.config import Settings; from budcluster.server import serve; "
SERVE += "sys.exit(serve(Settings.load()))"
REQUESTS = {
    "GET /clusters (50 of 2,000)": "/clusters",
    "GET /clusters?limit=500": "/clusters?limit=500",
    "GET /clusters?status=READY&label=shard:3": "/clusters?status=READY&label=shard:3",
    "GET /clusters?name=cluster-0042": "/clusters?name=cluster-0042",
    "GET /healthz": "/healthz",
}


def run() -> list[Table]:
    with scratch_folder() as folder:
        server = EmbeddedPostgres(folder / "state", durable=False)
        server.start()
        try:
            asyncio.run(_fill(server))
            return _measure(server, folder)
        finally:
            server.stop()


async def _fill(server: EmbeddedPostgres) -> None:
    url = make_url(server.url("postgres")).set(drivername="postgresql+asyncpg")
    await migrate(url)
    database = Database(url)
    async with database.writing() as session:
        session.add_all(
            Cluster(
                name=f"cluster-{number:04}",
                provider=list(ClusterProvider)[number % 3],
                origin=ClusterOrigin.ADOPTED,
                region="eu-central-1",
                status=ClusterStatus.READY,
                labels={"shard": str(number % 10), "team": "search"},
                node_count=8,
                gpu_count=64,
            )
            for number in range(CLUSTERS)
        )
    await database.close()


def _measure(server: EmbeddedPostgres, folder: Path) -> list[Table]:
    with create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    make_key_files(folder / "keys")
    begun = time.perf_counter()
    with serving(server, folder, port) as process:
        alive = first_answer(port, "/healthz") - begun
        listed = first_answer(port, "/clusters") - begun
        ready = first_answer(port, "/readyz") - begun
        time.sleep(2)
        idle = _rss_mb(process.pid)
        rows = [[name, *requested(port, path, process.pid)] for name, path in REQUESTS.items()]
        after = _rss_mb(process.pid)
    return [
        Table("Requests, one after the other on one connection", ["request", "p50 ms", "p95 ms", "CPU ms"], rows),
        Table(
            "One process",
            ["what", "measured"],
            [
                ["start to first answer of /healthz", f"{alive:.2f} s"],
                ["start to first answered GET /clusters", f"{listed:.2f} s"],
                ["start to ready, workflow engine included", f"{ready:.2f} s"],
                ["resident memory, idle", f"{idle:.0f} MB"],
                [f"resident memory after {ROUNDS * len(REQUESTS):,} requests", f"{after:.0f} MB"],
            ],
        ),
    ]


@contextmanager
def serving(server: EmbeddedPostgres, folder: Path, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    environment = {
        "DATABASE_URL": server.url("postgres"),
        "RSA_PRIVATE_KEY_PATH": str(folder / "keys" / RSA_NAME),
        "SYMMETRIC_KEY_PATH": str(folder / "keys" / SYMMETRIC_NAME),
        "PORT": str(port),
    }
    with (folder / "service.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-c", SERVE], env={**os.environ, **environment}, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def first_answer(port: int, path: str) -> float:
    """When the path was first answered with 200."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", path)
            if connection.getresponse().status == 200:
                return time.perf_counter()
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.01)
    raise TimeoutError(f"{path} was not answered")


def requested(port: int, path: str, pid: int) -> list[str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    taken = []
    cpu = 0.0
    for number in range(ROUNDS + 20):
        if number == 20:
            taken, cpu = [], _cpu_s(pid)
        begun = time.perf_counter()
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        taken.append((time.perf_counter() - begun) * 1000)
        assert answer.status == 200
    spent = (_cpu_s(pid) - cpu) / ROUNDS * 1000
    connection.close()
    return [f"{statistics.median(taken):.1f}", f"{statistics.quantiles(taken, n=20)[18]:.1f}", f"{spent:.1f}"]


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
