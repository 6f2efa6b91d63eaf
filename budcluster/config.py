"""Settings: everything an operator can set, from environment variables, each with its unit, default and reason.

The names of the first block are fixed by the product's specification. Nested sections are set with a double underscore,
for example `DATABASE__POOL_SIZE=20`. A missing or wrong value ends the start with one sentence a problem.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

PROJECT_ROOT: Final = Path(__file__).resolve().parents[1]
"""The checkout: where `alembic/` and `playbooks/` lie beside the package."""


class WorkflowBackend(StrEnum):
    """Which engine stands behind the workflow SDK."""

    AUTO = "auto"
    """Dapr where `DAPR_GRPC_ENDPOINT` or `DAPR_GRPC_PORT` is set, else embedded."""
    EMBEDDED = "embedded"
    DAPR = "dapr"


class LogFormat(StrEnum):
    """How a log line looks."""

    AUTO = "auto"
    """Human on a terminal, JSON elsewhere."""
    JSON = "json"
    HUMAN = "human"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DatabaseSettings(_Section):
    """`DATABASE__*`: the connection pool."""

    pool_size: Annotated[int, Field(ge=2, le=200)] = 20
    """Connections kept open by one replica. Requests and activities hold one for milliseconds."""
    pool_overflow: Annotated[int, Field(ge=0, le=200)] = 0
    """Further connections in a burst. They are closed after each use, and a new one costs what ten statements cost."""
    connect_timeout_s: Annotated[float, Field(gt=0, le=60)] = 5.0
    """Seconds for one connection attempt: a dead server must not hold a request longer than a client waits."""
    statement_timeout_s: Annotated[float, Field(gt=0, le=600)] = 30.0
    """Seconds for one statement: nothing here is meant to run longer, and a runaway query must not hold a lock."""
    start_timeout_s: Annotated[float, Field(gt=0)] = 300.0
    """Seconds that a start waits for the database before it gives up; it may come up later than the service."""


class ApiSettings(_Section):
    """`API__*`: what the HTTP edge accepts."""

    max_body_bytes: Annotated[int, Field(ge=1024, le=64 * 1024 * 1024)] = 2 * 1024 * 1024
    """Bytes of one request body. The largest legitimate one is a kubeconfig of 1 MiB inside JSON."""
    idempotency_hours: Annotated[int, Field(ge=1, le=24 * 30)] = 24
    """Hours that an answer is kept for its `Idempotency-Key`: longer than any client retries."""
    allow_anonymous_remote: bool = False
    """True lets the service listen on other hosts without any token. Only for networks that authenticate themselves."""


class LogSettings(_Section):
    """`LOG__*`: what is written to standard error."""

    level: Annotated[str, Field(pattern="^(DEBUG|INFO|WARNING|ERROR)$")] = "INFO"
    format: LogFormat = LogFormat.AUTO


class WorkflowSettings(_Section):
    """`WORKFLOWS__*`: limits of the embedded engine."""

    max_payload_bytes: Annotated[int, Field(ge=1024)] = 256 * 1024
    """Bytes of one input or output. Payloads carry ids; more means a mistake, and only that instance fails."""
    max_history_bytes: Annotated[int, Field(ge=64 * 1024)] = 2 * 1024 * 1024
    """Bytes of one instance's history: every turn replays it."""
    max_dispatches: Annotated[int, Field(ge=1, le=1000)] = 10
    """How often one activity is handed out again after its process died, before it fails for good."""
    retention_days: Annotated[int, Field(ge=1)] = 14
    """Days that finished instances are kept for a look at their history."""


class OperationSettings(_Section):
    """`OPERATIONS__*`: what is remembered of long work."""

    retention_days: Annotated[int, Field(ge=1, le=3650)] = 90
    """Days that finished operations are kept with their steps, log lines and events."""


class EventSettings(_Section):
    """`EVENTS__*`: where CloudEvents go: operations' progress, clusters' health and version, deployments' status."""

    pubsub: Annotated[str, Field(pattern="^[A-Za-z0-9._-]{1,128}$")] | None = None
    """Name of the Dapr pub/sub component; unset: events are kept and can be read, but go nowhere."""
    topic: Annotated[str, Field(pattern="^[A-Za-z0-9._-]{1,128}$")] = "budcluster-operations"


