"""Changing the RSA key while the service runs.

1. A new key is put beside the current one (`.next`); one that lies there already is taken.
2. The current file becomes `.retired-<fingerprint>`, the new one becomes current. Both are single renames in one
   folder: at every moment each key that any envelope names is there, and running replicas find it (see `ring`). From
   here on everybody seals with the new key.
3. Every envelope that names another key is wrapped again, in small batches. Rows that somebody holds are left for a
   later pass; rows that changed meanwhile are not touched. Versions and `updated_at` stay.
4. The envelopes are counted by key: the old key is unused when its count is none.

A process that is killed anywhere in between leaves a working service; running the rotation again goes on where it
stopped, for rows that are done name the new key. Secrets themselves are not decrypted. Where the key files are mounted
read-only, add the new key as `.next`, wait until every replica has it, swap the files as in step 2, and rotate.

Only the RSA key rotates. The symmetric key also keys the hashes of API tokens, whose texts nobody has any more, so
changing it means new tokens.
"""

import asyncio
import os
import stat
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import structlog
from sqlalchemy import func, select, text, update

from budcluster.audit import services as audit
from budcluster.credentials import envelope
from budcluster.credentials.errors import KeyUnusable, RotationRunning, SealedSecretRefused
from budcluster.credentials.keys import WrappingKey, load_wrapping_key, new_rsa_pem, sync_folder, write_key
from budcluster.credentials.registry import SealedPlace
from budcluster.credentials.ring import KeyRing
from budcluster.kit.database import Database
from budcluster.kit.sealed import Sealed

log = structlog.get_logger(__name__)

_BATCH: Final = 50
"""Rows loaded at once: a fraction of a second of work, a few hundred kilobytes."""
_PATIENCE_S: Final = 30.0
"""Seconds that rows held by others are waited for: as long as a statement may take."""
_PAUSE_S: Final = 0.2
_LOCK: Final = 0x6B657973
"""Advisory lock of PostgreSQL: one rotation at a time. Ends with its connection, so a killed rotation frees it."""


@dataclass(frozen=True)
class KeyStatus:
    """Which RSA keys there are, and what is sealed with them."""

    current: str
    """Fingerprint, 32 hexadecimal digits."""
    bits: int
    next: str | None
    """Fingerprint of the key that waits beside the current one."""
    retired: list[str]
    """Former keys whose files are still here."""
    envelopes: dict[str, int]
    """Sealed secrets by the fingerprint that they name."""

    @property
    def unfinished(self) -> int:
        """Sealed secrets that name another key than the current one."""
        return sum(count for name, count in self.envelopes.items() if name != self.current)

    @property
    def removable(self) -> list[str]:
        """Retired keys that no sealed secret names: their files may be deleted, once no backup needs them."""
        return [name for name in self.retired if name not in self.envelopes]


@dataclass(frozen=True)
class Progress:
    """How far a rotation is."""

    done: int
    total: int


@dataclass
class Rotation:
    """What a rotation did, and the proof."""

    key: str
    """Fingerprint of the key that is now current."""
    rewrapped: int = 0
    remaining: dict[str, int] = field(default_factory=dict)
    """Sealed secrets that still name another key, by its fingerprint; empty proves that all other keys are unused."""
    refused: dict[str, str] = field(default_factory=dict)
    """Rows that cannot be wrapped again (`table.column id`), with the problem: damaged, or their key is missing."""

    @property
    def is_complete(self) -> bool:
        """Whether no sealed secret names another key."""
        return not self.remaining


OnProgress = Callable[[Progress], None]


async def key_status(database: Database, ring: KeyRing, places: Sequence[SealedPlace]) -> KeyStatus:
    """The present state of keys and sealed secrets. Raises KeyUnusable, DatabaseUnavailable."""
    current = await asyncio.to_thread(load_wrapping_key, ring.rsa_path)
    following = await asyncio.to_thread(load_wrapping_key, ring.next_path) if ring.next_path.exists() else None
    return KeyStatus(
        current=current.name,
        bits=current.bits,
        next=following.name if following else None,
        retired=[path.name.rpartition(".retired-")[2] for path in ring.retired_paths()],
        envelopes=await count_by_key(database, places),
    )


async def count_by_key(database: Database, places: Sequence[SealedPlace]) -> dict[str, int]:
    """Sealed secrets in all places by the fingerprint of the key that they name."""
    counts: dict[str, int] = {}
    async with database.reading() as session:
        for place in places:
            named = func.encode(place.fingerprint(), "hex")
            counted = select(named, func.count()).where(place.is_envelope()).group_by(named)
            for name, count in await session.execute(counted):
                counts[name] = counts.get(name, 0) + count
    return counts


async def rotate(
    database: Database,
    ring: KeyRing,
    places: Sequence[SealedPlace],
    *,
    actor: str = audit.SYSTEM,
    on_progress: OnProgress = lambda _: None,
) -> Rotation:
    """Change the key and wrap everything again; or finish a rotation that was cut off.

    A new key is only made when no `.next` waits and nothing names a former key. Look at `is_complete` of the result.
    Raises RotationRunning, KeyUnusable, DatabaseUnavailable.
    """
    async with _alone(database):
        status = await key_status(database, ring, places)
        if status.next is not None or not status.unfinished:
            await asyncio.to_thread(_switch, ring)
        key = ring.sealing_key()
        log.info("keys.rotation_started", old=status.current, new=key.name)
        rotation = Rotation(key.name)
        await _rewrap_all(database, ring, places, rotation, on_progress)
        async with database.writing() as session:
            await audit.record(
                session,
                actor=actor,
                action="keys.rotated",
                subject_type="key",
                subject_name=key.name,
                outcome=audit.Outcome.SUCCEEDED if rotation.is_complete else audit.Outcome.FAILED,
                facts={"old": status.current, "rewrapped": rotation.rewrapped, "remaining": rotation.remaining},
            )
        log.info("keys.rotated", new=key.name, rewrapped=rotation.rewrapped, remaining=rotation.remaining)
        return rotation


