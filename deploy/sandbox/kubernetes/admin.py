"""The sandbox's own API under /sandbox/: faults, cut watches, forgotten history, and whatever a server adds to it.

`simulation/<name>` makes something go wrong in the simulated world (`simulation.faults`). The API is open to
system:masters alone and no fault strikes it.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from sandbox.kubernetes.cluster import Cluster
from sandbox.kubernetes.errors import BadRequest, MethodNotAllowed, UnknownPath
from sandbox.kubernetes.faults import fault_from
from sandbox.kubernetes.http import Request, Response, json_response
from sandbox.kubernetes.rbac import Attributes, PathForbidden
from sandbox.kubernetes.watch import Watches

Obj = dict[str, Any]
Action = Callable[[Obj], Awaitable[Obj]]


class Admin:
    """Answers requests below /sandbox/. `actions` are POSTs by name; servers and simulations add their own."""

    def __init__(self, cluster: Cluster, watches: Watches) -> None:
        self._cluster = cluster
        self._watches = watches
        self.actions: dict[str, Action] = {
            "watches/cut": self._cut_watches,
            "history/compact": self._compact,
            "token/revoke": self._revoke,
        }

    async def handle(self, request: Request) -> Response:
        """Raises Unauthorized, PathForbidden, UnknownPath, MethodNotAllowed, BadRequest."""
        user = self._cluster.tokens.authenticate(request.headers.get("authorization", ""))
        if not user.is_master:
            raise PathForbidden(user, Attributes(request.method.lower(), path=request.path))
        name = request.path.removeprefix("/sandbox/").strip("/")
        if name.partition("/")[0] == "faults":
            return await self._faults(request, name.partition("/")[2])
        simulated = name.removeprefix("simulation/")
        if simulated != name and request.method == "POST" and self._cluster.simulation:
            self._cluster.simulation.inject(simulated, **await request.object())
            return json_response({})
        if name not in self.actions:
            raise UnknownPath
        if request.method != "POST":
            raise MethodNotAllowed
        return json_response(await self.actions[name](await request.object()))

    async def _faults(self, request: Request, number: str) -> Response:
        faults = self._cluster.faults
        if request.method == "GET":
            return json_response({"faults": faults.listed()})
        if request.method == "POST":
            return json_response({"id": faults.add(fault_from(await request.object()))}, status=201)
        if request.method != "DELETE":
            raise MethodNotAllowed
        if not number:
            faults.clear()
        elif not number.isdigit() or not faults.remove(int(number)):
            raise BadRequest(f"there is no fault number {number}")
        return json_response({})

    async def _cut_watches(self, _: Obj) -> Obj:
        return {"cut": self._watches.cut()}

    async def _compact(self, _: Obj) -> Obj:
        self._cluster.store.history.compact()
        return {"resourceVersion": str(self._cluster.store.resource_version)}

    async def _revoke(self, body: Obj) -> Obj:
        token = body.get("token")
        if not isinstance(token, str):
            raise BadRequest("token must be the bearer token to revoke")
        self._cluster.tokens.revoke_fixed(token)
        return {}
