"""`budcluster clusters`: look at clusters."""

from itertools import islice
from typing import Annotated, Any

import typer

from budcluster.cli.client import Api
from budcluster.cli.output import Json, Limit, age, print_facts, print_json, print_table

app = typer.Typer(help="Kubernetes clusters.", no_args_is_help=True)

NameOrId = Annotated[str, typer.Argument(help="Name or id of the cluster.", metavar="CLUSTER")]


@app.command("list")
def list_(
    status: Annotated[str | None, typer.Option(help="Only this status, for example READY.")] = None,
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


def _facts(cluster: dict[str, Any]) -> list[tuple[str, object]]:
    error = cluster.get("error") or {}
    return [
        ("Name", cluster["name"]),
        ("Id", cluster["id"]),
        ("Provider", f"{cluster['provider']} ({cluster['origin'].lower()})"),
        ("Region", cluster["region"]),
        ("Status", cluster["status"]),
        ("Error", error.get("detail")),
        ("Health", cluster["health"]),
        ("Kubernetes", cluster["kubernetes_version"]),
        ("Nodes", cluster["node_count"]),
        ("GPUs", cluster["gpu_count"]),
        ("Created", cluster["created_at"]),
    ]