@asynccontextmanager
async def _alone(database: Database) -> AsyncIterator[None]:
    # A connection outside the pool: given back, it would keep the lock; closed, it gives it up.
    async with database.engine.connect() as connection:
        if not (await connection.execute(text("select pg_try_advisory_lock(:key)"), {"key": _LOCK})).scalar():
            raise RotationRunning
        await connection.commit()
        try:
            yield
        finally:
            await connection.invalidate()


def _switch(ring: KeyRing) -> None:
    """Make the key beside the current one the current one, and make it first if there is none. Safe to repeat."""
    current = load_wrapping_key(ring.rsa_path)
    status = ring.rsa_path.stat()
    try:
        if not ring.next_path.exists():
            write_key(ring.next_path, new_rsa_pem(), mode=stat.S_IMODE(status.st_mode))
            _keep_owner(ring, status)
        following = load_wrapping_key(ring.next_path)
        retired = ring.retired_path(current.name)
        if following.fingerprint != current.fingerprint and not retired.exists():
            os.link(ring.rsa_path, retired)
            sync_folder(retired.parent)
        ring.next_path.replace(ring.rsa_path)
        sync_folder(ring.rsa_path.parent)
    except OSError as error:
        raise KeyUnusable(
            ring.next_path,
            f"cannot be put in place ({error.strerror})",
            "rotate where the folder can be written, or swap the files by hand and rotate then",
        ) from error


def _keep_owner(ring: KeyRing, status: os.stat_result) -> None:
    # The service may run as another user than the one who rotates as root.
    if os.geteuid() == 0:
        os.chown(ring.next_path, status.st_uid, status.st_gid)


async def _rewrap_all(
    database: Database, ring: KeyRing, places: Sequence[SealedPlace], rotation: Rotation, on_progress: OnProgress
) -> None:
    """Pass after pass until nothing names another key, or nothing moves for `_PATIENCE_S`."""
    key = ring.sealing_key()
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        rotation.remaining = _others(await count_by_key(database, places), key)
        left = sum(rotation.remaining.values())
        on_progress(Progress(rotation.rewrapped, rotation.rewrapped + left))
        if left <= len(rotation.refused) or time.monotonic() > deadline:
            return
        before = rotation.rewrapped
        for place in places:
            async for done in _rewrap_place(database, ring, place, key, rotation):
                rotation.rewrapped += done
                left = max(left - done, 0)
                on_progress(Progress(rotation.rewrapped, rotation.rewrapped + left))
        if rotation.rewrapped > before:
            deadline = time.monotonic() + _PATIENCE_S
        else:
            await asyncio.sleep(_PAUSE_S)


def _others(counts: dict[str, int], key: WrappingKey) -> dict[str, int]:
    return {name: count for name, count in counts.items() if name != key.name}


async def _rewrap_place(
    database: Database, ring: KeyRing, place: SealedPlace, key: WrappingKey, rotation: Rotation
) -> AsyncIterator[int]:
    """One pass over one column; gives the number of rows done after each batch."""
    row_id, column = place.table.c[place.key], place.table.c[place.column]
    waiting = select(row_id, column).where(place.is_envelope(), place.fingerprint().op("<>")(key.fingerprint))
    last: UUID | None = None
    while True:
        page = waiting if last is None else waiting.where(row_id > last)
        async with database.reading() as session:
            rows = (await session.execute(page.order_by(row_id).limit(_BATCH))).all()
        if not rows:
            return
        last = rows[-1][0]
        changes = []
        for identity, sealed in rows:
            try:
                changes.append((identity, sealed, await asyncio.to_thread(_rewrap, ring, sealed, key)))
            except SealedSecretRefused as error:
                rotation.refused[f"{place.name} {identity}"] = error.slug()
        yield await _store(database, place, changes)


def _rewrap(ring: KeyRing, sealed: Sealed, key: WrappingKey) -> Sealed:
    content = sealed.envelope()
    old = ring.opening_key(envelope.fingerprint_of(content))
    return Sealed(envelope.rewrap(content, old, key))


async def _store(database: Database, place: SealedPlace, changes: list[tuple[Any, Sealed, Sealed]]) -> int:
    """Write what was wrapped again, unless the row is held by somebody or has changed."""
    row_id, column = place.table.c[place.key], place.table.c[place.column]
    done = 0
    async with database.writing() as session:
        for identity, before, after in changes:
            free = select(row_id).where(row_id == identity, column == before).with_for_update(skip_locked=True)
            values: dict[Any, Any] = {column: after}
            if "updated_at" in place.table.c:
                values[place.table.c.updated_at] = place.table.c.updated_at
            changed = update(place.table).where(row_id.in_(free)).values(values).returning(row_id)
            done += len((await session.execute(changed)).all())
    return done
