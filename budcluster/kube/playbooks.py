"""Ansible playbooks on one cluster: the house's one door to Ansible.

ansible-runner 2.4 hands its whole environment to Ansible and writes it down, blocks its thread, and can only be killed.
So each run gets a small process of its own (`playbook_runner`), started with a scrubbed environment through
`kit.process`, which tells us what happens as lines of JSON. Variables are data: every string goes in as `!unsafe`, so
that nothing a user wrote is ever a template. The kubeconfig is a file in memory. Secrets are never variables.
"""

import json
import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog
import yaml

from budcluster.kit.command import Command, Line, LineSink, Stream, ToolFailed, ToolMissing, ToolTimedOut
from budcluster.kit.disk import raise_if_full, writing_below
from budcluster.kit.process import ProcessSlots, run
from budcluster.kit.redaction import Redactor
from budcluster.kube.kubeconfig import Kubeconfig
from budcluster.kube.playbook_homes import PlaybookHomes

log = structlog.get_logger(__name__)

_GRACE_S: Final = 20.0
_REDACTOR: Final = Redactor()


class PlaybookError(Exception):
    """A playbook did not do its work. `sentence` says which task and why."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


class PlaybookMissing(PlaybookError):
    """There is no such playbook in the playbooks folder, or it is no valid playbook. Trying again is useless."""


class AnsibleMissing(PlaybookError):
    """Ansible or its Kubernetes collection is not installed where the service runs. Trying again is useless."""


class TaskFailed(PlaybookError):
    """The playbook ended at a task of this name; the sentence is what its module said."""

    def __init__(self, task: str, sentence: str) -> None:
        super().__init__(f"{task}: {sentence}")
        self.task = task
        self.said = sentence


class PlaybookTimedOut(PlaybookError):
    """It ran longer than it may and was stopped."""


@dataclass(frozen=True, slots=True)
class PlaybookRun:
    """A playbook that went through."""

    changed: int
    """Tasks that changed something: zero on a second run."""
    tasks: int


TaskSink = Callable[[str], None]
"""Told the name of each task as it begins."""


class PlaybookGateway:
    """Runs playbooks of one folder against one cluster. Idempotent as far as the playbooks are: they all are."""

    def __init__(
        self,
        folder: Path,
        *,
        workspace: Path,
        slots: ProcessSlots,
        collections: Path | None = None,
        path: str | None = None,
    ) -> None:
        """Each run gets a folder of its own below `workspace`.

        `collections` is where kubernetes.core lies, where it is not in Ansible's own places.
        """
        self._folder = folder
        self._workspace = workspace
        self._homes = PlaybookHomes(workspace)
        self._slots = slots
        self._collections = collections
        self._path = path

    def sweep(self) -> None:
        """Remove the folders of runs whose process is dead. Blocks."""
        self._homes.sweep()

    async def run(
        self,
        playbook: str,
        kubeconfig: Kubeconfig,
        *,
        variables: Mapping[str, Any],
        timeout_s: float,
        on_task: TaskSink | None = None,
        on_line: LineSink | None = None,
    ) -> PlaybookRun:
        """Run one playbook to its end. Cancelling stops Ansible politely, then firmly.

        Raises PlaybookError, and DiskFull.
        """
        file = (self._folder / playbook).resolve()
        if not file.is_file():
            raise PlaybookMissing(f"there is no playbook {playbook} in {self._folder}; check ANSIBLE_PLAYBOOKS_PATH.")
        events = _Events(on_task, on_line)
        try:
            with self._homes.new() as home, kubeconfig.in_memory() as kubeconfig_file:
                variables_file = home / "variables.yml"
                with writing_below(self._workspace):
                    variables_file.write_text(as_data(variables))
                request = {"playbook": str(file), "variables": str(variables_file), "home": str(home)}
                command = Command(
                    argv=(sys.executable, "-m", "budcluster.kube.playbook_runner"),
                    stdin=json.dumps(request).encode(),
                    env=self._environment(home, kubeconfig_file),
                    secrets=kubeconfig.secrets,
                    timeout_s=timeout_s,
                    grace_s=_GRACE_S,
                    capture_bytes=0,
                )
                async with self._slots:
                    await run(command, on_line=events.take)
        except ToolTimedOut as error:
            raise PlaybookTimedOut(f"{playbook} did not end within {timeout_s:.0f} s and was stopped.") from error
        except ToolMissing as error:
            raise AnsibleMissing(error.sentence) from error
        except ToolFailed as error:
            raise_if_full([*events.said, *error.tail], self._workspace)
            raise events.failure(playbook, error) from error
        log.info("playbook.finished", playbook=playbook, tasks=events.tasks, changed=events.changed)
        return PlaybookRun(changed=events.changed, tasks=events.tasks)

    def _environment(self, home: Path, kubeconfig_file: str) -> dict[str, str]:
        bin_folder = str(Path(sys.executable).parent)
        return {
            "PATH": f"{bin_folder}:{self._path or '/usr/local/bin:/usr/bin:/bin'}",
            "HOME": str(home),
            "ANSIBLE_HOME": str(home / "ansible"),
            "ANSIBLE_LOCAL_TEMP": str(home / "tmp"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_RETRY_FILES_ENABLED": "0",
            "ANSIBLE_INVENTORY_UNPARSED_WARNING": "0",
            "ANSIBLE_LOCALHOST_WARNING": "0",
            "PYTHONPATH": ":".join(path for path in sys.path if path),
            "K8S_AUTH_KUBECONFIG": kubeconfig_file,
            **({"ANSIBLE_COLLECTIONS_PATH": str(self._collections)} if self._collections else {}),
        }


class _Events:
    """What the runner process tells, line by line."""

    def __init__(self, on_task: TaskSink | None, on_line: LineSink | None) -> None:
        self._on_task = on_task
        self._on_line = on_line
        self.tasks = 0
        self.changed = 0
        self._failures: list[tuple[str, str]] = []
        self._reason: str | None = None
        self.said: deque[str] = deque(maxlen=20)

    def take(self, line: Line) -> None:
        """One line of the runner's output: an event on standard output, anything else is text for the log."""
        event = self._parse(line) if line.stream is Stream.STDOUT else None
        match event:
            case {"task": str(task)}:
                self.tasks += 1
                if self._on_task:
                    self._on_task(task)
            case {"changed": True}:
                self.changed += 1
            case {"failed": str(task), "message": str(message)}:
                self._failures.append((task, message))
            case {"ended": str(reason)}:
                self._reason = reason
            case {"text": str(text)} if self._on_line:
                self._on_line(Line(line.stream, text, line.offset))
            case None if self._on_line:
                self._on_line(line)

    def _parse(self, line: Line) -> dict[str, Any] | None:
        try:
            event = json.loads(bytes.fromhex(line.text))
        except ValueError:
            return None
        if not isinstance(event, dict):
            return None
        masked = {key: _REDACTOR.mask(value) if isinstance(value, str) else value for key, value in event.items()}
        if "text" in masked:
            self.said.append(masked["text"])
        return masked

    def failure(self, playbook: str, error: ToolFailed) -> PlaybookError:
        """The best account of what went wrong."""
        if self._failures:
            return TaskFailed(*self._failures[-1])
        if self._reason == "ansible-missing":
            return AnsibleMissing("ansible-playbook is not installed where the service runs; install ansible-core.")
        text = "\n".join(line for line in (self.said or error.tail) if line)
        if "couldn't resolve module/action 'kubernetes.core" in text:
            return AnsibleMissing(
                "the Ansible collection kubernetes.core is not installed; set KUBERNETES__COLLECTIONS_PATH to the "
                "folder that holds ansible_collections/."
            )
        if self._reason == "unusable":
            return PlaybookMissing(f"{playbook} is no valid playbook: {text[-400:]}")
        return PlaybookError(f"{playbook} ended without a result: {text[-400:]}")


class _Unsafe(str):
    """A string that Ansible must not read as a template."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(_Unsafe, lambda dumper, text: dumper.represent_scalar("!unsafe", str(text), style='"'))


def as_data(variables: Mapping[str, Any]) -> str:
    """The variables as YAML in which every string, also deep inside and as a key's value, is marked as data."""

    def mark(value: Any) -> Any:
        if isinstance(value, str):
            return _Unsafe(value) if value else value  # Ansible reads an empty `!unsafe` as null
        if isinstance(value, Mapping):
            return {str(key): mark(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [mark(inner) for inner in value]
        return value

    return yaml.dump(mark(variables), Dumper=_Dumper, allow_unicode=True, sort_keys=True)
