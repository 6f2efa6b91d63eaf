"""Ctrl-C, whenever it comes."""

import subprocess
import sys

START = """
import os, signal, sys

class Interrupts:
    def find_spec(self, name, *_):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupts())
sys.argv = ["budcluster", "--version"]
from budcluster.main import main
main()
"""


def test_an_interruption_while_the_command_starts_ends_it_without_a_traceback() -> None:
    for module in ("typer", "budcluster.cli.deploy"):
        done = subprocess.run(
            [sys.executable, "-c", START.format(module=module)], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
