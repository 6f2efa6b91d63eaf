"""What routes ask for, as annotated types.

    @router.post("/clusters", status_code=201)
    async def register_cluster(body: ClusterRegistration, session: Write, actor: CurrentActor, service: Clusters): ...

with `Clusters = Annotated[ClusterService, provided(ClusterService)]`.
"""

from collections.abc import AsyncIterator
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request

from budcluster.api.edge import Actor, Edge, actor_of
from budcluster.api.transaction import Transaction
from budcluster.kit.clock import Clock
from budcluster.kit.database import Database, ReadSession, WriteSession

ServiceT = TypeVar("ServiceT")


async def _read(request: Request) -> AsyncIterator[ReadSession]:
    async with Edge.of(request).database.reading() as session:
        yield session


async def _write(request: Request) -> WriteSession:
    return await (await _changing(request)).begin()


async def _changing(request: Request) -> Transaction:
    transaction: Transaction = request.state.transaction
    return transaction


async def _actor(request: Request) -> Actor:
    return actor_of(request)


async def _database(request: Request) -> Database:
    return Edge.of(request).database


async def _clock(request: Request) -> Clock:
    return Edge.of(request).clock


Read = Annotated[ReadSession, Depends(_read, scope="function")]
"""A session to look with. Given back before the answer is sent."""

Write = Annotated[WriteSession, Depends(_write)]
"""The request's transaction; only on routers with `route_class=TransactionalRoute`. Flush, never commit."""

Changing = Annotated[Transaction, Depends(_changing)]
"""The same before it begins, for handlers that have slow things to do first; they call its `begin` themselves."""

CurrentActor = Annotated[Actor, Depends(_actor)]
CurrentDatabase = Annotated[Database, Depends(_database)]
"""For handlers that look at something before they begin."""
CurrentClock = Annotated[Clock, Depends(_clock)]


def provided(kind: type[ServiceT]) -> Any:
    """The dependency on a service that `bootstrap` provided for this type."""

    async def find(request: Request) -> ServiceT:
        return Edge.of(request).service(kind)

    return Depends(find)
