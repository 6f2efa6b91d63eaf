"""Folders of playbook runs. Each is locked by the process that made it, so that those of dead processes can be told.

A lock of flock ends with its process, however that dies, and is seen by all containers that share the disk.
"""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from budcluster.kit.disk import writing_below

_PREFIX: Final = "playbook-"
_LOCK: Final = ".lock"
_LONGEST_RUN_S: Final = 86_400.0


class PlaybookHomes:
    """Makes the folders, below one workspace."""

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace

    @contextmanager
    def new(self) -> Iterator[Path]:
        """A folder for one run; it is gone when the block ends. Raises DiskFull."""
        home, lock = self._make()
        try:
            yield home
        finally:
            shutil.rmtree(home, ignore_errors=True)
            os.close(lock)

    def sweep(self) -> None:
        """Remove what dead processes left. Blocks."""
        for home in self._workspace.glob(f"{_PREFIX}*"):
            if _is_abandoned(home):
                shutil.rmtree(home, ignore_errors=True)

    def _make(self) -> tuple[Path, int]:
        with writing_below(self._workspace):
            self._workspace.mkdir(parents=True, exist_ok=True, mode=0o700)
            home = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._workspace))
            # Under its name only when it is held: whoever sweeps finds no lock, or one that tells the truth.
            fresh = home / f"{_LOCK}.new"
            lock = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with suppress(OSError):  # a disk that knows no locks
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fresh.rename(home / _LOCK)
            return home, lock


def _is_abandoned(home: Path) -> bool:
    """Whether no living process works in the folder. One without a lock is left alone for a day."""
    try:
        lock = os.open(home / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return _age_s(home) > _LONGEST_RUN_S
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True


def _age_s(folder: Path) -> float:
    try:
        return time.time() - folder.stat().st_mtime
    except OSError:
        return 0.0
