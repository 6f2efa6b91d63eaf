"""A folder for what a benchmark needs."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Goes with its block. PostgreSQL's unprivileged user may enter it."""
    with tempfile.TemporaryDirectory(prefix="budcluster-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        yield folder
