"""Names of the workflows and activities of clusters. Permanent: running instances carry them."""

from datetime import timedelta
from typing import Final

from budcluster.cluster.contracts import OnboardingPayload, SharingPayload
from budcluster.durable.refs import ActivityRef, Retry, WorkflowRef
from budcluster.operations.contracts import OperationPayload

STEADY: Final = Retry("steady", 12, timedelta(seconds=2), timedelta(seconds=20))
"""About three minutes: an API server that restarts must not fail the work, and one that is gone must not hang it."""

ONBOARD_CLUSTER: Final = WorkflowRef("onboard_cluster", takes=OnboardingPayload)
DETECT_HARDWARE: Final = WorkflowRef("detect_hardware", takes=OperationPayload)
SHARE_GPUS: Final = WorkflowRef("share_gpus", takes=SharingPayload)
DELETE_CLUSTER: Final = WorkflowRef("delete_cluster", takes=OperationPayload)

CHECK_ACCESS: Final = ActivityRef("check_access", takes=OnboardingPayload, retry=STEADY)
INSPECT_CLUSTER: Final = ActivityRef("inspect_cluster", takes=OperationPayload, retry=STEADY)
PREPARE_CLUSTER: Final = ActivityRef("prepare_cluster", takes=OnboardingPayload, retry=STEADY)
INSTALL_PROMETHEUS: Final = ActivityRef("install_prometheus", takes=OperationPayload, retry=STEADY)
INSTALL_NFD: Final = ActivityRef("install_nfd", takes=OperationPayload, retry=STEADY)
DETECT_NODES: Final = ActivityRef("detect_nodes", takes=OperationPayload, retry=STEADY)
INSTALL_GPU_OPERATOR: Final = ActivityRef("install_gpu_operator", takes=OnboardingPayload, retry=STEADY)
INSTALL_HAMI: Final = ActivityRef("install_hami", takes=OnboardingPayload, retry=STEADY)
ALIGN_GPU_OPERATOR: Final = ActivityRef("align_gpu_operator", takes=SharingPayload, retry=STEADY)
CHANGE_SHARING: Final = ActivityRef("change_sharing", takes=SharingPayload, retry=STEADY)
PUT_SHARING_BACK: Final = ActivityRef("put_sharing_back", takes=SharingPayload, retry=STEADY)
READ_HARDWARE: Final = ActivityRef("read_hardware", takes=OperationPayload, retry=STEADY)
REMOVE_ADDONS: Final = ActivityRef("remove_addons", takes=OperationPayload, retry=STEADY)
LEAVE_CLUSTER: Final = ActivityRef("leave_cluster", takes=OperationPayload, retry=STEADY)
