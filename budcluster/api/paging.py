"""Lists: filters, sort and keyset paging with a cursor that fits only the list it was given out for.

A list declares its query as a subclass of `PageQuery` with its filters and sorts, and itself as a `Listing`:

    class ClusterQuery(PageQuery):
        status: list[ClusterStatus] | None = Field(None, max_length=8)
        sort: Literal["created_at", "-created_at", "name", "-name"] = "-created_at"

    CLUSTERS = Listing(Cluster, key=Cluster.id, sorts={"created_at": Cluster.created_at, "name": Cluster.name},
                       filters={"status": Cluster.status}, labels=Cluster.labels)

    page = await CLUSTERS.page(session, query)

Pages are stable while rows come and go: a page begins after the last row seen, not at an offset.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Generic, TypeVar
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from sqlalchemy import Select, literal, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, QueryableAttribute

from budcluster.api.errors import InvalidCursor
from budcluster.kit.database import ReadSession


def _check_label(value: str) -> str:
    key, colon, _ = value.partition(":")
    if not colon or not key:
        raise ValueError("must be key:value")
    return value


class PageQuery(BaseModel):
    """What every list takes. Subclasses add their filters and narrow `sort`; unknown parameters are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int = Field(50, ge=1, le=500, description="Rows on a page.")
    cursor: str | None = Field(None, max_length=1024, description="`next_cursor` of the page before.")
    sort: str = Field("-created_at", max_length=64, description="Field to sort by; a leading minus sorts downwards.")


class LabelledPageQuery(PageQuery):
    """A list that filters by labels, too."""

    label: list[Annotated[str, Field(max_length=400), AfterValidator(_check_label)]] | None = Field(
        None, max_length=16, description="`key:value`; every one given must match.", examples=[["team:search"]]
    )


RowT = TypeVar("RowT")


@dataclass(frozen=True)
class Rows(Generic[RowT]):
    """One page of rows. Has the shape of `schemas.Page`."""

    items: Sequence[RowT]
    next_cursor: str | None


@dataclass(frozen=True)
class Listing(Generic[RowT]):
    """How one table is listed. Columns to sort by must not be null; `key` breaks ties and must be unique."""

    entity: type[RowT]
    key: InstrumentedAttribute[UUID]
    sorts: Mapping[str, InstrumentedAttribute[Any]]
    filters: Mapping[str, InstrumentedAttribute[Any]]
    labels: QueryableAttribute[Any] | None = None

    async def page(self, session: ReadSession, query: PageQuery, statement: Select[RowT] | None = None) -> Rows[RowT]:
        """The rows that `query` asks for, out of `statement` (default: the whole table). Raises InvalidCursor."""
        chosen = self._filtered(select(self.entity) if statement is None else statement, query)
        downwards = query.sort.startswith("-")
        column = self.sorts[query.sort.removeprefix("-")]
        binding = self._binding(query)
        if query.cursor is not None:
            value, key = _read_cursor(query.cursor, binding, column.type.python_type)
            place = tuple_(column, self.key)
            last = tuple_(literal(value, column.type), literal(key, self.key.type))
            chosen = chosen.where(place < last if downwards else place > last)
        order = (column.desc(), self.key.desc()) if downwards else (column.asc(), self.key.asc())
        rows = (await session.scalars(chosen.order_by(*order).limit(query.limit + 1))).all()
        if len(rows) <= query.limit:
            return Rows(rows, None)
        rows = rows[: query.limit]
        last_value, last_key = getattr(rows[-1], column.key), getattr(rows[-1], self.key.key)
        return Rows(rows, _write_cursor(last_value, last_key, binding))

    def _filtered(self, statement: Select[RowT], query: PageQuery) -> Select[RowT]:
        for name, column in self.filters.items():
            wanted = getattr(query, name)
            if isinstance(wanted, list):
                statement = statement.where(column.in_(wanted))
            elif wanted is not None:
                statement = statement.where(column == wanted)
        labels = getattr(query, "label", None)
        if labels and self.labels is not None:
            pairs = (label.partition(":") for label in labels)
            statement = statement.where(self.labels.op("@>")({key: value for key, _, value in pairs}))
        return statement

    def _binding(self, query: PageQuery) -> str:
        """Names this list, its filters and its sort: a cursor of another one is foreign here."""
        filters = query.model_dump(mode="json", exclude={"limit", "cursor"})
        return json.dumps([self.entity.__name__, filters], sort_keys=True)


def _write_cursor(value: Any, key: UUID, binding: str) -> str:
    text = value.isoformat() if isinstance(value, datetime) else value
    payload = json.dumps([text, str(key)], separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(_check(payload, binding) + payload).decode().rstrip("=")


def _read_cursor(cursor: str, binding: str, kind: type[Any]) -> tuple[Any, UUID]:
    try:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        check, payload = raw[:_CHECK_BYTES], raw[_CHECK_BYTES:]
        if check != _check(payload, binding):
            raise InvalidCursor
        text, key = json.loads(payload)
        value = datetime.fromisoformat(text) if issubclass(kind, datetime) else kind(text)
        return value, UUID(key)
    except (ValueError, TypeError, binascii.Error, RecursionError):
        raise InvalidCursor from None


_CHECK_BYTES: Final = 8


def _check(payload: bytes, binding: str) -> bytes:
    # A checksum, no signature: a cursor says where to go on reading, and who may read it all may choose any place.
    return hashlib.blake2b(payload, digest_size=_CHECK_BYTES, key=hashlib.sha256(binding.encode()).digest()).digest()
