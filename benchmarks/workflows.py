"""The embedded durable engine against the quickest one that keeps nothing: Microsoft's in-memory backend.

Theirs runs in an environment of its own, because both generate the same protocol messages. The subjects take turns, so
that a busy machine slows both. With DAPR_GRPC_ENDPOINT set a live Dapr sidecar is measured as well.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from sqlalchemy.engine import make_url

from benchmarks.measure import Table
from benchmarks.scratch import scratch_folder
from budcluster.migrations import migrate
from devstack.postgres import EmbeddedPostgres

NAME = "workflows"

ROOT = Path(__file__).parents[1]
SUBJECTS = Path(__file__).with_name("subjects")
THEIRS = "durabletask==1.12.0"
ROUNDS = 3
LIMIT_S = 120

Figures = dict[str, float]


def run() -> list[Table]:
    theirs_python = _environment_of_theirs()
    with scratch_folder() as folder:
        server = EmbeddedPostgres(folder / "state")
        server.start()
        try:
            dsn = server.url("postgres")
            asyncio.run(migrate(make_url(dsn).set(drivername="postgresql+asyncpg")))
            return _measure(theirs_python, dsn)
        finally:
            server.stop()


def _measure(theirs_python: Path, dsn: str) -> list[Table]:
    theirs, ours, live = [], [], []
    for _ in range(ROUNDS):
        theirs.append(_figures([str(theirs_python), str(SUBJECTS / "durabletask_in_memory.py")], {}))
        ours.append(_ours(dsn, endpoint=None))
        if endpoint := os.environ.get("DAPR_GRPC_ENDPOINT"):
            live.append(_ours(dsn, endpoint=endpoint))
    base, measured = _median(theirs), _median(ours)
    rows = [_row("durabletask 1.12.0, in memory", base, base), _row("embedded sidecar, PostgreSQL", measured, base)]
    if live:
        rows.append(_row("live Dapr sidecar", _median(live), base))
    memory = _ours(dsn, "memory", endpoint=None)
    return [
        Table(
            "Tiny workflow (one activity): one after the other, then 6 clients; ratios to the in-memory engine",
            ["engine", "p50 ms", "p95 ms", "p50 ratio", "workflows/s", "throughput ratio"],
            rows,
        ),
        Table(
            "Resident memory of the service's process",
            ["state", "MB", "added MB"],
            [
                ["service imported", f"{memory['before_mb']:.0f}", ""],
                ["engine and worker connected", *_added(memory, "idle_mb")],
                ["1,000 workflows waiting", *_added(memory, "waiting_mb")],
            ],
        ),
    ]


def _ours(dsn: str, *arguments: str, endpoint: str | None) -> Figures:
    argv = [sys.executable, "-m", "benchmarks.subjects.embedded_sidecar", *arguments]
    return _figures(argv, {"DSN": dsn, "DAPR_GRPC_ENDPOINT": endpoint or "", "DAPR_GRPC_PORT": ""})


def _figures(argv: list[str], environment: dict[str, str]) -> Figures:
    done = subprocess.run(
        argv,
        env={**os.environ, **environment},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=LIMIT_S,
    )
    line = next(line for line in done.stdout.splitlines() if line.startswith("figures "))
    figures: Figures = json.loads(line.removeprefix("figures "))
    return figures


def _environment_of_theirs() -> Path:
    folder = ROOT / ".state" / "bench" / "durabletask"
    python = folder / "bin" / "python"
    if not python.exists():
        uv = str(Path(sys.executable).with_name("uv"))
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", str(python), THEIRS], check=True)
    return python


def _median(rounds: list[Figures]) -> Figures:
    return {name: statistics.median(figures[name] for figures in rounds) for name in rounds[0]}


def _row(name: str, figures: Figures, base: Figures) -> list[str]:
    return [
        name,
        f"{figures['p50_ms']:.1f}",
        f"{figures['p95_ms']:.1f}",
        f"{figures['p50_ms'] / base['p50_ms']:.2f}",
        f"{figures['per_s']:.0f}",
        f"{figures['per_s'] / base['per_s']:.2f}",
    ]


def _added(memory: Figures, state: str) -> list[str]:
    return [f"{memory[state]:.0f}", f"{memory[state] - memory['before_mb']:.0f}"]
