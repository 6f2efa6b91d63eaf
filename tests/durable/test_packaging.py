"""Facts about the installed SDK that the code relies on."""

import importlib.metadata
import subprocess
import sys
from datetime import timedelta

from dapr.ext.workflow._durabletask import task

from budcluster.durable.errors import NonRetryableError
from budcluster.durable.sidecar.protos import pb, rpc


def test_no_legacy_extension_overwrites_files_of_the_sdk() -> None:
    names = {distribution.metadata["Name"].lower() for distribution in importlib.metadata.distributions()}
    assert "dapr" in names
    assert not {name for name in names if name.startswith("dapr-ext-") or name == "durabletask-dapr"}


def test_the_sdk_is_the_version_whose_private_messages_are_used() -> None:
    assert importlib.metadata.version("dapr") == "1.19.0"


def test_the_sdk_stops_retrying_our_error_by_its_class_name() -> None:
    policy = task.RetryPolicy(first_retry_interval=timedelta(1), max_number_of_attempts=3)
    assert task.is_error_non_retryable(NonRetryableError.__name__, policy)
    assert not task.is_error_non_retryable("RuntimeError", policy)


def test_the_protocol_has_the_methods_and_fields_that_the_sidecar_serves() -> None:
    served = {name for name in vars(rpc.TaskHubSidecarServiceServicer) if name[0].isupper()}
    assert served == {
        "CompleteActivityTask",
        "CompleteOrchestratorTask",
        "CompleteWorkflowTask",
        "GetInstance",
        "GetInstanceHistory",
        "GetWorkItems",
        "Hello",
        "ListInstanceIDs",
        "PurgeInstances",
        "RaiseEvent",
        "RerunWorkflowFromEvent",
        "ResumeInstance",
        "StartInstance",
        "SuspendInstance",
        "TerminateInstance",
        "WaitForInstanceCompletion",
        "WaitForInstanceStart",
    }
    assert {field.name for field in pb.WorkflowAction.DESCRIPTOR.oneofs_by_name["workflowActionType"].fields} == {
        "scheduleTask",
        "createChildWorkflow",
        "createTimer",
        "sendEvent",
        "completeWorkflow",
        "terminateWorkflow",
        "workflowVersionNotAvailable",
        "createDetachedWorkflow",
    }


def test_refs_and_backend_import_neither_the_sdk_nor_the_database() -> None:
    code = (
        "import sys, budcluster.durable.refs, budcluster.durable.backend, budcluster.durable.starter;"
        "print(sorted({'dapr', 'grpc', 'sqlalchemy', 'asyncpg', 'httpx'} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