class KubernetesSettings(_Section):
    """`KUBERNETES__*`: how clusters are reached."""

    allow_local_servers: bool = False
    """True accepts kubeconfigs whose server is on this machine or link-local: for the sandbox cluster, never in
    production, where it would let a caller reach what only this host should."""
    max_tools: Annotated[int, Field(ge=1, le=64)] = 4
    """Helm and Ansible processes that may run at once; each takes 50 to 150 MB."""
    workspace: Path = Path("/tmp/budcluster")  # noqa: S108 - private folders are made below it
    """Folder below which tools keep caches; nothing secret is written there."""
    collections_path: Path | None = None
    """Folder of `ansible_collections/` with kubernetes.core, when that is not in Ansible's own places. Those are
    `/usr/share/ansible/collections` and the `ansible` package: no home folder is looked into."""


class AddonSettings(_Section):
    """`ADDONS__*`: what is installed into clusters. Versions were chosen to work together."""

    chart_mirror: str | None = None
    """A folder, an `oci://` prefix or a repository URL that holds all charts: for clusters without internet access.
    None takes each chart from its authors."""
    image_registry: Annotated[str, Field(pattern=r"^[a-z0-9][a-zA-Z0-9._:/-]*[a-zA-Z0-9]$", max_length=255)] | None = (
        None
    )
    """Registry, with a path if need be, that holds the images of the add-ons under the names they have at their
    authors' less the registry: `registry.k8s.io/nfd/node-feature-discovery` is looked for as
    `<image_registry>/nfd/node-feature-discovery`. It covers every image that the charts of NFD, HAMi and
    kube-prometheus-stack start, and the operator, validator and operands of the GPU operator that run here; not what a
    ClusterPolicy can switch on by hand (virtual GPUs, confidential computing), and not the images of model runtimes.
    None takes each image from its authors."""
    kube_scheduler_tag: Annotated[str, Field(pattern=r"^[\w][\w.-]{0,127}$")] | None = None
    """Tag of HAMi's own kube-scheduler, such as `v1.33.4`: for clouds whose patch releases do not exist upstream. Must
    be of the cluster's minor release. None takes the cluster's own version."""
    kube_scheduler_image: Annotated[str, Field(pattern=r"^[\w][\w./-]*$", max_length=255)] = "kube-scheduler"
    """The same image's name in `registry.k8s.io`, or in `image_registry`."""
    nfd_version: str = "0.19.0"
    gpu_operator_version: str = "v26.7.0"
    hami_version: str = "2.10.0"
    prometheus_version: str = "88.5.3"
    install_timeout_s: Annotated[float, Field(gt=0, le=7200)] = 900.0
    """Seconds that one add-on may take: a driver container compiles for 5 to 15 minutes."""


class ModelHubSettings(_Section):
    """`MODEL_HUB__*`: where models are described, before they are deployed."""

    enabled: bool = True
    """False never asks; whether a model fits is then only known where the caller sends its config."""
    url: Annotated[str, Field(pattern="^https?://", max_length=2048)] = "https://huggingface.co"
    timeout_s: Annotated[float, Field(gt=0, le=30)] = 4.0
    """Seconds for all questions about one model: a request waits for them."""
    mirror_for_pods: Annotated[str, Field(pattern="^https?://", max_length=2048)] | None = None
    """Hub that runtimes load from (HF_ENDPOINT), where nodes cannot reach huggingface.co."""


class DeploymentSettings(_Section):
    """`DEPLOYMENTS__*`: how model runtimes are put on clusters."""

    namespace: Annotated[str, Field(pattern="^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")] = "budcluster-models"
    """Namespace of all runtimes; made when needed, removed with the cluster where it is empty."""
    ingress_class: Annotated[str, Field(max_length=253)] = ""
    """Ingress class of deployments with a host name; empty: the cluster's default."""
    ingress_tls: bool = False
    """True: the ingress controller answers these hosts with https, and so are their endpoints told."""
    ingress_tls_secret: Annotated[str, Field(max_length=253)] = ""
    """Secret in the namespace with the certificate for those hosts; empty: the controller's own certificate."""
    network_policy: bool = False
    """True lets nothing but the API's port be reached, where the cluster enforces network policies."""
    host_path_root: Annotated[str, Field(pattern="^/", max_length=1000)] = "/var/lib/budcluster"
    """Folder of the nodes below which callers may place model caches of mode hostPath."""
    helm_timeout_s: Annotated[float, Field(gt=0, le=3600)] = 300.0
    """Seconds for one Helm command; runtimes load afterwards."""
    removal_timeout_s: Annotated[float, Field(gt=0, le=3600)] = 180.0
    """Seconds until what is left after an uninstall counts as stuck; longer than a pod gets to end."""


