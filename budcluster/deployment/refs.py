"""Names of the workflows and activities of deployments. Permanent: running instances carry them."""

from typing import Final

from budcluster.cluster.refs import STEADY
from budcluster.deployment.contracts import ReleasePayload, RemovalPayload
from budcluster.durable.refs import ActivityRef, WorkflowRef

DEPLOY_MODEL: Final = WorkflowRef("deploy_model", takes=ReleasePayload)
CHANGE_DEPLOYMENT: Final = WorkflowRef("change_deployment", takes=ReleasePayload)
DELETE_DEPLOYMENT: Final = WorkflowRef("delete_deployment", takes=RemovalPayload)

CHECK_PLAN: Final = ActivityRef("check_plan", takes=ReleasePayload, retry=STEADY)
PREPARE_NAMESPACE: Final = ActivityRef("prepare_namespace", takes=ReleasePayload, retry=STEADY)
WRITE_SECRETS: Final = ActivityRef("write_secrets", takes=ReleasePayload, retry=STEADY)
FORGET_SECRETS: Final = ActivityRef("forget_secrets", takes=ReleasePayload, retry=STEADY)
RESTORE_SECRETS: Final = ActivityRef("restore_secrets", takes=ReleasePayload, retry=STEADY)
INSTALL_RELEASE: Final = ActivityRef("install_release", takes=ReleasePayload, retry=STEADY)
WITHDRAW_RELEASE: Final = ActivityRef("withdraw_release", takes=ReleasePayload, retry=STEADY)
RESTORE_RELEASE: Final = ActivityRef("restore_release", takes=ReleasePayload, retry=STEADY)
WAIT_UNTIL_SERVING: Final = ActivityRef("wait_until_serving", takes=ReleasePayload, retry=STEADY)
SMOKE_TEST: Final = ActivityRef("smoke_test", takes=ReleasePayload, retry=STEADY)
REMOVE_RELEASE: Final = ActivityRef("remove_release", takes=RemovalPayload, retry=STEADY)
VERIFY_REMOVAL: Final = ActivityRef("verify_removal", takes=RemovalPayload, retry=STEADY)
