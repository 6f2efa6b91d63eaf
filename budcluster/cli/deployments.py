"""`budcluster deployments`: look at deployments."""

from itertools import islice
from typing import Annotated, Any

import typer

from budcluster.cli import deployment_logs
from budcluster.cli.choices import Choices, choices
from budcluster.cli.client import Api
from budcluster.cli.output import Json, Limit, Yes, age, print_facts, print_json, print_table, require_yes, upper
from budcluster.cli.progress import follow_or_tell

app = typer.Typer(help="Model runtimes on clusters.", no_args_is_help=True)
app.command("logs")(deployment_logs.logs)
app.command("attempts")(deployment_logs.attempts)

NameOrId = Annotated[str, typer.Argument(help="Name or id of the deployment.", metavar="DEPLOYMENT")]
Watch = Annotated[bool, typer.Option(help="Show the progress until it ends.")]
Force = Annotated[bool, typer.Option(help="Go on although the cluster has no room now.")]


@app.command("list")
def list_(
    cluster: Annotated[str | None, typer.Option(help="Only those of this cluster (name or id).")] = None,
    status: Annotated[str | None, typer.Option(callback=upper, help="Only this status, for example RUNNING.")] = None,
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


@app.command()
def scale(
    deployment: NameOrId,
    replicas: Annotated[int, typer.Argument(min=0, help="Copies; 0 parks it.", metavar="REPLICAS")],
    force: Force = False,
    watch: Watch = True,
    json: Json = False,
) -> None:
    """Change the number of copies."""
    api = Api()
    path = f"/deployments/{api.find('deployments', deployment)['id']}/scale"
    follow_or_tell(api, api.post(path, {"replicas": replicas}, force=force or None), watch=watch, json=json)


@app.command()
def change(
    deployment: NameOrId, values: Choices, force: Force = False, watch: Watch = True, json: Json = False
) -> None:
    """Run in another way; what does not serve is taken back."""
    api = Api()
    found = api.find("deployments", deployment)
    answer = api.patch(
        f"/deployments/{found['id']}", {"config": choices(values, hint="FIELD=VALUE")}, force=force or None
    )
    if "operation_id" in answer:
        return follow_or_tell(api, answer, watch=watch, json=json)
    return print_json(answer) if json else typer.echo(f"{found['name']} runs so already.")


@app.command()
def rollback(
    deployment: NameOrId,
    revision: Annotated[int | None, typer.Option(min=1, help="Default: the last one that served before.")] = None,
    force: Force = False,
    watch: Watch = True,
    json: Json = False,
) -> None:
    """Go back to an earlier revision."""
    api = Api()
    path = f"/deployments/{api.find('deployments', deployment)['id']}/rollback"
    follow_or_tell(api, api.post(path, {"revision": revision}, force=force or None), watch=watch, json=json)


@app.command()
def delete(
    deployment: NameOrId,
    yes: Yes = False,
    keep_cache: Annotated[bool, typer.Option(help="Leave the claim of the model cache in the cluster.")] = False,
    force: Annotated[bool, typer.Option(help="Forget it even when its cluster cannot be reached.")] = False,
    watch: Watch = True,
    json: Json = False,
) -> None:
    """Take a deployment out of its cluster."""
    api = Api()
    found = api.find("deployments", deployment)
    require_yes(f"Delete {found['name']}, which serves {found['model']}?", yes=yes)
    answer = api.delete(f"/deployments/{found['id']}", keep_cache=keep_cache, force=force)
    follow_or_tell(api, answer, watch=watch, json=json)


@app.command()
def revisions(deployment: NameOrId, json: Json = False) -> None:
    """List the ways in which a deployment ran."""
    api = Api()
    found = api.get(f"/deployments/{api.find('deployments', deployment)['id']}/revisions")["items"]
    if json:
        return print_json(found)
    return print_table(
        found,
        [
            ("REVISION", lambda r: f"{r['number']} *" if r["is_current"] else r["number"]),
            ("IMAGE", lambda r: r["image"]),
            ("REASON", lambda r: r["reason"]),
            ("SERVED", lambda r: "yes" if r["served_at"] else "no"),
            ("BY", lambda r: r["actor"]),
            ("AGE", lambda r: age(r["created_at"])),
        ],
        empty="There are no revisions.",
    )


def _facts(deployment: dict[str, Any]) -> list[tuple[str, object]]:
    diagnosis, error = deployment["diagnosis"] or {}, deployment["error"] or {}
    cause, failure = diagnosis.get("detail"), error.get("detail")
    replicas = deployment["replicas"]
    return [
        ("Name", deployment["name"]),
        ("Id", deployment["id"]),
        ("Cluster", deployment["cluster_id"]),
        ("Model", deployment["model"]),
        ("Runtime", deployment["runtime"]),
        ("Status", deployment["status"]),
        ("Cause", cause),
        ("Says", " | ".join(diagnosis.get("lines", ()))),
        ("Last failure", failure if failure != cause else None),
        ("Next", diagnosis.get("fix") or error.get("next_step")),
        ("Operation", error.get("operation_id")),
        ("Endpoints", ", ".join(endpoint["url"] for endpoint in deployment["endpoints"])),
        ("Replicas", f"{replicas['ready']} of {replicas['desired']} ready"),
        ("Servable", "yes" if deployment["servable"] else "no"),
        ("Release", f"{deployment['namespace']}/{deployment['helm_release']} revision {deployment['revision']}"),
        ("Created", deployment["created_at"]),
    ]
