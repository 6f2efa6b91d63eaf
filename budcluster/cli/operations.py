"""`budcluster operations`: what long work is doing."""

from itertools import islice
from typing import Annotated
from uuid import UUID

import typer

from budcluster.cli.client import Api
from budcluster.cli.output import Json, Limit, age, ahead, print_facts, print_json, print_table, upper
from budcluster.cli.progress import follow, not_undone

app = typer.Typer(help="Long work and its progress.", no_args_is_help=True)

OperationId = Annotated[UUID, typer.Argument(help="Id of the operation.", metavar="OPERATION")]


@app.command("list")
def list_(
    status: Annotated[str | None, typer.Option(callback=upper, help="Only this status, for example RUNNING.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only this kind, for example deploy_model.")] = None,
    cluster: Annotated[str | None, typer.Option(help="Only on this cluster itself (name or id).")] = None,
    deployment: Annotated[str | None, typer.Option(help="Only on this deployment (name or id).")] = None,
    limit: Limit = 50,
    json: Json = False,
) -> None:
    """List operations, newest first."""
    if cluster and deployment:
        raise typer.BadParameter("an operation works on a cluster or on a deployment", param_hint="--deployment")
    api = Api()
    asked = ("clusters", cluster) if cluster else ("deployments", deployment)
    subject_id = api.find(asked[0], asked[1])["id"] if asked[1] else None
    pages = api.pages("/operations", status=status, kind=kind, subject_id=subject_id, limit=limit)
    operations = list(islice(pages, limit))
    if json:
        return print_json(operations)
    return print_table(
        operations,
        [
            ("KIND", lambda o: o["kind"]),
            ("SUBJECT", lambda o: o["subject"]["name"]),
            ("STATUS", lambda o: o["status"]),
            ("DONE", lambda o: f"{o['percent']}%"),
            ("AGE", lambda o: age(o["created_at"])),
            ("ID", lambda o: o["id"]),
        ],
        empty="There are no operations yet.",
    )


@app.command()
def show(operation: OperationId, json: Json = False) -> None:
    """Show one operation with its steps."""
    found = Api().get(f"/operations/{operation}")
    if json:
        return print_json(found)
    error = found.get("error") or {}
    print_facts(
        [
            ("Id", found["id"]),
            ("Kind", found["kind"]),
            ("Subject", f"{found['subject']['type']} {found['subject']['name']}"),
            ("Status", found["status"]),
            ("Done", f"{found['percent']}%"),
            ("Ends in", ahead(found["eta"])),
            ("Cause", error.get("detail")),
            ("Next", error.get("next_step")),
            ("Not undone", ", ".join(not_undone(found))),
        ]
    )
    return print_table(
        found["steps"],
        [
            ("STEP", lambda s: s["title"]),
            ("STATUS", lambda s: s["status"]),
            ("DONE", lambda s: f"{s['percent']}%"),
            ("DETAIL", lambda s: s["detail"]),
        ],
        empty="It has no steps.",
    )


@app.command()
def watch(operation: OperationId, json: Json = False) -> None:
    """Follow an operation until it ends; exit code 1 when it failed."""
    follow(Api(), str(operation), as_json=json)


@app.command()
def logs(
    operation: OperationId,
    step: Annotated[str | None, typer.Option(help="Only of this step, for example install_release.")] = None,
    json: Json = False,
) -> None:
    """Show what the tools printed."""
    lines = Api().pages(f"/operations/{operation}/logs", step=step, limit=1000)
    if json:
        return print_json(list(lines))
    for line in lines:
        typer.echo(line["text"])
    return None


@app.command()
def cancel(operation: OperationId, json: Json = False) -> None:
    """Ask a running operation to stop and clean up."""
    answer = Api().post(f"/operations/{operation}/cancel")
    if json:
        return print_json(answer)
    return typer.echo(f"It was asked to stop; `budcluster operations watch {operation}` shows how it ends.")


@app.command()
def retry(operation: OperationId, json: Json = False) -> None:
    """Go on with a failed operation where it stopped."""
    answer = Api().post(f"/operations/{operation}/retry")
    if json:
        return print_json(answer)
    return typer.echo(f"It goes on; `budcluster operations watch {operation}` shows the progress.")
