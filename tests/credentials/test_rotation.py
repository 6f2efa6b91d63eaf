"""Key rotation: complete, safe beside writers, taken up again after a kill, and proven."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, text

from budcluster.config import PROJECT_ROOT
from budcluster.credentials import repository
from budcluster.credentials.errors import KeyUnusable, RotationRunning, UnknownKey
from budcluster.credentials.keys import write_key
from budcluster.credentials.models import Credential, CredentialPurpose
from budcluster.credentials.registry import sealed_places
from budcluster.credentials.ring import KeyRing
from budcluster.credentials.rotation import Progress, Rotation, _store, key_status, rotate
from budcluster.credentials.vault import Vault
from budcluster.kit.database import Database
from budcluster.kit.sealed import Sealed
from budcluster.tables import METADATA
from tests.fixtures.keys import RsaPems
from tests.waiting import until_true

PLACES = sealed_places(METADATA)


@pytest.fixture(autouse=True)
def waiting_key(ring: KeyRing, rsa_pems: RsaPems) -> None:
    """The next key lies ready, so that no test waits a second for a new one."""
    write_key(ring.next_path, rsa_pems[1])


async def add(database: Database, vault: Vault, count: int, *, prefix: str = "row") -> list[UUID]:
    made = [uuid4() for _ in range(count)]
    async with database.writing() as session:
        for number, identity in enumerate(made):
            session.add(
                Credential(
                    id=identity,
                    name=f"{prefix}-{number}",
                    purpose=CredentialPurpose.REGISTRY,
                    secret=vault.seal(f"secret {identity}".encode(), repository.owner_of(identity)),
                    fingerprint=uuid4().hex,
                )
            )
    return made


async def opened(database: Database, ring: KeyRing, row: UUID) -> None:
    async with database.reading() as session:
        sealed = (await repository.get_credential(session, row)).secret
    secret = await Vault(ring, database).open_(sealed, repository.owner_of(row), operation="check")
    assert secret.text() == f"secret {row}"


async def all_open(database: Database, ring: KeyRing) -> int:
    async with database.reading() as session:
        rows = (await session.scalars(select(Credential.id))).all()
    for row in rows:
        await opened(database, ring, row)
    return len(rows)


def test_every_sealed_column_is_known() -> None:
    assert {"clusters.kubeconfig_encrypted", "credentials.secret"} <= {place.name for place in PLACES}


async def test_everything_is_wrapped_again_and_the_old_key_is_proven_unused(
    database: Database, ring: KeyRing, key_folder: Path
) -> None:
    await add(database, Vault(ring, database), 70)
    before = await key_status(database, ring, PLACES)
    assert before.envelopes == {before.current: 70}
    steps: list[Progress] = []

    rotation = await rotate(database, ring, PLACES, on_progress=steps.append)

    assert rotation.is_complete
    assert (rotation.rewrapped, rotation.key) == (70, before.next)
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    assert (steps[0], steps[-1]) == (Progress(0, 70), Progress(70, 70))
    after = await key_status(database, ring, PLACES)
    assert (after.current, after.next, after.envelopes) == (before.next, None, {before.next: 70})
    assert after.retired == after.removable == [before.current]
    ring.retired_path(before.current).unlink()
    assert await all_open(database, KeyRing(ring.rsa_path, ring.symmetric_path)) == 70
    assert {path.stat().st_mode & 0o777 for path in key_folder.iterdir()} == {0o600}


async def test_neither_versions_nor_times_of_rows_change(database: Database, ring: KeyRing) -> None:
    await add(database, Vault(ring, database), 3)
    query = select(Credential.id, Credential.version, Credential.updated_at).order_by(Credential.id)
    async with database.reading() as session:
        before = (await session.execute(query)).all()
    await rotate(database, ring, PLACES)
    async with database.reading() as session:
        assert (await session.execute(query)).all() == before


async def test_writers_and_readers_go_on_while_keys_rotate(database: Database, ring: KeyRing) -> None:
    old = ring.sealing_key().name
    early = await add(database, Vault(ring, database), 120)
    replica = KeyRing(ring.rsa_path, ring.symmetric_path)
    replica.check()
    rotating = asyncio.create_task(rotate(database, ring, PLACES))
    rounds = 0
    while not rotating.done():
        (fresh,) = await add(database, Vault(replica, database), 1, prefix=f"meanwhile-{rounds}")
        for row in (fresh, early[rounds % 120]):
            await opened(database, replica, row)
        rounds += 1
    rotation = await rotating
    assert rotation.is_complete
    assert rounds > 1
    assert replica.sealing_key().name == rotation.key != old
    assert await all_open(database, ring) == 120 + rounds


async def test_a_row_that_somebody_holds_is_done_when_it_is_free(database: Database, ring: KeyRing) -> None:
    held, _ = await add(database, Vault(ring, database), 2)
    waiting = asyncio.Event()
    steps: list[Progress] = []

    def note(progress: Progress) -> None:
        steps.append(progress)
        if progress.done == 1:
            waiting.set()

    async with database.writing() as session:
        await repository.lock_credential(session, held)
        rotating = asyncio.create_task(rotate(database, ring, PLACES, on_progress=note))
        await asyncio.wait_for(waiting.wait(), 20)
        assert not rotating.done()
    rotation = await asyncio.wait_for(rotating, 20)
    assert (rotation.is_complete, rotation.rewrapped) == (True, 2)


async def test_a_row_that_changed_meanwhile_keeps_the_change(database: Database, ring: KeyRing) -> None:
    vault = Vault(ring, database)
    (row,) = await add(database, vault, 1)
    (place,) = [place for place in PLACES if place.name == "credentials.secret"]
    async with database.writing() as session:
        credential = await repository.lock_credential(session, row)
        before, newer = credential.secret, vault.seal(b"newer", repository.owner_of(row))
        credential.secret = newer
    assert await _store(database, place, [(row, before, Sealed(b"wrapped again"))]) == 0
    async with database.reading() as session:
        assert (await repository.get_credential(session, row)).secret == newer
    assert await _store(database, place, [(row, newer, before)]) == 1


async def test_rows_that_cannot_be_wrapped_again_are_named_and_do_not_stop_the_others(
    database: Database, ring: KeyRing
) -> None:
    damaged, _, _ = await add(database, Vault(ring, database), 3)
    async with database.writing() as session:
        await session.execute(
            text("update credentials set secret = set_byte(secret, 100, 255 - get_byte(secret, 100)) where id = :id"),
            {"id": damaged},
        )
    rotation = await rotate(database, ring, PLACES)
    assert not rotation.is_complete
    assert rotation.rewrapped == 2
    assert sum(rotation.remaining.values()) == 1
    assert rotation.refused == {f"credentials.secret {damaged}": "tampered"}


async def test_only_one_rotates_at_a_time(database: Database, ring: KeyRing) -> None:
    (held,) = await add(database, Vault(ring, database), 1)
    async with database.writing() as session:
        await repository.lock_credential(session, held)  # so that the first one is at work while the others come
        rotating = [asyncio.create_task(rotate(database, ring, PLACES)) for _ in range(3)]
        await until_true(lambda: sum(task.done() for task in rotating) == 2)
    results = await asyncio.gather(*rotating, return_exceptions=True)
    assert [type(result) for result in results].count(RotationRunning) == 2


async def test_a_folder_that_cannot_be_written_is_said_before_anything_is_changed(
    database: Database, ring: KeyRing
) -> None:
    ring.next_path.unlink()
    ring.next_path.symlink_to(ring.rsa_path.parent / "no-such-folder" / "key")
    before = ring.sealing_key().name
    with pytest.raises(KeyUnusable):
        await rotate(database, ring, PLACES)
    assert KeyRing(ring.rsa_path, ring.symmetric_path).sealing_key().name == before


async def test_a_backup_without_the_keys_opens_nothing(database: Database, ring: KeyRing, tmp_path: Path) -> None:
    (row,) = await add(database, Vault(ring, database), 1)
    thief = KeyRing(tmp_path / "rsa.pem", ring.symmetric_path)
    write_key(thief.rsa_path, ring.next_path.read_bytes())
    async with database.reading() as session:
        stolen = (await repository.get_credential(session, row)).secret
    with pytest.raises(UnknownKey):
        await Vault(thief, database).open_(stolen, repository.owner_of(row), operation="theft")


ROTATE = """
import asyncio, sys
from pathlib import Path
from sqlalchemy.engine import make_url
from budcluster.credentials.registry import sealed_places
from budcluster.credentials.ring import KeyRing
from budcluster.credentials.rotation import rotate
from budcluster.kit.database import Database
from budcluster.tables import METADATA

