"""What a caller chooses for a deployment: strict, bounded, and kept in `Deployment.config` as it was asked for."""

import json
import re
from typing import Annotated, Any, Final, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, Field, field_validator, model_validator

from budcluster.api.schemas import Body, Parsed
from budcluster.deployment.runtimes.flags import MAX_ARGS, MAX_LENGTH
from budcluster.deployment.runtimes.image import image_of
from budcluster.deployment.runtimes.launch import CACHE_PATH, Hardware
from budcluster.deployment.values import CacheMode

MAX_REPLICAS: Final = 100
_MAX_TOKENS: Final = 10_000_000
_MAX_MODEL_CONFIG: Final = 64 * 1024

_HOST: Final = r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.){0,8}[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
_LABEL_VALUE: Final = r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"
_ENV_NAME: Final = r"^[A-Za-z_][A-Za-z0-9_]{0,127}$"
_OBJECT_NAME: Final = r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"
_PATH: Final = r"^/[A-Za-z0-9._/-]{1,1000}$"

_SECRET_WORDS: Final = {"TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "CREDENTIALS", "APIKEY"}
_SECRET_PARTS: Final = ("API_KEY", "ACCESS_KEY", "PRIVATE_KEY")
_RESERVED: Final = frozenset(
    {
        "CUDA_DISABLE_CONTROL", "CUDA_VISIBLE_DEVICES", "HF_ENDPOINT", "HF_HOME", "LD_AUDIT", "LD_LIBRARY_PATH",
        "LD_PRELOAD", "NVIDIA_DRIVER_CAPABILITIES", "NVIDIA_VISIBLE_DEVICES", "PATH", "PYTHONHOME", "PYTHONPATH",
        "PYTHONSTARTUP", "VLLM_CACHE_ROOT", "VLLM_ENGINE_READY_TIMEOUT_S", "VLLM_PLUGINS", "VLLM_PORT",
    }
)  # fmt: skip
_RESERVED_STARTS: Final = ("KUBERNETES_", "LIBCUDA_", "GPU_CORE_", "CUDA_DEVICE_")

Quantization = Literal[
    "auto_awq", "auto_gptq", "awq", "awq_marlin", "compressed-tensors", "experts_int8", "fp8", "fp8_per_block",
    "fp8_per_tensor", "gptq", "gptq_marlin", "inc", "modelopt", "modelopt_fp4", "modelopt_mxfp8", "moe_wna16", "mxfp4",
    "mxfp8", "quark", "torchao", "w8a8_fp8", "w8a8_int8",
]  # fmt: skip
"""Methods that at least one runtime knows; which ones, the runtime says."""


def check_model(model: str) -> str:
    """A model's id on the hub, a path in the cache, or an object store's address. Raises ValueError."""
    hub_id = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?"
    place = rf"({CACHE_PATH}|s3:/|gs:/)(/[A-Za-z0-9][A-Za-z0-9._-]{{0,200}}){{1,20}}"
    if not re.fullmatch(f"{hub_id}|{place}", model):
        raise ValueError(
            f"must be a Hugging Face id such as org/name, a path below {CACHE_PATH}, or an s3:// or gs:// address"
        )
    return model


def _check_image(reference: str) -> str:
    image_of(reference)
    return reference


def _check_argument(argument: str) -> str:
    if not argument.isprintable():
        raise ValueError("must be printable")
    return argument


def _check_env(env: dict[str, str]) -> dict[str, str]:
    for name in env:
        _check_env_name(name)
        words = set(name.upper().split("_"))
        if words & _SECRET_WORDS or any(part in name.upper() for part in _SECRET_PARTS):
            raise ValueError(f"{name} looks like a secret; keep it as a credential and name that under secrets")
    return env


def _check_env_name(name: str) -> str:
    upper = name.upper()
    if upper in _RESERVED or upper.startswith(_RESERVED_STARTS):
        raise ValueError(f"{name} is reserved: the service sets it, or it would change what the container runs")
    return name


def _check_host_path(path: str) -> str:
    if ".." in path.split("/"):
        raise ValueError("must not climb with ..")
    return path


class GpuShare(Body):
    """A slice of one GPU per replica, as HAMi gives it."""

    memory_mib: int = Field(ge=256, le=1_048_576, description="MiB of GPU memory.", examples=[20480])
    cores_percent: int | None = Field(None, ge=1, le=100, description="Share of its compute.", examples=[50])


class CacheChoice(Body):
    """Where model files stay between starts."""

    mode: Parsed[CacheMode] = CacheMode.EMPTY_DIR
    storage_class: str | None = Field(None, max_length=253, pattern=_OBJECT_NAME, examples=["fast"])
    access_mode: Literal["ReadWriteOnce", "ReadWriteMany"] = "ReadWriteOnce"
    claim: str | None = Field(None, max_length=253, pattern=_OBJECT_NAME, description="With mode existing.")
    host_path: Annotated[str, Field(max_length=1000, pattern=_PATH), AfterValidator(_check_host_path)] | None = Field(
        None, description="With mode hostPath: below the folder that the operator of the service allows."
    )

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if (self.claim is not None) != (self.mode is CacheMode.EXISTING):
            raise ValueError("claim goes with mode existing, and that needs it")
        if (self.host_path is not None) != (self.mode is CacheMode.HOST_PATH):
            raise ValueError("host_path goes with mode hostPath, and that needs it")
        return self


class SecretChoice(Body):
    """An environment variable that comes from a stored credential."""

    env: Annotated[str, Field(pattern=_ENV_NAME), AfterValidator(_check_env_name)]
    credential_id: Parsed[UUID]
    field: str = Field(
        "token", max_length=40, pattern="^[a-z_]+$", description="Which part of the credential.",
        examples=["secret_access_key"],
    )  # fmt: skip


class DeploymentConfig(Body):
    """How the model is served."""

    tensor_parallel_size: int = Field(1, ge=1, le=64, description="GPUs that share each layer.")
    pipeline_parallel_size: int = Field(1, ge=1, le=16, description="Stages that the layers are cut into.")
    replicas: int = Field(1, ge=1, le=MAX_REPLICAS, description="Copies.")
    max_num_seqs: int | None = Field(None, ge=1, le=65_536, description="Sequences served at once by a copy.")
    input_tokens: int | None = Field(None, ge=1, le=_MAX_TOKENS, description="Longest prompt.", examples=[4096])
    output_tokens: int | None = Field(None, ge=1, le=_MAX_TOKENS, description="Longest answer.", examples=[1024])
    max_model_len: int | None = Field(
        None, ge=1, le=_MAX_TOKENS, description="Context; default: input and output tokens and a tenth more."
    )
    dtype: Literal["auto", "half", "float16", "bfloat16", "float", "float32"] = "auto"
    quantization: Quantization | None = None
    kv_cache_dtype: Literal["auto", "fp8", "fp8_e4m3", "fp8_e5m2"] | None = None
    revision: str | None = Field(
        None, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$",
        description="Branch, tag or commit of the model's repository.",
    )  # fmt: skip
    trust_remote_code: bool = Field(False, description="True runs code from the model's repository.")
    hardware: Parsed[Hardware | None] = Field(None, description="Default: what the cluster has.")
    gpu_model: str | None = Field(None, pattern=_LABEL_VALUE, examples=["NVIDIA-H100-80GB-HBM3"])
    gpu_share: GpuShare | None = None
    image: Annotated[str, Field(max_length=512), AfterValidator(_check_image)] | None = Field(
        None, description="Instead of the pinned one, by tag or digest.", examples=["vllm/vllm-openai:v0.33.0"]
    )
    extra_args: list[Annotated[str, Field(max_length=MAX_LENGTH), AfterValidator(_check_argument)]] = Field(
        default_factory=list, max_length=MAX_ARGS, description="Further flags of the runtime.",
        examples=[["--enable-prefix-caching"]],
    )  # fmt: skip
    env: Annotated[
        dict[Annotated[str, Field(pattern=_ENV_NAME)], Annotated[str, Field(max_length=4096)]],
        Field(max_length=64),
        AfterValidator(_check_env),
    ] = Field(default_factory=dict, examples=[{"NCCL_DEBUG": "INFO"}])
    secrets: list[SecretChoice] = Field(default_factory=list, max_length=16)
    hugging_face_credential_id: Parsed[UUID | None] = Field(None, description="For gated and private models.")
    registry_credential_id: Parsed[UUID | None] = Field(None, description="For image pulls.")
    cache: CacheChoice = Field(default_factory=CacheChoice)
    startup_timeout_s: int | None = Field(None, ge=60, le=86_400, description="Default: from the size of the weights.")
    ingress_host: str | None = Field(None, max_length=253, pattern=_HOST, examples=["chat.example.org"])
    hub_config: dict[str, Any] | None = Field(
        None, alias="model_config", description="The model's config.json, where the model hub cannot be asked for it."
    )

    @field_validator("hub_config")
    @classmethod
    def _is_bounded(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None and len(json.dumps(value)) > _MAX_MODEL_CONFIG:
            raise ValueError(f"must be at most {_MAX_MODEL_CONFIG} bytes of JSON")
        return value

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.max_model_len is not None and (self.input_tokens or self.output_tokens):
            raise ValueError("give max_model_len, or input_tokens and output_tokens, not both")
        if (self.input_tokens is None) != (self.output_tokens is None):
            raise ValueError("input_tokens and output_tokens go together")
        names = [secret.env for secret in self.secrets]
        if len(set(names) | set(self.env)) < len(names) + len(self.env):
            raise ValueError("an environment variable is set twice")
        return self

    def kept(self) -> dict[str, Any]:
        """As kept in the row: without the model's config, of which only the facts are kept."""
        return self.model_dump(mode="json", exclude={"hub_config"}, exclude_none=True)

    def changed_by(self, changes: "DeploymentConfig") -> "DeploymentConfig":
        """The same with the fields that `changes` names. Raises ValidationError."""
        fields = changes.model_fields_set - {"replicas", "hub_config"}
        wanted = changes.model_dump(mode="json", include=fields)
        if "max_model_len" in fields:
            wanted = {"input_tokens": None, "output_tokens": None} | wanted
        elif "input_tokens" in fields:
            wanted = {"max_model_len": None} | wanted
        return DeploymentConfig.model_validate({**self.kept(), **wanted})
