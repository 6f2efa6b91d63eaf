"""The entry point of the `budcluster` command: everything it can do is in `budcluster.cli`."""

import sys
from typing import Final

_INTERRUPTED: Final = 130


def main() -> None:
    """Run the command line."""
    try:
        from budcluster.cli.app import app  # noqa: PLC0415 - takes a second, in which somebody may have thought better

        app()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
