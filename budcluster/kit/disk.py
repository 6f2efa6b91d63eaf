"""A full disk, told apart from other trouble: nothing helps but space, and then the work simply goes on."""

import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_FULL: Final = {errno.ENOSPC, errno.EDQUOT}
_SAID: Final = ("no space left on device", "disk quota exceeded")
"""What libc calls those two, and so what tools print."""


class DiskFull(Exception):
    """There is no space where the service or one of its tools writes. Passes once there is."""

    next_step = "Free space on that disk; it is tried again for some minutes, and after that retry the operation."

    def __init__(self, place: Path) -> None:
        super().__init__(f"The disk that holds {place} is full where the service runs.")


@contextmanager
def writing_below(place: Path) -> Iterator[None]:
    """Raises DiskFull for whatever cannot be written because the disk is full; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise DiskFull(place) from error


def raise_if_full(said: Iterable[str], place: Path) -> None:
    """Raises DiskFull where the words of a tool that wrote below `place` name that as its trouble."""
    if any(words in line.lower() for line in said for words in _SAID):
        raise DiskFull(place)
