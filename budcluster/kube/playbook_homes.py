"""Folders of playbook runs. Each is locked by the process that made it, so that those of dead processes can be told.

A lock of flock ends with its process, however that dies, and is seen by all containers that share the disk.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from budcluster.kit.disk import writing_below

_PREFIX: Final = "playbook-"


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
        if not self._workspace.is_dir():
            return
        # Nobody is between making a folder and locking it meanwhile.
        workspace = _lock(self._workspace, fcntl.LOCK_EX)
        try:
            for home in self._workspace.glob(f"{_PREFIX}*"):
                self._sweep_one(home)
        finally:
            os.close(workspace)

    def _sweep_one(self, home: Path) -> None:
        try:
            lock = _lock(home, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return  # somebody's who lives, or it is gone
        shutil.rmtree(home, ignore_errors=True)
        os.close(lock)

    def _make(self) -> tuple[Path, int]:
        with writing_below(self._workspace):
            self._workspace.mkdir(parents=True, exist_ok=True, mode=0o700)
            workspace = _lock(self._workspace, fcntl.LOCK_SH)
            try:
                home = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._workspace))
                return home, _lock(home, fcntl.LOCK_EX)
            finally:
                os.close(workspace)


def _lock(folder: Path, how: int) -> int:
    """Lock a folder until the descriptor is closed. Raises OSError."""
    # A file in it, since network file systems lock no folders.
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, how)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
