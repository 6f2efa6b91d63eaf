"""From what was asked to what is started: runtime, context, image, GPUs. Pure; refusals are ConfigNotUsable."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final
from uuid import UUID

from budcluster.deployment.errors import ConfigNotUsable
from budcluster.deployment.fitting.demands import AnyDemand, Demand, ProcessorDemand
from budcluster.deployment.fitting.model_facts import ModelFacts
from budcluster.deployment.fitting.rooms import Room, Share
from budcluster.deployment.fitting.sizing import (
    CORES_WITHOUT_GPU,
    Budget,
    Shape,
    max_model_length,
    memory_without_gpu_gib,
)
from budcluster.deployment.models import RuntimeType
from budcluster.deployment.options import DeploymentConfig
from budcluster.deployment.runtimes import RUNTIMES
from budcluster.deployment.runtimes.flags import FlagRefused
from budcluster.deployment.runtimes.launch import Hardware, Launch, LaunchRequest, NotSupported
from budcluster.deployment.values import (
    RESOURCES,
    Cache,
    CacheMode,
    ReleasePlan,
    Rollout,
    SecretEnv,
    chart_values,
)
from budcluster.hardware.reading.profile import GpuVendor, NodeProfile, Sharing

DEFAULT_CONTEXT: Final = 4096
_VENDORS: Final = {
    GpuVendor.NVIDIA: Hardware.NVIDIA,
    GpuVendor.AMD: Hardware.AMD,
    GpuVendor.HABANA: Hardware.HABANA,
}


@dataclass(frozen=True)
class Site:
    """What planning knows of a cluster."""

    rooms: tuple[Room, ...]
    nodes: tuple[NodeProfile, ...] = ()
    kept: frozenset[str] = frozenset()
    """Nodes that take only pods with GPUs."""
    has_pod_monitors: bool = False
    runtime_class: str = ""

    def hardware(self, config: DeploymentConfig) -> Hardware:
        """What it runs on: as asked, else the vendor of the GPU model that was asked for, else the best there is."""
        if config.hardware is not None:
            return config.hardware
        vendors = {vendor for vendor, model in self._kinds if config.gpu_model in {None, model}}
        for vendor, hardware in _VENDORS.items():
            if vendor in vendors:
                return hardware
        return Hardware.NVIDIA if config.gpu_model else Hardware.CPU

    @cached_property
    def _kinds(self) -> frozenset[tuple[GpuVendor, str | None]]:
        return frozenset((room.vendor, room.model) for room in self.rooms)

    def has_hami(self) -> bool:
        """Whether HAMi hands out GPUs of this cluster."""
        return any(room.sharing is Sharing.HAMI for room in self.rooms)


@dataclass(frozen=True, slots=True)
class Context:
    """The longest sequence that is served."""

    length: int
    warnings: tuple[str, ...] = ()


def context_of(config: DeploymentConfig, facts: ModelFacts | None) -> Context:
    """The context from the config, never longer than what the model was made for."""
    longest = facts.max_position if facts else None
    if config.max_model_len is not None:
        asked = config.max_model_len
    elif config.input_tokens is not None and config.output_tokens is not None:
        asked = max_model_length(config.input_tokens, config.output_tokens)
    else:
        return Context(min(DEFAULT_CONTEXT, longest or DEFAULT_CONTEXT))
    if longest is not None and asked > longest:
        return Context(
            longest, (f"a context of {asked} tokens was asked for; the model supports {longest}, and serves that",)
        )
    return Context(asked)


def demand_of(
    config: DeploymentConfig, runtime: RuntimeType, facts: ModelFacts | None, hardware: Hardware
) -> AnyDemand:
    """What it asks of a cluster, where it runs on this."""
    known = RUNTIMES[runtime]
    unsized = _unsized(config, facts)
    doubtful = known.flags.doubtful(config.extra_args)
    doubts = (*unsized, *(f"how much memory {flag} takes or saves is not known" for flag in doubtful))
    if hardware is Hardware.CPU:
        processes = config.tensor_parallel_size * config.pipeline_parallel_size
        loaded = facts.loaded_bytes(config.quantization, dtype=config.dtype) if facts else None
        return ProcessorDemand(
            cores=CORES_WITHOUT_GPU * processes,
            memory_gib=memory_without_gpu_gib(loaded, processes),
            processes=processes,
            replicas=config.replicas,
            doubts=doubts,
            architecture="amd64" if config.image is None else None,
            needs_vectors=True,
        )
    share = config.gpu_share
    budget = Budget()
    with suppress(FlagRefused):  # told when it is asked for; a row that was accepted before must not stop others
        budget = known.budget(config.extra_args)
    return Demand(
        shape=Shape(
            tensor_parallel=config.tensor_parallel_size,
            pipeline_parallel=config.pipeline_parallel_size,
            max_model_len=context_of(config, facts).length,
            quantization=config.quantization,
            kv_cache_dtype=config.kv_cache_dtype or "auto",
            dtype=config.dtype,
            sequences=config.max_num_seqs,
        ),
        replicas=config.replicas,
        facts=facts,
        gpu_model=config.gpu_model,
        share=Share(share.memory_mib, share.cores_percent) if share else None,
        vendors=frozenset({vendor for vendor, kind in _VENDORS.items() if kind is hardware}),
        min_driver_major=known.driver_for(config.image),
        budget=budget,
        doubts=doubts,
        is_least=known.flags.growing.issuperset(doubtful),
    )


def _unsized(config: DeploymentConfig, facts: ModelFacts | None) -> tuple[str, ...]:
    """Why the model's own size is not known."""
    if facts is None:
        return ("the model's config is not known, so whether it fits into memory is not known either",)
    if not facts.is_sized(config.quantization):
        return ("the model has parts beside its language model, and how large these are is not known",)
    return ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """One deployment, as far as its values depend on it."""

    id: UUID
    name: str
    release: str
    model: str
    runtime: RuntimeType | None
    """None: whichever can run it."""
    config: DeploymentConfig
    facts: ModelFacts | None


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the copies are to stand, and how they get there."""

    rollout: Rollout
    resource: str | None = None
    """The name by which devices are asked for; None: the plain one of the hardware."""
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the service's settings say of every release."""

    network_policy: bool = False
    ingress_class: str = ""
    ingress_tls: bool = False
    ingress_tls_secret: str = ""
    hub_mirror: str | None = None


