"""Deployments are looked at when they are due, and none waits for another."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import UUID, uuid4

from budcluster.deployment.watching.rota import Rota
from tests.deployment.live import until

HANGING, QUICK = uuid4(), uuid4()


@contextlib.asynccontextmanager
async def at_work(rota: Rota, look: Callable[[UUID], Awaitable[None]]) -> AsyncIterator[None]:
    task = asyncio.create_task(rota.run(look))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def at(looks: list[UUID]) -> Callable[[], Awaitable[int]]:
    async def count() -> int:
        return len(looks)

    return count


async def test_one_that_hangs_holds_up_no_other_and_is_looked_at_by_one_look_at_a_time() -> None:
    release, quick = asyncio.Event(), asyncio.Event()
    hanging: list[UUID] = []

    async def look(deployment_id: UUID) -> None:
        if deployment_id == QUICK:
            quick.set()
            return
        hanging.append(deployment_id)
        await release.wait()

    rota = Rota()
    async with at_work(rota, look):
        rota.mark(HANGING, after_s=0)
        await until(at(hanging), lambda looks: looks == 1)
        rota.mark(HANGING, after_s=0)  # it changed meanwhile
        rota.mark(QUICK, after_s=0)
        await asyncio.wait_for(quick.wait(), 10)
        assert hanging == [HANGING]
        release.set()
        await until(at(hanging), lambda looks: looks == 2)


async def test_hundreds_are_looked_at_in_turn_with_few_at_once() -> None:
    many = {uuid4() for _ in range(200)}
    seen: list[UUID] = []
    present, most = 0, 0

    async def look(deployment_id: UUID) -> None:
        nonlocal present, most
        present += 1
        most = max(most, present)
        await asyncio.sleep(0)
        present -= 1
        seen.append(deployment_id)

    rota = Rota()
    for one in many:
        rota.mark(one, after_s=0)
    async with at_work(rota, look):
        await until(at(seen), lambda looks: looks == len(many))
    assert set(seen) == many
    assert 1 < most <= 16
