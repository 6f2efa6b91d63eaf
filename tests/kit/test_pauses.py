"""Pauses between tries."""

from budcluster.kit.pauses import Pauses


class Tries:
    """Each gets ready for some seconds, and holds for some."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses = Pauses((1.0, 2.0, 5.0), lambda: self.now)

    def pause_after(self, *, held_s: float | None, ready_s: float = 0.0) -> float:
        self.now += ready_s
        if held_s is not None:
            self.pauses.hold()
            self.now += held_s
        return self.pauses.next_s()


def test_pauses_grow_until_a_try_holds_longer_than_the_pause_before_it() -> None:
    tries = Tries()
    assert [tries.pause_after(held_s=held) for held in (0.1, 1.9, 4.9, 5.0, 5.1, 0.1)] == [2.0, 5.0, 5.0, 5.0, 1.0, 2.0]


def test_the_time_that_a_try_takes_to_get_ready_is_not_time_that_it_held() -> None:
    tries = Tries()
    assert [tries.pause_after(held_s=held, ready_s=60.0) for held in (0.1, None, 0.1)] == [2.0, 5.0, 5.0]
