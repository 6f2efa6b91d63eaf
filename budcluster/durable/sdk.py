"""The Dapr SDK, set up for one address: its objects read process-wide settings when they are made.

Importing this module imports grpc and dapr, which takes most of a second.
"""

import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import Any, Final

import dapr.ext.workflow as wf
from dapr.conf import settings

from budcluster.durable.backend import Address
from budcluster.durable.context import Retry

_CALL_TIMEOUT_S: Final = 30
_LOGGERS: Final = (
    "WorkflowRuntime",
    "DaprWorkflowClient",
    "DaprWorkflowContext",
    "durabletask-worker",
    "durabletask-client",
)
_making = threading.Lock()


@contextlib.contextmanager
def address_of(address: Address) -> Iterator[wf.logger.LoggerOptions]:
    """Objects of the SDK that are made in here talk to `address`; gives the logger options for them.

    Calls get a deadline of 30 seconds, unless the environment sets one; waiting for an instance is exempt.
    """
    wanted = {"DAPR_GRPC_ENDPOINT": address.endpoint, "DAPR_API_TOKEN": address.token}
    if settings.DAPR_API_TIMEOUT_SECONDS is None:
        vars(settings)["DAPR_API_TIMEOUT_SECONDS"] = _CALL_TIMEOUT_S
    with _making:
        before = {name: vars(settings)[name] for name in wanted if name in vars(settings)}
        vars(settings).update(wanted)
        try:
            yield _quiet_loggers()
        finally:
            for name in wanted:
                del vars(settings)[name]
            vars(settings).update(before)


def _quiet_loggers() -> wf.logger.LoggerOptions:
    """The SDK writes a line a turn; its errors go the way of all log lines, the rest is dropped."""
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    return wf.logger.LoggerOptions(log_level="ERROR", log_handler=logging.NullHandler())


class DaprContext:
    """`Context` on the SDK's own context."""

    failures: tuple[type[BaseException], ...] = (wf.TaskFailedError,)

    def __init__(self, inner: wf.DaprWorkflowContext) -> None:
        self._inner = inner

    def is_patched(self, name: str) -> bool:
        return bool(self._inner.is_patched(name))

    def call_activity(self, name: str, payload: Any, retry: Retry) -> Any:
        return self._inner.call_activity(name, input=payload, retry_policy=_policy(retry))


def _policy(retry: Retry) -> wf.RetryPolicy | None:
    if retry.attempts == 1:
        return None
    # max_retry_interval always, retry_timeout never: together they stop retrying too early (dapr/dapr#9139).
    return wf.RetryPolicy(
        first_retry_interval=retry.first_pause,
        max_number_of_attempts=retry.attempts,
        backoff_coefficient=retry.factor,
        max_retry_interval=retry.longest_pause,
    )
