"""The process that runs one playbook with ansible-runner: a request on standard input, events on standard output.

It stands alone so that Ansible sees a scrubbed environment, blocks nobody, and can be stopped with a signal.
"""

import contextlib
import json
import os
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import Any, Final

import ansible_runner

_MAX_MESSAGE: Final = 2000
_UNUSABLE: Final = 4  # ansible-playbook's exit code for a playbook that it cannot read (ansible-core 2.19)


def main() -> int:
    """Run the playbook that standard input names; 0 when it went through."""
    request = json.load(sys.stdin)
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    home = Path(request["home"])
    _outlived_by_nobody(str(home))
    runner = ansible_runner.run(
        private_data_dir=str(home),
        playbook=request["playbook"],
        inventory="localhost ansible_connection=local ansible_python_interpreter=" + sys.executable,
        cmdline=f"--extra-vars @{request['variables']}",
        event_handler=_tell,
        cancel_callback=stopping.is_set,
        quiet=True,
        settings={"suppress_ansible_output": True, "pexpect_timeout": 1},
    )
    if runner.rc == 127:
        _say(ended="ansible-missing")
    elif runner.rc == _UNUSABLE:
        _say(ended="unusable")
    return 0 if runner.rc == 0 else 1


def _outlived_by_nobody(home: str) -> None:
    """Have Ansible killed and our folder removed should this process die, however it dies.

    ansible-runner starts Ansible in a session of its own, out of reach for whoever kills our process group. A child
    holds the end of a pipe, and when the pipe closes it kills every process whose command line names our folder, and
    removes the folder.
    """
    reader, writer = os.pipe()
    if os.fork() == 0:
        for descriptor in (0, 1, 2, writer):
            os.close(descriptor)  # nobody waits for our output
        os.setsid()
        os.read(reader, 1)
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if home.encode() in (process / "cmdline").read_bytes():
                    os.killpg(int(process.name), signal.SIGKILL)
        shutil.rmtree(home, ignore_errors=True)
        os._exit(0)
    os.close(reader)


def _tell(event: dict[str, Any]) -> bool:
    data = event.get("event_data") or {}
    result = data.get("res") or {}
    match event.get("event"):
        case "playbook_on_task_start":
            _say(task=str(data.get("name") or data.get("task") or "task"))
        case "runner_on_ok" if result.get("changed"):
            _say(changed=True)
        case "runner_on_failed" if not data.get("ignore_errors"):
            _say(failed=str(data.get("task") or "task"), message=_message(result))
        case "runner_on_unreachable":
            _say(failed=str(data.get("task") or "task"), message=_message(result))
    for line in (event.get("stdout") or "").splitlines():
        _say(text=line)
    return False  # nothing is kept on disk


def _message(result: dict[str, Any]) -> str:
    if "censored" in result:
        return "the task failed, and its output is not shown because it may hold secrets."
    # A lookup that fails adds where in Ansible it did.
    parts = (str(result.get("msg") or "").partition("Original traceback:")[0], str(result.get("stderr") or ""))
    return " ".join(part.strip() for part in parts if part)[:_MAX_MESSAGE] or "it failed without saying why."


def _say(**event: Any) -> None:
    # Encoded, so that masking on the way cannot cut the form; the reader masks the text inside.
    sys.stdout.write(json.dumps(event).encode().hex() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
