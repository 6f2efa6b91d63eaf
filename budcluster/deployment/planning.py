"""From what was asked to what is started: runtime, context, image, GPUs. Pure; refusals are ConfigNotUsable."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

from budcluster.deployment.errors import ConfigNotUsable
from budcluster.deployment.fit import Demand, Share, Verdict, check_fit
from budcluster.deployment.model_facts import ModelFacts
from budcluster.deployment.models import RuntimeType
from budcluster.deployment.options import DeploymentConfig
from budcluster.deployment.rooms import Room
from budcluster.deployment.runtimes import RUNTIMES
from budcluster.deployment.runtimes.flags import FlagRefused
from budcluster.deployment.runtimes.launch import Hardware, Launch, LaunchRequest, NotSupported
from budcluster.deployment.sizing import Shape, max_model_length
from budcluster.deployment.values import Cache, CacheMode, ReleasePlan, Rollout, SecretEnv, chart_values
from budcluster.hardware.profile import GpuVendor, NodeProfile, Sharing

DEFAULT_CONTEXT: Final = 4096
_VENDORS: Final = {
    GpuVendor.NVIDIA: Hardware.NVIDIA,
    GpuVendor.AMD: Hardware.AMD,
    GpuVendor.HABANA: Hardware.HABANA,
}


@dataclass(frozen=True, slots=True)
class Site:
    """What planning knows of a cluster."""

    rooms: tuple[Room, ...]
    nodes: tuple[NodeProfile, ...] = ()
    has_pod_monitors: bool = False
    runtime_class: str = ""

    def hardware(self, config: DeploymentConfig) -> Hardware:
        """What it runs on: as asked, else the vendor of the GPU model that was asked for, else the best there is."""
        if config.hardware is not None:
            return config.hardware
        vendors = [room.vendor for room in self.rooms if config.gpu_model in {None, room.model}]
        for vendor, hardware in _VENDORS.items():
            if vendor in vendors:
                return hardware
        return Hardware.NVIDIA if config.gpu_model else Hardware.CPU

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


def demand_of(config: DeploymentConfig, runtime: RuntimeType, facts: ModelFacts | None, site: Site) -> Demand | None:
    """What it asks of the cluster's GPUs; None when it runs without."""
    hardware = site.hardware(config)
    if hardware is Hardware.CPU:
        return None
    share = config.gpu_share
    vendor = next(vendor for vendor, kind in _VENDORS.items() if kind is hardware)
    return Demand(
        shape=Shape(
            tensor_parallel=config.tensor_parallel_size,
            pipeline_parallel=config.pipeline_parallel_size,
            max_model_len=context_of(config, facts).length,
            quantization=config.quantization,
            kv_cache_dtype=config.kv_cache_dtype or "auto",
        ),
        replicas=config.replicas,
        facts=facts,
        gpu_model=config.gpu_model,
        share=Share(share.memory_mib, share.cores_percent) if share else None,
        vendors=frozenset({vendor}),
        min_driver_major=None if config.image else RUNTIMES[runtime].min_driver_major,
        dtype=config.dtype,
    )


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


def runtime_of(wanted: Wanted, site: Site) -> RuntimeType:
    """The runtime that was asked for; else the first that has an image for the hardware and knows every choice.

    Raises ConfigNotUsable with the first one's reason when none can.
    """
    if wanted.runtime is not None:
        return wanted.runtime
    refusals = []
    for runtime in RUNTIMES:
        try:
            _launch(wanted, runtime, site)
        except ConfigNotUsable as refusal:
            refusals.append(refusal)
        else:
            return runtime
    raise refusals[0]


def _launch(wanted: Wanted, runtime: RuntimeType, site: Site) -> tuple[LaunchRequest, Launch]:
    request = _request(wanted, site)
    try:
        return request, RUNTIMES[runtime].prepare(request)
    except FlagRefused as refusal:
        raise ConfigNotUsable("extra_args", str(refusal)) from None
    except NotSupported as refusal:
        raise ConfigNotUsable(refusal.field, str(refusal)) from None


def values_of(
    wanted: Wanted,
    site: Site,
    *,
    rollout: Rollout,
    network_policy: bool = False,
    ingress_class: str = "",
    hub_mirror: str | None = None,
) -> dict[str, Any]:
    """The chart's values. Raises ConfigNotUsable."""
    config, runtime = wanted.config, runtime_of(wanted, site)
    _require_sound(config)
    request, launch = _launch(wanted, runtime, site)
    plan = ReleasePlan(
        deployment_id=str(wanted.id),
        runtime=runtime,
        request=request,
        launch=launch,
        replicas=config.replicas,
        rollout=rollout,
        share_memory_mib=config.gpu_share.memory_mib if config.gpu_share else None,
        share_cores_percent=config.gpu_share.cores_percent if config.gpu_share else None,
        gpu_model=config.gpu_model,
        cache=cache_of(config),
        env={**({"HF_ENDPOINT": hub_mirror} if hub_mirror else {}), **config.env},
        secret_env=secret_env(config, wanted.release),
        pull_secrets=(pull_secret_name(wanted.release),) if config.registry_credential_id else (),
        runtime_class=site.runtime_class if request.hardware is Hardware.NVIDIA else "",
        has_pod_monitors=site.has_pod_monitors,
        network_policy=network_policy,
        ingress_host=config.ingress_host,
        ingress_class=ingress_class,
    )
    return chart_values(plan)


def _require_sound(config: DeploymentConfig) -> None:
    """What no cluster could cure."""
    devices = config.tensor_parallel_size * config.pipeline_parallel_size
    if config.gpu_share and devices > 1:
        raise ConfigNotUsable("gpu_share", "several GPUs per replica crash on shares of GPUs; ask for whole ones")
    if config.gpu_share and config.hardware not in {None, Hardware.NVIDIA}:
        raise ConfigNotUsable("gpu_share", "only NVIDIA GPUs are handed out in shares")
    if config.cache.mode is CacheMode.PVC and config.cache.access_mode == "ReadWriteOnce" and config.replicas > 1:
        raise ConfigNotUsable("cache", "several replicas on different nodes cannot mount one ReadWriteOnce volume")


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
        weights_bytes=facts.loaded_bytes(config.quantization) if facts else None,
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


def with_replicas(values: Mapping[str, Any], replicas: int) -> dict[str, Any]:
    """The same values for so many copies."""
    return {**values, "replicas": replicas, "podDisruptionBudget": {"enabled": replicas > 1}}


def room_for_one_more(demand: Demand | None, rooms: Sequence[Room], waiting: Sequence[Demand]) -> bool:
    """Whether a new copy can start while the old ones still run."""
    if demand is None:
        return True
    return check_fit(replace(demand, replicas=1), rooms, waiting=waiting).verdict is not Verdict.NO
