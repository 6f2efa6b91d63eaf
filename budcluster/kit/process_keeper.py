"""Stays with a detached tool when the service goes away, and writes down how it ended.

    process_keeper.py FOLDER PROGRAM [ARGUMENT …]

leaves in FOLDER
    output         what the tool wrote to standard output and error, as it came (mode 0600)
    process.json   who the tool and this keeper are: process numbers and start times, written before the tool starts
    exit.json      how the tool ended

The process that was started ends as soon as the tool runs; the keeper itself goes on as an orphan. Each JSON file
appears whole or not at all. Only the standard library may be imported: this file runs alone.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from typing import NoReturn

OUTPUT, PROCESS, EXIT = "output", "process.json", "exit.json"
_EXEC_FAILED = 127


def main() -> NoReturn:
    """Start the tool under a keeper; ends with 0 once it runs."""
    folder, argv = sys.argv[1], sys.argv[2:]
    os.umask(0o077)
    started_reader, started_writer = os.pipe()
    if os.fork() == 0:
        os.close(started_reader)
        _keep(folder, argv, started_writer)
    os.close(started_writer)
    os._exit(0 if os.read(started_reader, 1) == b"+" else 1)


def _keep(folder: str, argv: list[str], started: int) -> NoReturn:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    output = os.open(os.path.join(folder, OUTPUT), os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)  # noqa: PTH118
    go_reader, go_writer = os.pipe()
    failed_reader, failed_writer = os.pipe()
    tool = os.fork()
    if tool == 0:
        os.close(go_writer)
        _become(argv, output, go_reader, failed_writer)
    os.close(failed_writer)
    os.close(output)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    # The record comes before the tool: whoever finds no record knows that nothing ran.
    write_whole(
        folder,
        PROCESS,
        {
            "boot": boot_id(),
            "pid": tool,
            "start": start_time(tool),
            "keeper_pid": os.getpid(),
            "keeper_start": start_time(os.getpid()),
            "began": time.time(),
        },
    )
    os.write(go_writer, b"+")
    failed = os.read(failed_reader, 16)
    if not failed:
        os.write(started, b"+")
    # Looked at before it is reaped: its number still names the group, so no stranger can be killed.
    os.waitid(os.P_PID, tool, os.WEXITED | os.WNOWAIT)
    os.killpg(tool, signal.SIGKILL)
    _, status = os.waitpid(tool, 0)
    write_whole(
        folder,
        EXIT,
        {"exit_code": os.waitstatus_to_exitcode(status), "errno": int(failed or b"0"), "ended": time.time()},
    )
    os._exit(0)


def _become(argv: list[str], output: int, go: int, failed: int) -> NoReturn:
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if os.read(go, 1) == b"+":
        try:
            os.execvp(argv[0], argv)  # noqa: S606 - the purpose of this file
        except OSError as error:
            os.write(failed, str(error.errno).encode())
    os._exit(_EXEC_FAILED)


def write_whole(folder: str, name: str, content: Mapping[str, object]) -> None:
    """Write a JSON file that readers see whole or not at all, and that a crash of the machine does not tear."""
    path = f"{folder}/{name}"
    descriptor = os.open(path + ".new", os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
    os.write(descriptor, json.dumps(content).encode())
    os.fsync(descriptor)
    os.close(descriptor)
    os.replace(path + ".new", path)  # noqa: PTH105


def boot_id() -> str:
    """Changes with every start of the machine: process numbers and start times mean nothing across it."""
    with open("/proc/sys/kernel/random/boot_id") as file:  # noqa: PTH123
        return file.read().strip()


def start_time(pid: int) -> int | None:
    """Clock ticks from boot to the start of this process; None when it has ended, also if nobody has reaped it yet.

    Together with the number this names one process for ever (proc(5), field 22; field 3 is the state).
    """
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            # The second field is the program's name in brackets and may hold anything.
            fields = file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


if __name__ == "__main__":
    main()
