"""Every table of the service, for Alembic, key rotation and tests: importing this module fills the metadata."""

import budcluster.api.models
import budcluster.audit.models
import budcluster.cluster.models
import budcluster.credentials.models
import budcluster.deployment.logs.models
import budcluster.deployment.models
import budcluster.hardware.models
import budcluster.monitoring.models
import budcluster.operations.models  # noqa: F401 - imported for their tables
from budcluster.kit.database import Base

METADATA = Base.metadata
