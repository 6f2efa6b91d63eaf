"""`budcluster tokens`: who may use the API."""

import typer

app = typer.Typer(help="API tokens.", no_args_is_help=True)
