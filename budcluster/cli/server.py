"""`budcluster serve` and `budcluster migrate`."""

import typer

from budcluster.cli.local import finish, load_settings


def serve() -> None:
    """Run the service until it is told to stop. Settings come from the environment."""
    settings = load_settings()
    from budcluster.server import serve as run  # noqa: PLC0415 - heavy: other commands must stay quick

    raise typer.Exit(run(settings))


def migrate() -> None:
    """Bring the database to this version's schema. `serve` does the same at its start."""
    settings = load_settings()
    from budcluster.migrations import migrate as run  # noqa: PLC0415 - heavy: other commands must stay quick

    finish(settings, lambda: run(settings.sqlalchemy_url))
    typer.echo("The database has this version's schema.")
