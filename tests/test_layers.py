"""Imports run one way; pyproject.toml says which."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_imports_run_in_one_direction() -> None:
    found = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout


def test_serving_the_api_loads_none_of_the_heavy_libraries() -> None:
    code = "import sys, budcluster.server; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    heavy = {"ansible", "ansible_runner", "dapr", "durabletask", "grpc", "kubernetes", "alembic", "typer"}
    found = heavy & set(loaded.stdout.split())
    assert not found
