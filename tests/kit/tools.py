"""Small programs that stand for outside tools, and ways to see what became of them."""

import sys
from pathlib import Path
from typing import Any

from budcluster.kit.command import Command
from budcluster.kit.process_keeper import start_time
from tests.waiting import until_true


def python(program: str, *arguments: str, **options: Any) -> Command:
    """A command that runs this Python program."""
    return Command(argv=(sys.executable, "-I", "-S", "-u", "-c", program, *arguments), **options)


async def number_in(path: Path) -> int:
    """The process number that a tool writes into this file."""
    await until_true(lambda: path.exists() and path.read_text().endswith("\n"))
    return int(path.read_text())


def is_gone(pid: int) -> bool:
    return start_time(pid) is None


# Ignores SIGINT, leaves a child that does too, and writes both process numbers into files.
STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
if os.fork() == 0:
    open(sys.argv[2], "w").write(f"{os.getpid()}\\n")
    time.sleep(60)
    os._exit(0)
open(sys.argv[1], "w").write(f"{os.getpid()}\\n")
print("started")
time.sleep(60)
"""

# Puts its things in order when interrupted, and counts the interrupts.
POLITE = """
import signal, sys, time
count = 0
def interrupted(number, frame):
    global count
    count += 1
    print("interrupted", count)
signal.signal(signal.SIGINT, interrupted)
print("started")
while not count:
    time.sleep(0.01)
deadline = time.monotonic() + float(sys.argv[1])
while time.monotonic() < deadline:
    time.sleep(0.01)
print("in order")
sys.exit(3)
"""
