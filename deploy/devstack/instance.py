"""One running development stack a state folder: the lock that proves it lives, and the note that says where it is."""

import fcntl
import json
import os
import shlex
import signal
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Final

DEFAULT_STATE: Final = Path(__file__).resolve().parents[2] / ".state" / "dev"
_STOP_TIMEOUT_S: Final = 90.0


class CannotStart(Exception):
    """The stack cannot start; the message is one sentence for the person at the terminal."""


@dataclass(frozen=True)
class Note:
    """What a running stack says of itself."""

    pid: int
    url: str
    ready: bool = False


class Instance:
    """The state folder. Whoever holds its lock runs the stack; the lock goes with the process, however it dies."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self._note_file = state / "running.json"
        self._lock: IO[str] | None = None

    @property
    def stop_command(self) -> str:
        """What a person types to stop it."""
        which = "" if self.state == DEFAULT_STATE else f" --state-dir {shlex.quote(str(self.state))}"
        return f"./deploy/start_dev.sh --stop{which}"

    def claim(self) -> None:
        """Become the running stack. Raises CannotStart when another one is, or the folder holds other things."""
        try:
            self.state.mkdir(parents=True, exist_ok=True)
            # --reset empties the folder: it must never be one that somebody else keeps things in.
            if not (self.state / "lock").exists() and any(self.state.iterdir()):
                raise CannotStart(f"{self.state} holds other things; choose an empty folder with --state-dir.")
            lock = (self.state / "lock").open("a")
        except OSError as error:
            raise CannotStart(f"the state folder {self.state} cannot be written ({error.strerror}).") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            note = self.note()
            where = f" at {note.url} (process {note.pid})" if note else ""
            raise CannotStart(
                f"it is already running{where}; use it, or stop it first with {self.stop_command}."
            ) from None
        self._lock = lock

    def write(self, note: Note) -> None:
        """Tell others what runs; whoever reads meanwhile sees the former note or this one."""
        fresh = self._note_file.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(note)))
        fresh.replace(self._note_file)

    def note(self) -> Note | None:
        """What the running stack wrote, or None when none runs."""
        try:
            note = Note(**json.loads(self._note_file.read_text()))
        except (OSError, ValueError, TypeError):
            return None
        return note if self._is_held() else None

    def release(self) -> None:
        """Take the note away and let others claim the folder."""
        self._note_file.unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def stop(self) -> bool:
        """Ask the running stack to stop and wait for it. False when none runs; raises CannotStart if it will not."""
        note = self.note()
        if note is None:
            return False
        try:
            os.kill(note.pid, signal.SIGTERM)
        except ProcessLookupError:
            pass  # it is ending by itself; its lock tells when
        except PermissionError:
            raise CannotStart(f"process {note.pid} belongs to another user, who has to stop it.") from None
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        while self._is_held():
            if time.monotonic() > deadline:
                raise CannotStart(f"process {note.pid} did not stop within {_STOP_TIMEOUT_S:.0f} s; see {self.state}.")
            time.sleep(0.05)
        return True

    def _is_held(self) -> bool:
        try:
            with (self.state / "lock").open("a") as probe:
                fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return self._lock is None
        except OSError:
            return False
        return False


def require_free_port(port: int) -> None:
    """Raises CannotStart, naming the port, when something listens on it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError:
            raise CannotStart(f"port {port} is not yours to open; choose one above 1023 with --port.") from None
        except OSError:
            raise CannotStart(
                f"port {port} is taken by another program; stop that one, or choose another with --port."
            ) from None
