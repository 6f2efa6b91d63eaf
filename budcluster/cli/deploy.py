"""`budcluster deploy`: put a model on a cluster and watch it come up."""

from typing import Annotated, Any

import typer

from budcluster.cli.choices import Set, choices, pairs
from budcluster.cli.client import Api
from budcluster.cli.output import Json, print_facts, print_json
from budcluster.cli.progress import follow_or_tell


def deploy(  # noqa: PLR0917 - typer makes an option of each
    model: Annotated[str, typer.Argument(help="Hugging Face id, for example Qwen/Qwen3-8B.", metavar="MODEL")],
    cluster: Annotated[str, typer.Option(help="Name or id of the cluster.")],
    name: Annotated[str | None, typer.Option(help="Name of the deployment; default: from the model's.")] = None,
    runtime: Annotated[str, typer.Option(help="auto, vllm, sglang or tensorrt_llm.")] = "auto",
    tp: Annotated[int | None, typer.Option("--tp", min=1, help="GPUs of each copy that share a layer.")] = None,
    pp: Annotated[int | None, typer.Option("--pp", min=1, help="Stages that the layers are cut into.")] = None,
    replicas: Annotated[int | None, typer.Option(min=1, help="Copies.")] = None,
    input_tokens: Annotated[int | None, typer.Option(min=1, help="Longest prompt.")] = None,
    output_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer.")] = None,
    max_model_len: Annotated[int | None, typer.Option(min=1, help="Context, instead of the two.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Number format, for example bfloat16.")] = None,
    quantization: Annotated[str | None, typer.Option(help="For example fp8 or awq.")] = None,
    gpu_model: Annotated[str | None, typer.Option(help="Only on this GPU, as `clusters gpus` names it.")] = None,
    gpu_memory: Annotated[int | None, typer.Option(min=256, help="MiB of one GPU, on a cluster with HAMi.")] = None,
    image: Annotated[str | None, typer.Option(help="Another image than the pinned one.")] = None,
    hf_credential: Annotated[str | None, typer.Option(help="Credential for gated models (name or id).")] = None,
    set_: Set = None,
    arg: Annotated[list[str] | None, typer.Option(help="Further flag of the runtime; repeat it.")] = None,
    env: Annotated[list[str] | None, typer.Option(help="NAME=VALUE; repeat it.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Only show whether it fits and what would be made.")] = False,
    force: Annotated[bool, typer.Option(help="Go on although the cluster has no room now.")] = False,
    watch: Annotated[bool, typer.Option(help="Show the progress until the model serves.")] = True,
    json: Json = False,
) -> None:
    """Deploy a model."""
    api = Api()
    config = {
        "tensor_parallel_size": tp, "pipeline_parallel_size": pp, "replicas": replicas, "input_tokens": input_tokens,
        "output_tokens": output_tokens, "max_model_len": max_model_len, "dtype": dtype, "quantization": quantization,
        "gpu_model": gpu_model, "gpu_share": {"memory_mib": gpu_memory} if gpu_memory else None, "image": image,
        "hugging_face_credential_id": api.find("credentials", hf_credential)["id"] if hf_credential else None,
        "extra_args": arg or None, "env": pairs(env, hint="--env") if env else None,
    }  # fmt: skip
    config = {key: value for key, value in config.items() if value is not None} | choices(set_ or (), hint="--set")
    body = {
        "cluster_id": api.find("clusters", cluster)["id"], "model": model, "name": name, "runtime": runtime,
        "config": config,
    }  # fmt: skip
    if dry_run:
        return _show(api.post("/deployments", body, dry_run=True), json=json)
    answer = api.post("/deployments", body, force=force or None)
    follow_or_tell(api, answer, watch=watch, json=json)
    if watch and not json:
        deployment = api.get(f"/deployments/{answer['id']}")
        where = ", ".join(endpoint["url"] for endpoint in deployment["endpoints"])
        typer.echo(f"{deployment['name']} serves {deployment['model']} at {where}")
    return None


def _show(preview: dict[str, Any], *, json: bool) -> None:
    if json:
        return print_json(preview)
    fit = preview["fit"]
    reasons = [f"{pool['pool']}: {'; '.join(pool['reasons'])}" for pool in fit["reasons"]]
    return print_facts(
        [
            ("Fits", {"yes": "yes", "no": "no", "unknown": "nobody knows"}[fit["verdict"]]),
            ("Nodes", ", ".join(fit["nodes"])),
            ("Needs", f"{fit['needed_mib']} MiB of each GPU" if fit["needed_mib"] else None),
            ("Why not", " | ".join(reasons)),
            ("Nearest", "; ".join(fit["nearest"])),
            ("Notes", " ".join(preview["warnings"])),
            ("Runtime", preview["runtime"]),
            ("Context", preview["max_model_len"]),
            ("Image", preview["image"]),
            ("Objects", ", ".join(m["kind"] for m in preview["manifests"])),
        ]
    )