class Settings(BaseSettings):
    """All settings of one process. Immutable."""

    model_config = SettingsConfigDict(env_nested_delimiter="__", frozen=True, extra="ignore", populate_by_name=True)

    database_url: SecretStr
    """PostgreSQL connection string, `postgresql://user:password@host:port/budcluster_db`. Required."""
    rsa_private_key_path: Path = Path("crypto-keys/rsa-private-key.pem")
    """RSA-4096 key that wraps the data keys of sealed secrets."""
    symmetric_key_path: Path = Path("crypto-keys/symmetric-key-256")
    """AES-256 key that seals bulk data and keys the HMAC of API tokens."""
    terraform_workspace: Path = Path("/tmp/terraform")  # noqa: S108 - the name the specification gives
    """Folder below which each Terraform run gets a private folder. Nothing runs Terraform yet."""
    ansible_playbooks_path: Path = Path("./playbooks")
    """Folder of the Ansible playbooks."""
    nfd_detection_timeout: Annotated[int, Field(ge=1, le=86_400)] = 300
    """Seconds to wait for Node Feature Discovery; typical is 10 to 60 after its pods are ready."""
    dapr_http_endpoint: str = "http://localhost:3500"
    """Dapr sidecar's HTTP endpoint: service invocation, pub/sub and health. Workflows use the gRPC endpoint only."""

    dapr_grpc_endpoint: str | None = None
    """The SDK's own setting for workflows, for example `127.0.0.1:50001`."""
    dapr_grpc_port: Annotated[int, Field(ge=1, le=65_535)] | None = None
    dapr_api_token: SecretStr | None = None
    """Sent to the sidecar."""
    app_api_token: SecretStr | None = None
    """What a sidecar must send to us, in the header `dapr-api-token`."""

    host: str = "127.0.0.1"
    """Address to listen on. Another one than loopback is refused while no token exists."""
    port: Annotated[int, Field(ge=1, le=65_535)] = 9082
    workflow_backend: WorkflowBackend = WorkflowBackend.AUTO

    database: DatabaseSettings = DatabaseSettings()
    api: ApiSettings = ApiSettings()
    log: LogSettings = LogSettings()
    workflows: WorkflowSettings = WorkflowSettings()
    kubernetes: KubernetesSettings = KubernetesSettings()
    addons: AddonSettings = AddonSettings()
    operations: OperationSettings = OperationSettings()
    events: EventSettings = EventSettings()
    model_hub: ModelHubSettings = ModelHubSettings()
    deployments: DeploymentSettings = DeploymentSettings()

    @field_validator("database_url")
    @classmethod
    def _is_postgresql(cls, value: SecretStr) -> SecretStr:
        try:
            url = make_url(value.get_secret_value())
        except ArgumentError:
            raise ValueError("must look like postgresql://user:password@host:5432/budcluster_db") from None
        if url.get_backend_name() != "postgresql":
            raise ValueError("must be a PostgreSQL URL; it names another kind of database")
        if not url.database:
            raise ValueError("names no database; add one, for example /budcluster_db")
        return value

    @property
    def sqlalchemy_url(self) -> URL:
        """The database for SQLAlchemy's asyncpg driver."""
        return make_url(self.database_url.get_secret_value()).set(drivername="postgresql+asyncpg")

    @property
    def asyncpg_dsn(self) -> str:
        """The database for asyncpg itself. Holds the password."""
        url = make_url(self.database_url.get_secret_value()).set(drivername="postgresql")
        return url.render_as_string(hide_password=False)

    @classmethod
    def load(cls) -> Self:
        """Read the environment. Raises WrongSettings with one sentence a problem."""
        try:
            return cls()
        except ValidationError as error:
            # Never `from error`: it echoes the rejected values, and those may be secrets.
            raise WrongSettings(
                [_sentence(problem["loc"], problem["type"], problem["msg"]) for problem in error.errors()]
            ) from None


class WrongSettings(Exception):
    """The environment does not make a usable configuration. `problems` are sentences for the operator."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def _sentence(location: tuple[int | str, ...], kind: str, message: str) -> str:
    name = "__".join(str(part) for part in location).upper()
    if kind == "missing":
        return f"{name} is not set; it is required."
    return f"{name} is wrong: {message.removeprefix('Value error, ')}."
