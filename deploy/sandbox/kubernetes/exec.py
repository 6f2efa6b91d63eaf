"""`kubectl exec` over websockets: channels 1 and 2 carry output, 3 the final status (v5 and v4.channel.k8s.io)."""

import orjson

from sandbox.kubernetes.contracts import ExecResult, Kubelets
from sandbox.kubernetes.errors import ApiError
from sandbox.kubernetes.http import Receive, Request, Send
from sandbox.kubernetes.routing import Target
from sandbox.kubernetes.store import Store
from sandbox.kubernetes.subresources import container_of

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_STDOUT, _STDERR, _STATUS = b"\x01", b"\x02", b"\x03"
_FRAME_BYTES = 32 * 1024


async def serve_exec(
    request: Request, target: Target, receive: Receive, send: Send, *, store: Store, kubelets: Kubelets
) -> None:
    """Run the command the query names and send what it wrote. Raises ApiError before the socket is accepted."""
    pod = store.get("Pod", target.namespace, target.name)
    container = container_of(pod, request.query.get("container"))
    command = [value for name, value in request.pairs if name == "command"]
    offered = request.scope.get("subprotocols") or []
    protocol = next((name for name in PROTOCOLS if name in offered), None)
    await receive()
    await send({"type": "websocket.accept", "subprotocol": protocol})
    try:
        result = await kubelets.exec(pod, container=container, command=command)
        status = _status(result)
    except ApiError as error:
        result, status = ExecResult(), orjson.dumps(error.status())
    for channel, text in ((_STDOUT, result.stdout), (_STDERR, result.stderr)):
        for start in range(0, len(text), _FRAME_BYTES):
            await send({"type": "websocket.send", "bytes": channel + text[start : start + _FRAME_BYTES]})
    await send({"type": "websocket.send", "bytes": _STATUS + status})
    await send({"type": "websocket.close", "code": 1000})


async def refuse(error: ApiError, receive: Receive, send: Send, *, can_answer: bool) -> None:
    """Answer a websocket handshake with an HTTP error, or with a bare 403 where the server cannot do better."""
    await receive()
    if not can_answer:
        await send({"type": "websocket.close", "code": 1008})
        return
    headers = [(b"content-type", b"application/json")]
    await send({"type": "websocket.http.response.start", "status": error.code, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": orjson.dumps(error.status())})


def _status(result: ExecResult) -> bytes:
    if result.code == 0:
        return orjson.dumps({"metadata": {}, "status": "Success"})
    return orjson.dumps(
        {
            "metadata": {},
            "status": "Failure",
            "message": f"command terminated with non-zero exit code: command terminated with exit code {result.code}",
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": str(result.code)}]},
        }
    )
