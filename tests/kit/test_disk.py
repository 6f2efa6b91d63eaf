"""Telling a full disk from other trouble."""

import errno
from pathlib import Path

import pytest

from budcluster.kit.disk import DiskFull, raise_if_full, writing_below

PLACE = Path("/var/lib/budcluster")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_what_cannot_be_written_for_lack_of_space_names_the_disk(number: int) -> None:
    with pytest.raises(DiskFull, match=f"holds {PLACE} is full"), writing_below(PLACE):
        raise OSError(number, "full")


def test_other_errors_of_the_disk_pass_as_they_are() -> None:
    with pytest.raises(PermissionError), writing_below(PLACE):
        raise PermissionError(errno.EACCES, "not yours")


def test_a_tool_that_names_a_full_disk_is_believed() -> None:
    with pytest.raises(DiskFull):
        raise_if_full(["Traceback", "OSError: [Errno 28] No space left on device: 'x'"], PLACE)
    raise_if_full(["Error: release not found"], PLACE)