def runtime_of(wanted: Wanted, site: Site) -> RuntimeType:
    """The runtime that was asked for; else the first that has an image for the hardware and knows every choice.

    Raises ConfigNotUsable: for what cannot be run, with the first runtime's reason where none was named.
    """
    if wanted.runtime is not None:
        _launch(wanted, wanted.runtime, site)
        return wanted.runtime
    refused = []
    for runtime in RUNTIMES:
        try:
            _launch(wanted, runtime, site)
        except ConfigNotUsable as refusal:
            refused.append(refusal)
        else:
            return runtime
    raise refused[0]


def _launch(wanted: Wanted, runtime: RuntimeType, site: Site) -> tuple[LaunchRequest, Launch]:
    request = _request(wanted, site)
    try:
        return request, RUNTIMES[runtime].prepare(request)
    except FlagRefused as refusal:
        raise ConfigNotUsable("extra_args", str(refusal)) from None
    except NotSupported as refusal:
        raise ConfigNotUsable(refusal.field, str(refusal)) from None


def values_of(
    wanted: Wanted, site: Site, placement: Placement, surroundings: Surroundings = Surroundings()
) -> dict[str, Any]:
    """The chart's values. Raises ConfigNotUsable."""
    config, runtime = wanted.config, runtime_of(wanted, site)
    request, launch = _launch(wanted, runtime, site)
    require_sound(config, replicas=config.replicas)
    _require_own_names(config, launch)
    is_nvidia = request.hardware is Hardware.NVIDIA
    plan = ReleasePlan(
        deployment_id=str(wanted.id),
        runtime=runtime,
        request=request,
        launch=launch,
        replicas=config.replicas,
        rollout=placement.rollout,
        resource=placement.resource or RESOURCES.get(request.hardware, ""),
        nodes=placement.nodes,
        on_hami=is_nvidia and site.has_hami(),
        share_memory_mib=config.gpu_share.memory_mib if config.gpu_share else None,
        share_cores_percent=config.gpu_share.cores_percent if config.gpu_share else None,
        gpu_model=config.gpu_model,
        cache=cache_of(config),
        env={**({"HF_ENDPOINT": surroundings.hub_mirror} if surroundings.hub_mirror else {}), **config.env},
        secret_env=secret_env(config, wanted.release),
        pull_secrets=(pull_secret_name(wanted.release),) if config.registry_credential_id else (),
        credentials=_credentials(config),
        runtime_class=site.runtime_class if is_nvidia else "",
        has_pod_monitors=site.has_pod_monitors,
        network_policy=surroundings.network_policy,
        ingress_host=config.ingress_host,
        ingress_class=surroundings.ingress_class,
        ingress_tls=surroundings.ingress_tls,
        ingress_tls_secret=surroundings.ingress_tls_secret,
    )
    return chart_values(plan)


