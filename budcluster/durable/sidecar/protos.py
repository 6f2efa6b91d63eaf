"""The one door to the SDK's private protocol messages.

The Dapr Python SDK 1.19.0 keeps its generated protocol in a private package, and a second copy of the same messages
cannot be loaded into one process ("duplicate symbol 'OrchestrationStatus'"). So this module imports theirs, the version
is pinned exactly, and a contract test fails loudly when an upgrade moves or changes them.
"""

from dapr.ext.workflow._durabletask.internal import orchestrator_service_pb2_grpc as rpc
from dapr.ext.workflow._durabletask.internal import protos as pb
from google.protobuf.empty_pb2 import Empty
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import StringValue

RUNNING = pb.ORCHESTRATION_STATUS_RUNNING
COMPLETED = pb.ORCHESTRATION_STATUS_COMPLETED
CONTINUED_AS_NEW = pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW
FAILED = pb.ORCHESTRATION_STATUS_FAILED
TERMINATED = pb.ORCHESTRATION_STATUS_TERMINATED
PENDING = pb.ORCHESTRATION_STATUS_PENDING
SUSPENDED = pb.ORCHESTRATION_STATUS_SUSPENDED
STALLED = pb.ORCHESTRATION_STATUS_STALLED

TERMINAL = frozenset({COMPLETED, FAILED, TERMINATED})

NEVER_FIRES = Timestamp(seconds=253402300799, nanos=999999999)
"""fireAt of the timer that stands for a wait without a limit (SDK 1.19.0, `internal/timer.py`): never scheduled."""

STATEFUL_HISTORY = pb.WORKER_CAPABILITY_STATEFUL_HISTORY

__all__ = [
    "COMPLETED",
    "CONTINUED_AS_NEW",
    "FAILED",
    "NEVER_FIRES",
    "PENDING",
    "RUNNING",
    "STALLED",
    "STATEFUL_HISTORY",
    "SUSPENDED",
    "TERMINAL",
    "TERMINATED",
    "Empty",
    "StringValue",
    "Timestamp",
    "pb",
    "rpc",
]
