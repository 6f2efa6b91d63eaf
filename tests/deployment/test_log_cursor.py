"""Places in logs survive the way to the caller and back, and lose or repeat no line."""

import pytest

from budcluster.deployment.logs.cursor import Cursor, Place, Skip, nanoseconds

FIRST, SECOND = "2026-11-24T10:00:00.5Z", "2026-11-24T10:00:00.51Z"


def test_a_cursor_is_the_same_after_the_way_through_text() -> None:
    cursor = Cursor()
    for source, stamp in ((("a-1", "main"), FIRST), (("b-2", "init"), FIRST), (("a-1", "main"), FIRST)):
        cursor.advance(source, stamp)
    assert Cursor.parse(str(cursor)).places == {("b-2", "init"): Place(FIRST, 1), ("a-1", "main"): Place(FIRST, 2)}


@pytest.mark.parametrize("text", ["x", "a/b@yesterday~1", "a/b@2026-99-99T00:00:00Z~1", "../b@2026-11-24T10:00:00Z~x"])
def test_a_text_that_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Cursor.parse(text)


def test_only_so_many_containers_are_remembered_and_the_latest_are() -> None:
    cursor = Cursor()
    for number in range(100):
        cursor.advance((f"pod-{number}", "main"), FIRST)
    assert len(cursor.places) == 64
    assert ("pod-99", "main") in cursor.places


def test_lines_of_the_same_moment_are_counted() -> None:
    skip = Skip(Place(FIRST, 2))
    assert [skip.is_old(stamp) for stamp in ("2026-11-24T09:59:59Z", FIRST, FIRST, FIRST, SECOND)] == [
        True, True, True, False, False,
    ]  # fmt: skip


def test_fractions_of_different_length_are_ordered() -> None:
    assert nanoseconds(FIRST) < nanoseconds(SECOND) < nanoseconds("2026-11-24T10:00:01+00:00")


def test_a_log_is_asked_for_from_before_its_place() -> None:
    assert Place("2026-11-24T10:00:00.123456789+08:00", 1).earlier == "2026-11-24T01:59:59Z"