def require_sound(config: DeploymentConfig, *, replicas: int) -> None:
    """Refuse what no cluster could cure, for so many copies. Raises ConfigNotUsable."""
    devices = config.tensor_parallel_size * config.pipeline_parallel_size
    if config.gpu_share and devices > 1:
        raise ConfigNotUsable("gpu_share", "several GPUs per replica crash on shares of GPUs; ask for whole ones")
    if config.gpu_share and config.hardware not in {None, Hardware.NVIDIA}:
        raise ConfigNotUsable("gpu_share", "only NVIDIA GPUs are handed out in shares")
    if config.gpu_model and config.hardware is Hardware.HABANA:
        raise ConfigNotUsable("gpu_model", "no label of a node tells generations of Gaudi apart; ask without it")
    if replicas > 1 and holds_one_node(config):
        raise ConfigNotUsable(
            "cache",
            "several replicas on different nodes cannot mount one ReadWriteOnce volume; use access_mode ReadWriteMany",
        )


def holds_one_node(config: DeploymentConfig) -> bool:
    """Whether its cache can be mounted on one node only."""
    mounted = config.cache.mode in {CacheMode.PVC, CacheMode.EXISTING}
    return mounted and config.cache.access_mode == "ReadWriteOnce"


def _require_own_names(config: DeploymentConfig, launch: Launch) -> None:
    """No variable of the caller's shadows one of ours, or one of his own. Raises ConfigNotUsable."""
    names = [secret.env for secret in config.secrets]
    if config.hugging_face_credential_id and "HF_TOKEN" in names:
        raise ConfigNotUsable("secrets", "HF_TOKEN is set by hugging_face_credential_id already; name it once")
    for name in (*names, *config.env):
        field_name = "secrets" if name in names else "env"
        if name in launch.env and config.env.get(name) != launch.env[name]:
            raise ConfigNotUsable(field_name, f"{name} is set by the service; choose another name")


def _request(wanted: Wanted, site: Site) -> LaunchRequest:
    config, facts = wanted.config, wanted.facts
    hardware = site.hardware(config)
    return LaunchRequest(
        model=wanted.model,
        served_name=wanted.name,
        hardware=hardware,
        tensor_parallel=config.tensor_parallel_size,
        pipeline_parallel=config.pipeline_parallel_size,
        max_model_len=context_of(config, facts).length,
        max_num_seqs=config.max_num_seqs,
        dtype=config.dtype,
        quantization=config.quantization,
        kv_cache_dtype=config.kv_cache_dtype,
        revision=config.revision,
        trust_remote_code=config.trust_remote_code,
        extra_args=tuple(config.extra_args),
        file_bytes=facts.file_bytes() if facts else None,
        loaded_bytes=facts.loaded_bytes(config.quantization, dtype=config.dtype) if facts else None,
        whole_gpus_on_hami=hardware is Hardware.NVIDIA and config.gpu_share is None and site.has_hami(),
        image=config.image,
        startup_timeout_s=config.startup_timeout_s,
    )


def cache_of(config: DeploymentConfig) -> Cache:
    """The cache as the chart takes it. Helm leaves a claim alone: deleting the deployment decides about it."""
    choice = config.cache
    return Cache(
        mode=choice.mode,
        storage_class=choice.storage_class,
        access_mode=choice.access_mode,
        claim=choice.claim or "",
        host_path=choice.host_path or "",
        keep=True,
    )


def secret_name(release: str) -> str:
    """The Secret with a release's environment."""
    return f"{release}-env"


def pull_secret_name(release: str) -> str:
    """The Secret with a release's registry login."""
    return f"{release}-pull"


def secret_env(config: DeploymentConfig, release: str) -> tuple[SecretEnv, ...]:
    """Environment variables that come from the release's Secret; a key is the variable's name."""
    names = (["HF_TOKEN"] if config.hugging_face_credential_id else []) + [secret.env for secret in config.secrets]
    return tuple(SecretEnv(name, secret_name(release), name) for name in names)


def _credentials(config: DeploymentConfig) -> tuple[str, ...]:
    """Which credential, and which part of it, stands behind each variable."""
    hub = config.hugging_face_credential_id
    named = [f"{secret.env}={secret.credential_id}/{secret.field}" for secret in config.secrets]
    return (*([f"HF_TOKEN={hub}/token"] if hub else []), *sorted(named))


def with_replicas(values: Mapping[str, Any], replicas: int) -> dict[str, Any]:
    """The same values for so many copies."""
    return {**values, "replicas": replicas, "podDisruptionBudget": {"enabled": replicas > 1}}
