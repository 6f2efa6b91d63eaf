"""The stand-in charts as a Helm repository: `python -m sandbox.chart_repository <folder>` packages and indexes them.

Any static web server over that folder is then a Helm repository. Helm also takes the chart folders as they are.
"""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

CHARTS: Final = Path(__file__).with_name("charts")
"""One folder for each chart, named like it."""


class RepositoryNotBuilt(RuntimeError):
    """Helm refused to package or index; the message is its own."""


def build(folder: Path, *, helm: str | None = None, url: str | None = None) -> list[Path]:
    """Package every chart into `folder` and write `index.yaml` beside them; returns the archives.

    `helm` is the program (default: the one on PATH), `url` the address under which the folder will be served; without
    it the index holds relative addresses. Raises RepositoryNotBuilt.
    """
    program = helm or shutil.which("helm")
    if program is None:
        raise RepositoryNotBuilt("helm is not on PATH; install Helm 4.")
    folder.mkdir(parents=True, exist_ok=True)
    charts = sorted(str(path.parent) for path in CHARTS.glob("*/Chart.yaml"))
    _run([program, "package", *charts, "--destination", str(folder)])
    _run([program, "repo", "index", str(folder), *(["--url", url] if url else [])])
    return sorted(folder.glob("*.tgz"))


def _run(argv: list[str]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RepositoryNotBuilt(done.stderr.strip() or f"{argv[0]} ended with {done.returncode}")


def main(argv: Sequence[str] | None = None) -> int:
    """Package the stand-in charts into a folder that any static web server can serve as a Helm repository."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.chart_repository", description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--url", help="the address under which the folder will be served")
    options = parser.parse_args(argv)
    try:
        archives = build(options.folder, url=options.url)
    except (RepositoryNotBuilt, OSError) as error:
        sys.stderr.write(f"sandbox: {error}\n")
        return 1
    sys.stdout.writelines(f"{path}\n" for path in archives)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
