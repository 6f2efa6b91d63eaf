"""The entry point of the `budcluster` command: everything it can do is in `budcluster.cli`."""

from budcluster.cli.app import app


def main() -> None:
    """Run the command line."""
    app()
