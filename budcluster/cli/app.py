"""Assembles the commands."""

from typing import Annotated

import typer

from budcluster import __version__
from budcluster.cli import deploy, deployments, inventory, keys, operations, server, tokens

app = typer.Typer(
    name="budcluster",
    help="Control plane for GPU Kubernetes clusters and the LLM runtimes on them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"budcluster {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Control plane for GPU Kubernetes clusters and the LLM runtimes on them."""


app.command("serve")(server.serve)
app.command("migrate")(server.migrate)
app.command("deploy")(deploy.deploy)
app.add_typer(keys.app, name="keys")
app.add_typer(tokens.app, name="tokens")
app.add_typer(inventory.app, name="clusters")
app.add_typer(deployments.app, name="deployments")
app.add_typer(operations.app, name="operations")
