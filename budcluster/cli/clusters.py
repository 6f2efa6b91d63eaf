"""`budcluster clusters`: look at clusters, take them into service, let them go."""

import re
import sys
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from budcluster.cli.client import REFUSED, Api, errors, fail
from budcluster.cli.output import Json, Limit, Yes, age, print_facts, print_json, print_table, require_yes, upper
from budcluster.cli.progress import follow_or_tell

app = typer.Typer(help="Kubernetes clusters.", no_args_is_help=True)


class Provider(StrEnum):
    """Where a cluster runs."""

    ON_PREMISES = "ON_PREMISES"
    AWS_EKS = "AWS_EKS"
    AZURE_AKS = "AZURE_AKS"


class GpuSharing(StrEnum):
    """How GPUs are handed to pods."""

    HAMI = "hami"
    TIME_SLICING = "time-slicing"
    NONE = "none"


_ACCOUNT_LEFT: Final = (
    "budcluster: the account that was made for this is still in the cluster; "
    "`kubectl delete namespace budcluster-system` takes it away."
)
Watch = Annotated[bool, typer.Option(help="Show the progress until it ends.")]
NameOrId = Annotated[str, typer.Argument(help="Name or id of the cluster.", metavar="CLUSTER")]


@app.command("list")
def list_(
    status: Annotated[str | None, typer.Option(callback=upper, help="Only this status, for example READY.")] = None,
    limit: Limit = 100,
    json: Json = False,
) -> None:
    """List clusters, newest first."""
    clusters = list(islice(Api().pages("/clusters", status=status, limit=min(limit, 500)), limit))
    if json:
        return print_json(clusters)
    return print_table(
        clusters,
        [
            ("NAME", lambda c: c["name"]),
            ("PROVIDER", lambda c: c["provider"]),
            ("STATUS", lambda c: c["status"]),
            ("HEALTH", lambda c: c["health"]),
            ("NODES", lambda c: c["node_count"]),
            ("GPUS", lambda c: c["gpu_count"]),
            ("AGE", lambda c: age(c["created_at"])),
            ("ID", lambda c: c["id"]),
        ],
        empty="There are no clusters yet; `budcluster clusters onboard` adopts one.",
    )


@app.command()
def show(cluster: NameOrId, json: Json = False) -> None:
    """Show one cluster."""
    found = Api().find("clusters", cluster)
    if json:
        return print_json(found)
    return print_facts(_facts(found))


