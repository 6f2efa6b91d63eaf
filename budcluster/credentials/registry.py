"""Every place of sealed secrets, found from the tables themselves: rotation and the canary test share this list."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, MetaData, Table, func

from budcluster.credentials.envelope import FINGERPRINT_AT, MAGIC
from budcluster.credentials.keys import FINGERPRINT_BYTES
from budcluster.kit.sealed import SealedColumn


@dataclass(frozen=True)
class SealedPlace:
    """One column of sealed secrets."""

    table: Table
    column: str
    key: str
    """The table's primary key."""

    @property
    def name(self) -> str:
        """`table.column`: how an `Owner` names it."""
        return f"{self.table.name}.{self.column}"

    def is_envelope(self) -> ColumnElement[bool]:
        """SQL: holds a secret that an RSA key opens. Bulk data in the same kind of column does not."""
        return func.substring(self.table.c[self.column], 1, len(MAGIC)).op("=")(MAGIC)

    def fingerprint(self) -> ColumnElement[Any]:
        """SQL: the RSA key's fingerprint out of the envelope."""
        return func.substring(self.table.c[self.column], FINGERPRINT_AT + 1, FINGERPRINT_BYTES)


def sealed_places(metadata: MetaData) -> list[SealedPlace]:
    """All columns of sealed secrets, by name."""
    return sorted(_places(metadata.tables.values()), key=lambda place: place.name)


def _places(tables: Iterable[Table]) -> Iterable[SealedPlace]:
    for table in tables:
        for column in table.columns:
            if isinstance(column.type, SealedColumn):
                (key,) = table.primary_key.columns
                yield SealedPlace(table, column.name, key.name)
