"""Locks by key."""

import asyncio

import pytest

from budcluster.kit.keyed_locks import KeyedLocks


@pytest.mark.parametrize("at_once", [1, 2])
async def test_so_many_tasks_at_a_time_work_on_a_key_and_others_are_not_held_up(at_once: int) -> None:
    locks: KeyedLocks[str] = KeyedLocks(at_once=at_once)
    at_work, most, done = {"a": 0, "b": 0}, {"a": 0, "b": 0}, asyncio.Event()

    async def work(key: str) -> None:
        async with locks.hold(key):
            at_work[key] += 1
            most[key] = max(most[key], at_work[key])
            if key == "b":
                done.set()
            await done.wait()  # the one on "a" goes on only once "b" was let in
            at_work[key] -= 1

    await asyncio.gather(*(work(key) for key in "aaab"))
    assert most == {"a": at_once, "b": 1}
    assert len(locks._locks) == 0
