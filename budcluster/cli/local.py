"""What the commands that work on this machine share."""

from budcluster.cli.client import fail
from budcluster.config import Settings, WrongSettings


def load_settings() -> Settings:
    """The settings; ends the program with one sentence a problem."""
    try:
        return Settings.load()
    except WrongSettings as wrong:
        fail("\nbudcluster: ".join(wrong.problems), 2)
