"""`budcluster deployments`: look at deployments."""

from itertools import islice
from typing import Annotated, Any

import typer

from budcluster.cli.client import Api
from budcluster.cli.output import Json, Limit, age, print_facts, print_json, print_table

app = typer.Typer(help="Model runtimes on clusters.", no_args_is_help=True)

NameOrId = Annotated[str, typer.Argument(help="Name or id of the deployment.", metavar="DEPLOYMENT")]


@app.command("list")
def list_(
    cluster: Annotated[str | None, typer.Option(help="Only those of this cluster (name or id).")] = None,
    status: Annotated[str | None, typer.Option(help="Only this status, for example RUNNING.")] = None,
    limit: Limit = 100,
    json: Json = False,
) -> None:
    """List deployments, newest first."""
    api = Api()
    cluster_id = api.find("clusters", cluster)["id"] if cluster else None
    pages = api.pages("/deployments", cluster_id=cluster_id, status=status, limit=min(limit, 500))
    deployments = list(islice(pages, limit))
    if json:
        return print_json(deployments)
    return print_table(
        deployments,
        [
            ("NAME", lambda d: d["name"]),
            ("MODEL", lambda d: d["model"]),
            ("RUNTIME", lambda d: d["runtime"]),
            ("STATUS", lambda d: d["status"]),
            ("READY", lambda d: f"{d['replicas']['ready']}/{d['replicas']['desired']}"),
            ("SERVABLE", lambda d: "yes" if d["servable"] else "no"),
            ("AGE", lambda d: age(d["created_at"])),
            ("ID", lambda d: d["id"]),
        ],
        empty="There are no deployments yet.",
    )


@app.command()
def show(deployment: NameOrId, json: Json = False) -> None:
    """Show one deployment."""
    found = Api().find("deployments", deployment)
    if json:
        return print_json(found)
    return print_facts(_facts(found))


def _facts(deployment: dict[str, Any]) -> list[tuple[str, object]]:
    diagnosis = deployment.get("diagnosis") or {}
    replicas = deployment["replicas"]
    return [
        ("Name", deployment["name"]),
        ("Id", deployment["id"]),
        ("Cluster", deployment["cluster_id"]),
        ("Model", deployment["model"]),
        ("Runtime", deployment["runtime"]),
        ("Status", deployment["status"]),
        ("Cause", diagnosis.get("detail")),
        ("Replicas", f"{replicas['ready']} of {replicas['desired']} ready"),
        ("Servable", "yes" if deployment["servable"] else "no"),
        ("Release", f"{deployment['namespace']}/{deployment['helm_release']} revision {deployment['revision']}"),
        ("Created", deployment["created_at"]),
    ]
