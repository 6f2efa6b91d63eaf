"""The activities that begin and end every operation, as orchestrators name them."""

from typing import Final

from budcluster.durable.refs import PATIENT, ActivityRef
from budcluster.operations.contracts import Ending, OperationPayload, Started

MARK_STARTED: Final = ActivityRef("mark_operation_started", takes=OperationPayload, gives=Started, retry=PATIENT)
MARK_SUCCEEDED: Final = ActivityRef("mark_operation_succeeded", takes=OperationPayload, retry=PATIENT)
MARK_FAILED: Final = ActivityRef("mark_operation_failed", takes=Ending, retry=PATIENT)
"""Ends as CANCELLED when somebody has asked for an end, else as FAILED."""
