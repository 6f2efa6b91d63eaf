"""The folder of a playbook run goes with the run, and that of a killed process at the next start of a service."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from budcluster.kube.playbook_homes import PlaybookHomes
from tests.deployment.live import until
from tests.fixtures.app import SettingsMaker, quiet_service, running

_HOLDS_ONE = """
import sys
from pathlib import Path
from budcluster.kube.playbook_homes import PlaybookHomes
with PlaybookHomes(Path(sys.argv[1])).new() as home:
    print(home, flush=True)
    sys.stdin.read()
"""


@contextmanager
def somebody_at_work(workspace: Path) -> Iterator[Path]:
    """The folder of another process, which is killed in the end."""
    argv = [sys.executable, "-c", _HOLDS_ONE, str(workspace)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield Path(process.stdout.readline().strip())
        process.kill()


def test_a_folder_is_private_and_goes_with_its_run(tmp_path: Path) -> None:
    with PlaybookHomes(tmp_path / "below").new() as home:
        assert home.stat().st_mode & 0o777 == 0o700
        (home / "variables.yml").write_text("{}")
    assert not home.exists()


def test_folders_of_the_dead_are_swept_and_nothing_else(tmp_path: Path) -> None:
    homes = PlaybookHomes(tmp_path)
    (tmp_path / "helm").mkdir()
    with somebody_at_work(tmp_path) as theirs, homes.new() as ours:
        homes.sweep()
        assert theirs.is_dir()
        assert ours.is_dir()
    assert theirs.is_dir()
    homes.sweep()
    assert not theirs.exists()
    assert (tmp_path / "helm").is_dir()


def test_a_folder_without_a_lock_is_left_alone_for_a_day(tmp_path: Path) -> None:
    fresh, old = tmp_path / "playbook-fresh", tmp_path / "playbook-old"
    for home in (fresh, old):
        home.mkdir()
        (home / "variables.yml").write_text("{}")
    os.utime(old, (0, 0))
    PlaybookHomes(tmp_path).sweep()
    assert fresh.is_dir()
    assert not old.exists()


def test_a_workspace_that_was_never_used_is_left_alone(tmp_path: Path) -> None:
    PlaybookHomes(tmp_path / "none").sweep()
    assert not (tmp_path / "none").exists()


async def test_a_service_sweeps_at_its_start(make_settings: SettingsMaker, tmp_path: Path) -> None:
    with somebody_at_work(tmp_path) as theirs:
        pass
    service = quiet_service(make_settings(kubernetes={"workspace": str(tmp_path)}))
    async with running(service, wait=False):

        async def is_there() -> bool:
            return theirs.exists()

        await until(is_there, lambda there: not there)
