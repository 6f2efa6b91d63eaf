"""`budcluster deployments logs`: what the model runtimes print."""

import sys
from typing import Annotated

import typer

from budcluster.cli.client import Api


def logs(
    deployment: Annotated[str, typer.Argument(help="Name or id of the deployment.", metavar="DEPLOYMENT")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new lines until interrupted.")] = False,
    previous: Annotated[bool, typer.Option(help="Of the run before a restart.")] = False,
    tail: Annotated[int | None, typer.Option(min=0, help="Last lines of each container.")] = None,
    since: Annotated[str | None, typer.Option(help="Seconds ago, or a time such as 2026-11-24T10:00:00Z.")] = None,
    container: Annotated[str | None, typer.Option("--container", "-c", help="Only this container.")] = None,
    timestamps: Annotated[bool, typer.Option(help="Begin each line with its time.")] = False,
) -> None:
    """Show the logs of a deployment's pods."""
    api = Api()
    found = api.find("deployments", deployment)
    asked = {"follow": follow, "previous": previous, "timestamps": timestamps}
    chosen = {name: "true" for name, value in asked.items() if value}
    path = f"/deployments/{found['id']}/logs"
    try:
        with api.stream(
            path,
            endless=follow,
            headers={"Accept": "text/plain"},
            tail=tail,
            since=since,
            container=container,
            **chosen,
        ) as answer:
            for text in answer.iter_text():
                sys.stdout.write(text)
                sys.stdout.flush()
    except (KeyboardInterrupt, BrokenPipeError):
        raise typer.Exit(130 if follow else 0) from None
