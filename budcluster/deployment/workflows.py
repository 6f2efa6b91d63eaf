"""What long work on deployments consists of. Recipes only."""

from typing import Final

from budcluster.deployment import refs
from budcluster.deployment.contracts import ReleasePayload, RemovalPayload
from budcluster.durable.refs import Context, Steps
from budcluster.operations.workflow import Step, run_steps

_SERVE: Final = (
    Step("wait_until_serving", "Start the model", weight=300, act=refs.WAIT_UNTIL_SERVING),
    Step("smoke_test", "Ask the model one prompt", weight=5, act=refs.SMOKE_TEST),
)

DEPLOY_STEPS: Final = (
    Step("check_plan", "Check cluster and manifests", weight=3, act=refs.CHECK_PLAN),
    Step("prepare_namespace", "Prepare the namespace", weight=5, act=refs.PREPARE_NAMESPACE),
    Step("write_secrets", "Bring the secrets", weight=2, act=refs.WRITE_SECRETS, undo=refs.FORGET_SECRETS),
    Step("install_release", "Install the release", weight=5, act=refs.INSTALL_RELEASE, undo=refs.WITHDRAW_RELEASE),
    *_SERVE,
)
CHANGE_STEPS: Final = (
    Step("write_secrets", "Bring the secrets", weight=2, act=refs.WRITE_SECRETS, undo=refs.RESTORE_SECRETS),
    Step("install_release", "Change the release", weight=5, act=refs.INSTALL_RELEASE, undo=refs.RESTORE_RELEASE),
    *_SERVE,
)
DELETE_STEPS: Final = (
    Step("remove_release", "Uninstall the release", weight=20, act=refs.REMOVE_RELEASE),
    Step("verify_removal", "Remove secrets and cache, and verify", weight=5, act=refs.VERIFY_REMOVAL),
)


def deploy_model(ctx: Context, payload: ReleasePayload) -> Steps[None]:
    """Bring a model up for the first time."""
    yield from run_steps(ctx, payload, DEPLOY_STEPS)


def change_deployment(ctx: Context, payload: ReleasePayload) -> Steps[None]:
    """Bring another revision or number of copies up; go back to the present one when it does not serve."""
    yield from run_steps(ctx, payload, CHANGE_STEPS)


def delete_deployment(ctx: Context, payload: RemovalPayload) -> Steps[None]:
    """Take a deployment out of its cluster."""
    yield from run_steps(ctx, payload, DELETE_STEPS)
