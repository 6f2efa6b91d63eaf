"""`budcluster keys`: the encryption keys of this installation."""

import typer

app = typer.Typer(help="Encryption keys.", no_args_is_help=True)
