"""What survives when replicas are killed, frozen or kill themselves: real processes, real signals."""

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor

import asyncpg
import dapr.ext.workflow as wf
import pytest

from tests.durable.faults.conftest import Site
from tests.waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_only_the_activity_in_hand_is_repeated_when_the_process_is_killed_within_it(site: Site) -> None:
    held = site.hold(3)
    first = site.replica()
    site.start("steps", 4, instance_id="a")
    site.until_begun("a", 3)
    first.kill()
    site.replica()
    began = time.monotonic()
    site.until_begun("a", 3, times=2)
    assert time.monotonic() - began < 10
    held.unlink()
    assert site.completed("a")
    assert site.count("begin") == {"a/1": 1, "a/2": 1, "a/3": 2, "a/4": 1}


def test_a_timer_that_fell_due_while_nobody_lived_fires_at_once(site: Site) -> None:
    first = site.replica()
    site.start("timer_then_step", 6.0, instance_id="t")
    due = time.monotonic() + 6.0
    site.client.wait_for_workflow_start("t", timeout_in_seconds=10)
    first.kill()
    assert time.monotonic() < due
    eventually(lambda: time.monotonic() > due + 0.5)
    site.replica()
    began = time.monotonic()
    assert site.completed("t")
    assert time.monotonic() - began < 5
    assert site.count("begin") == {"t/1": 1}


def test_a_workflow_between_two_turns_goes_on_in_another_process(site: Site) -> None:
    first = site.replica()
    site.start("waits", instance_id="w")
    eventually(lambda: len(site.client.get_workflow_history("w")) >= 4)
    first.kill()
    site.client.raise_workflow_event("w", "go", data={"on": True})
    site.replica()
    assert json.loads(site.ended("w").serialized_output) is True


async def test_a_process_killed_during_its_commit_leaves_all_of_the_turn_or_nothing(site: Site) -> None:
    held = site.hold(2)
    first = site.replica()
    site.start("steps", 3, instance_id="c")
    site.until_begun("c", 2)
    blocker = await asyncpg.connect(site.url)
    transaction = blocker.transaction()
    await transaction.start()
    await blocker.execute("select from wf_instances where instance_id = 'c' for update")
    held.unlink()
    waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '%wf_instances%'"
    watcher = await asyncpg.connect(site.url)
    async with asyncio.timeout(10):
        while not await watcher.fetchval(waiting):
            pass
    first.kill()
    await transaction.rollback()
    await blocker.close()
    await watcher.close()
    site.replica()
    assert site.completed("c")
    begun = site.count("begin")
    assert begun["c/1"] == begun["c/3"] == 1
    assert begun["c/2"] <= 2


def test_nothing_is_lost_and_little_repeated_when_the_only_replica_is_killed_again_and_again(site: Site) -> None:
    ids = [f"k{number}" for number in range(60)]
    replica = site.replica()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda id_: site.start("steps", 3, instance_id=id_), ids))
    kills = 0
    for wanted in (20, 60, 100, 140):
        eventually(lambda wanted=wanted: sum(site.count("end").values()) >= wanted, within_s=30)
        replica.kill()
        kills += 1
        replica = site.replica()
    assert all(site.completed(id_) for id_ in ids)
    ended = site.count("end")
    lost = [f"{id_}/{number}" for id_ in ids for number in (1, 2, 3) if not ended[f"{id_}/{number}"]]
    repeated = sum(site.count("begin").values()) - 180
    assert lost == []
    assert repeated <= kills * 64
    print(f"instances 60, activities 180, kills {kills}, lost 0, repeated {repeated}")  # noqa: T201 - the crash matrix


@pytest.mark.parametrize("kill_one", [False, True], ids=["both-live", "one-killed"])
def test_two_replicas_share_the_work_and_one_takes_over_from_the_other(site: Site, kill_one: bool) -> None:
    replicas = [site.replica(limits={"turns_in_flight": 16, "activities_in_flight": 16}) for _ in range(2)]
    ids = [f"s{number}" for number in range(300)]
    with ThreadPoolExecutor(16) as pool:
        starts = pool.map(lambda id_: site.start("steps", 3, instance_id=id_), ids)
        if kill_one:
            eventually(lambda: sum(site.count("end").values()) >= 200, within_s=60)
            replicas[0].kill()
        list(starts)
    assert all(site.completed(id_) for id_ in ids)
    ended = site.count("end")
    assert all(ended[f"{id_}/{number}"] for id_ in ids for number in (1, 2, 3))
    repeated = sum(site.count("begin").values()) - 900
    share = sorted(
        sum(line[0] == "end" and line[3] == pid for line in site.journal())
        for pid in {line[3] for line in site.journal()}
    )
    print(f"instances 300, activities 900, lost 0, repeated {repeated}, share {share}")  # noqa: T201 - the crash matrix
    assert len(share) == 2
    assert repeated <= (32 if kill_one else 0)


async def test_a_frozen_replica_that_wakes_up_cannot_apply_its_guarded_write_again(site: Site) -> None:
    connection = await asyncpg.connect(site.url)
    await connection.execute("create table effects (execution_id text primary key)")
    options = {"effects": True, "limits": {"silence": 3}}
    held = site.hold(2)
    frozen = site.replica(**options)
    site.start("steps", 3, instance_id="f")
    site.until_begun("f", 2)
    frozen.freeze()
    site.replica(**options)
    site.until_begun("f", 2, times=2)
    held.unlink()
    assert site.completed("f")
    frozen.thaw()
    eventually(lambda: site.count("end")["f/2"] == 2)
    assert site.count("effect") == {"f/1": 1, "f/2": 1, "f/3": 1}
    assert site.count("refused") == {"f/2": 1}
    assert await connection.fetchval("select count(*) from effects") == 3
    await connection.close()
    # The one that woke up takes work again, under a new name.
    for replica in site.replicas:
        if replica is not frozen:
            replica.kill()
    site.start("steps", 1, instance_id="g")
    assert site.completed("g")


def test_an_activity_that_kills_its_process_is_given_up_after_a_few_deliveries(site: Site) -> None:
    site.start("deadly", instance_id="d")
    for _ in range(3):
        replica = site.replica(limits={"deliveries": 3})
        eventually(replica.ended, within_s=30)
    site.replica(limits={"deliveries": 3})
    state = site.ended("d")
    assert state.runtime_status == wf.WorkflowStatus.FAILED
    assert "was handed to a worker 3 times and never finished" in state.failure_details.message
    assert site.count("begin") == {"d/die": 3}


def test_a_thousand_waiting_workflows_survive_a_kill_and_all_get_their_event(site: Site) -> None:
    ids = [f"m{number}" for number in range(1000)]
    first = site.replica()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda id_: site.start("waits", instance_id=id_), ids))
        list(pool.map(lambda id_: site.client.wait_for_workflow_start(id_, timeout_in_seconds=60), ids))
        first.kill()
        site.replica()
        list(pool.map(lambda id_: site.client.raise_workflow_event(id_, "go", data={"on": 1}), ids))
        assert all(pool.map(site.completed, ids))
