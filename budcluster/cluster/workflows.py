"""What long work on clusters consists of. Recipes only."""

from dataclasses import replace
from typing import Final

from budcluster.cluster import refs
from budcluster.cluster.contracts import OnboardingPayload, SharingPayload
from budcluster.durable.refs import Context, Steps
from budcluster.operations.contracts import OperationPayload
from budcluster.operations.workflow import Step, run_steps

_HARDWARE: Final = (
    Step("install_nfd", "Install Node Feature Discovery", weight=20, act=refs.INSTALL_NFD),
    Step("detect_nodes", "Detect the hardware of the nodes", weight=30, act=refs.DETECT_NODES),
)
_READ: Final = Step("read_hardware", "Read the hardware profile", weight=3, act=refs.READ_HARDWARE)

ONBOARD_STEPS: Final = (
    Step("check_access", "Reach the cluster and check what the credential may do", weight=3, act=refs.CHECK_ACCESS),
    Step("inspect_cluster", "See what the cluster is and has", weight=3, act=refs.INSPECT_CLUSTER),
    Step(
        "prepare_cluster", "Prepare the cluster and keep a credential of our own", weight=15,
        act=refs.PREPARE_CLUSTER, keeps=True,
    ),
    Step("install_prometheus", "Install Prometheus", weight=30, act=refs.INSTALL_PROMETHEUS),
    *_HARDWARE,
    Step("install_gpu_operator", "Install the GPU operator", weight=120, act=refs.INSTALL_GPU_OPERATOR),
    Step("install_hami", "Set up GPU sharing", weight=40, act=refs.INSTALL_HAMI),
    _READ,
)  # fmt: skip
DETECT_STEPS: Final = (*_HARDWARE, _READ)
_SHARE: Final = (Step("install_hami", "Set up GPU sharing", weight=40, act=refs.CHANGE_SHARING), _READ)
_ALIGN: Final = Step("install_gpu_operator", "Bring the GPU operator in line", weight=60, act=refs.ALIGN_GPU_OPERATOR)
SHARE_STEPS: Final = (replace(_ALIGN, undo=refs.PUT_SHARING_BACK), *_SHARE)
_SHARE_STEPS_WITHOUT_UNDO: Final = (_ALIGN, *_SHARE)
"""Of instances that began when only a step that failed put back what it had done."""
_SHARE_STEPS_BEFORE: Final = (replace(_ALIGN, act=refs.INSTALL_GPU_OPERATOR), *_SHARE)
"""Of instances that began when the operator's step could not fail."""
DELETE_STEPS: Final = (
    Step("remove_addons", "Remove what the service installed", weight=60, act=refs.REMOVE_ADDONS),
    Step("leave_cluster", "Give up access to the cluster", weight=5, act=refs.LEAVE_CLUSTER),
)


def onboard_cluster(ctx: Context, payload: OnboardingPayload) -> Steps[None]:
    """Take an existing cluster into service."""
    yield from run_steps(ctx, payload, ONBOARD_STEPS)


def detect_hardware(ctx: Context, payload: OperationPayload) -> Steps[None]:
    """Look at the hardware again."""
    yield from run_steps(ctx, payload, DETECT_STEPS)


def share_gpus(ctx: Context, payload: SharingPayload) -> Steps[None]:
    """Change how GPUs are handed out."""
    # The older one first, and always: a replica of the version before asks only that.
    before = _SHARE_STEPS_WITHOUT_UNDO if ctx.is_patched("align_gpu_operator") else _SHARE_STEPS_BEFORE
    steps = SHARE_STEPS if ctx.is_patched("put_sharing_back") else before
    yield from run_steps(ctx, payload, steps)


def delete_cluster(ctx: Context, payload: OperationPayload) -> Steps[None]:
    """Leave an adopted cluster: take away what we brought, then forget it."""
    yield from run_steps(ctx, payload, DELETE_STEPS)