async def main(url, rsa, symmetric):
    database = Database(make_url(url).set(drivername="postgresql+asyncpg"))
    def tell(progress):
        print("done", progress.done, flush=True)
        sys.stdin.readline()  # not a batch further than it is let
    await rotate(database, KeyRing(Path(rsa), Path(symmetric)), sealed_places(METADATA), on_progress=tell)
    await database.close()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kills", [3])
async def test_a_rotation_that_is_killed_is_taken_up_by_running_it_again(
    database: Database, database_url: str, ring: KeyRing, kills: int
) -> None:
    await add(database, Vault(ring, database), 400)
    old = ring.sealing_key().name
    arguments = [database_url, str(ring.rsa_path), str(ring.symmetric_path)]
    for _ in range(kills):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", ROTATE, *arguments, cwd=PROJECT_ROOT,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        begun = None
        while line := await process.stdout.readline():
            if not line.startswith(b"done "):
                continue
            process.stdin.write(b"\n")
            done = int(line.split()[1])
            begun = done if begun is None else begun
            if done > begun:
                os.kill(process.pid, signal.SIGKILL)
                break
        assert await process.wait() == -signal.SIGKILL
    half = await key_status(database, ring, PLACES)
    assert (half.retired, half.next) == ([old], None)
    assert 0 < half.unfinished < 400

    rotation = await finish(database, ring)
    assert rotation.is_complete
    assert rotation.rewrapped == half.unfinished
    assert rotation.key == half.current != old
    assert await all_open(database, ring) == 400


async def finish(database: Database, ring: KeyRing) -> Rotation:
    """Run it again as soon as the database has noticed that the killed one is gone."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await rotate(database, ring, PLACES)
            except RotationRunning:
                await asyncio.sleep(0.05)