@app.command()
def onboard(
    file: Annotated[Path | None, typer.Argument(help="Kubeconfig with everything inline.", metavar="FILE")] = None,
    *,
    name: Annotated[str | None, typer.Option(help="Name of the cluster; default: the context or file's name.")] = None,
    context: Annotated[
        str | None,
        typer.Option(help="Which context. Without FILE: of your own kubeconfig, from which an account is made here."),
    ] = None,
    provider: Annotated[Provider, typer.Option(help="Where it runs.")] = Provider.ON_PREMISES,
    gpu_sharing: Annotated[
        GpuSharing | None, typer.Option(help="How GPUs are handed to pods; default: as it is, at first hami.")
    ] = None,
    manage_addons: Annotated[
        bool | None,
        typer.Option(
            "--manage-addons/--no-manage-addons",
            help="Whether the service installs what it needs; default: as it is, at first it does.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option(help="Change the sharing of GPUs although pods hold some.")] = False,
    take_over: Annotated[
        bool, typer.Option(help="Take over a cluster of another budcluster, whose database is lost.")
    ] = False,
    watch: Annotated[bool, typer.Option(help="Show the progress until it ends.")] = True,
    json: Json = False,
) -> None:
    """Take an existing cluster into service, or go on with one that failed."""
    if file is None and context is None:
        fail("name a kubeconfig FILE, or a --context of your own kubeconfig.", 2)
    api = Api()
    body: dict[str, Any] = {"gpu_sharing": gpu_sharing, "manage_addons": manage_addons}
    body |= {"force": force, "take_over": take_over}
    if file is not None:
        body |= {"kubeconfig": _text(file), "context": context}
    cluster = _registered(api, name or _slug(context or (file.stem if file else "cluster")), provider)
    if file is None:
        # Not before the service has let us register: an account is nothing to leave behind for no purpose.
        body["kubeconfig"] = _account(context)
    try:
        answer = api.post(f"/clusters/{cluster['id']}/onboard", body)
    except typer.Exit:
        if file is None:
            errors.print(_ACCOUNT_LEFT, markup=False)
        raise
    follow_or_tell(api, answer, watch=watch, json=json)


@app.command()
def delete(cluster: NameOrId, yes: Yes = False, watch: Watch = True, json: Json = False) -> None:
    """Take away what the service brought into a cluster, and forget it."""
    api = Api()
    found = api.find("clusters", cluster)
    require_yes(f"Delete {found['name']}, with {found['node_count']} nodes and {found['gpu_count']} GPUs?", yes=yes)
    answer = api.delete(f"/clusters/{found['id']}")
    follow_or_tell(api, answer, watch=watch, json=json)


@app.command("detect-hardware")
def detect_hardware(cluster: NameOrId, watch: Watch = True, json: Json = False) -> None:
    """Look at the hardware of a cluster again."""
    api = Api()
    answer = api.post(f"/clusters/{api.find('clusters', cluster)['id']}/detect-hardware")
    follow_or_tell(api, answer, watch=watch, json=json)


@app.command("share-gpus")
def share_gpus(
    cluster: NameOrId,
    mode: Annotated[GpuSharing, typer.Argument(help="How GPUs are handed to pods.")],
    force: Annotated[bool, typer.Option(help="Go on although pods hold GPUs.")] = False,
    watch: Watch = True,
    json: Json = False,
) -> None:
    """Choose how GPUs are shared: hami, time-slicing or none."""
    api = Api()
    body = {"mode": mode.value, "force": force}
    answer = api.post(f"/clusters/{api.find('clusters', cluster)['id']}/install-hami", body)
    follow_or_tell(api, answer, watch=watch, json=json)


def _registered(api: Api, name: str, provider: Provider) -> dict[str, Any]:
    found = api.get("/clusters", name=name, limit=1)["items"]
    if found:
        cluster: dict[str, Any] = found[0]
        if cluster["status"] == "DELETING":
            fail(f"{name} is being deleted; wait for that to end.", REFUSED)
        return cluster
    created: dict[str, Any] = api.post("/clusters", {"name": name, "provider": provider.value, "origin": "ADOPTED"})
    return created


def _account(context: str | None) -> str:
    from budcluster.kube.local_account import AccountNotMade, make_account  # noqa: PLC0415 - heavy

    try:
        return make_account(None, context).kubeconfig
    except AccountNotMade as error:
        fail(str(error), 1)


def _text(file: Path) -> str:
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{file} cannot be read: {error}", 2)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:63].strip("-") or "cluster"


def _facts(cluster: dict[str, Any]) -> list[tuple[str, object]]:
    error, reasons = cluster.get("error") or {}, cluster["health_reasons"]
    advice = [error.get("next_step"), *(reason.get("next_step") for reason in reasons)]
    return [
        ("Name", cluster["name"]),
        ("Id", cluster["id"]),
        ("Provider", f"{cluster['provider']} ({cluster['origin'].lower()})"),
        ("Region", cluster["region"]),
        ("Status", cluster["status"]),
        ("Error", error.get("detail")),
        ("Health", cluster["health"]),
        ("Because", " ".join(reason["detail"] for reason in reasons)),
        ("Next", " ".join(step for step in advice if step)),
        ("Server", cluster["server"]),
        ("Kubernetes", cluster["kubernetes_version"]),
        ("Nodes", cluster["node_count"]),
        ("GPUs", cluster["gpu_count"]),
        ("Created", cluster["created_at"]),
    ]
