"""Sealing and opening, the only way to a secret's content."""

import asyncio
from collections import OrderedDict
from typing import Any, Final

import structlog

from budcluster.audit import services as audit
from budcluster.audit.services import Outcome
from budcluster.credentials import envelope
from budcluster.credentials.envelope import Owner
from budcluster.credentials.errors import SealedSecretRefused
from budcluster.credentials.ring import KeyRing
from budcluster.kit.database import Database
from budcluster.kit.sealed import Sealed

log = structlog.get_logger(__name__)

_REMEMBERED: Final = 4096
"""Audited openings that one process remembers, so that an operation which reads often asks the database once."""


class Secret:
    """An opened secret. `repr`, `str` and formatting show `***`; it cannot be pickled or serialised by accident."""

    __slots__ = ("_content",)

    def __init__(self, content: bytes) -> None:
        self._content = content

    def reveal(self) -> bytes:
        """The content. Call it where it is used, and keep the result nowhere."""
        return self._content

    def text(self) -> str:
        """The content as UTF-8 text."""
        return self._content.decode()

    def __len__(self) -> int:
        return len(self._content)

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __format__(self, specification: str) -> str:
        return repr(self)

    def __reduce__(self) -> Any:
        raise TypeError("an opened secret is not pickled")


class Vault:
    """Seals and opens. One per process."""

    def __init__(self, ring: KeyRing, database: Database) -> None:
        self._ring = ring
        self._database = database
        self._audited: OrderedDict[str, None] = OrderedDict()

    def seal(self, plaintext: bytes, owner: Owner) -> Sealed:
        """The secret for its place in the database. Below a millisecond. Raises KeyUnusable, TooLarge."""
        return Sealed(envelope.seal(plaintext, owner, self._ring.sealing_key()))

    async def open_(self, sealed: Sealed, owner: Owner, *, operation: str, actor: str = audit.SYSTEM) -> Secret:
        """The secret, after the audit trail knows of it: once per `operation`, however often it is opened in that.

        `operation` is an operation's id or names standing work such as `inventory`; at most 100 characters. Opens a
        session of its own for the trail; call it outside of others.

        Raises NotAnEnvelope, UnknownKey, Tampered, WrongOwner, KeyUnusable and DatabaseUnavailable.
        """
        try:
            content = await asyncio.to_thread(self._unseal, sealed.envelope(), owner)
        except SealedSecretRefused as error:
            log.warning("credential.refused", column=owner.column, row=str(owner.row), problem=error.slug())
            await self._note(owner, operation, actor, Outcome.REFUSED, {"problem": error.slug()})
            raise
        await self._note(owner, operation, actor, Outcome.SUCCEEDED, {})
        return Secret(content)

    async def seal_bulk(self, plaintext: bytes, owner: Owner) -> Sealed:
        """Bulk data for its place, at most 64 MiB. Raises KeyUnusable, TooLarge."""
        key = self._ring.symmetric_key()
        return Sealed(await asyncio.to_thread(envelope.seal_bulk, plaintext, owner, key))

    async def open_bulk(self, sealed: Sealed, owner: Owner) -> Secret:
        """The bulk data. Not audited: it is read at every step of long work.

        Raises NotAnEnvelope, UnknownKey, Tampered, WrongOwner and KeyUnusable.
        """
        key = self._ring.symmetric_key()
        return Secret(await asyncio.to_thread(envelope.unseal_bulk, sealed.envelope(), owner, key))

    def fingerprint(self, secret: bytes, label: str) -> str:
        """Keyed hash of a secret, 64 hexadecimal digits: equal secrets are recognised, guesses cannot be tried.

        Raises KeyUnusable.
        """
        return envelope.keyed_hash(self._ring.symmetric_key(), f"secret {label}", secret).hex()

    def _unseal(self, content: bytes, owner: Owner) -> bytes:
        return envelope.unseal(content, owner, self._ring.opening_key(envelope.fingerprint_of(content)))

    async def _note(self, owner: Owner, operation: str, actor: str, outcome: Outcome, facts: dict[str, Any]) -> None:
        once = f"opened {operation} {owner.column} {owner.row} {outcome}"
        if once in self._audited:
            return
        table, _, column = owner.column.partition(".")
        async with self._database.writing() as session:
            await audit.record(
                session,
                actor=actor,
                action="credential.opened",
                subject_type=table.removesuffix("s"),
                subject_id=owner.row,
                outcome=outcome,
                facts={"column": column, "operation": operation, **facts},
                once=once,
            )
        self._audited[once] = None
        if len(self._audited) > _REMEMBERED:
            self._audited.popitem(last=False)
