"""`If-Match` lets a change pass only for the version that was read."""

import pytest

from budcluster.api.etag import require_match
from budcluster.kit.errors import StaleVersion


@pytest.mark.parametrize("header", [None, "*", '"3"', '"1", "3"', ' "3" '])
def test_a_change_passes_when_the_version_matches(header: str | None) -> None:
    require_match(header, 3)


@pytest.mark.parametrize("header", ['"2"', "3", 'W/"3"', "", '"', '"33"'])
def test_a_change_is_refused_when_the_version_does_not_match(header: str) -> None:
    with pytest.raises(StaleVersion):
        require_match(header, 3)
