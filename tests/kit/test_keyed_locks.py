"""Locks by key."""

import asyncio

from budcluster.kit.keyed_locks import KeyedLocks


async def test_one_task_at_a_time_works_on_a_key_and_others_are_not_held_up() -> None:
    locks: KeyedLocks[str] = KeyedLocks()
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
    assert most == {"a": 1, "b": 1}
    assert len(locks._locks) == 0
