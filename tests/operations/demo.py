"""A demo kind of long work with ten steps, one of which runs a real tool. Also a program: the service with that kind.

DATABASE_URL=… PORT=… python -m tests.operations.demo
"""

import asyncio
import sys
from pathlib import Path

from pydantic import BaseModel

from budcluster.app import create_app
from budcluster.bootstrap import Service, make_service
from budcluster.config import Settings
from budcluster.durable.context import Context, Steps
from budcluster.durable.errors import NonRetryableError
from budcluster.durable.execution import Execution
from budcluster.durable.refs import NEVER, ActivityRef, WorkflowRef
from budcluster.kit.command import Command
from budcluster.kit.process import run
from budcluster.operations.contracts import OperationPayload
from budcluster.operations.journal import Journals, StepJournal
from budcluster.operations.long_work import Feature
from budcluster.operations.workflow import Step, run_steps
from budcluster.server import listen
from budcluster.server import run as run_server

TOOL_STEP = "step_5"
LAST_STEP = "step_9"

TOOL = """
import signal, sys, time
from pathlib import Path
folder, manner = Path(sys.argv[1]), sys.argv[2]
def stop(*_):
    print("stopping in order", flush=True)
    if manner == "polite":
        (folder / "stopped-politely").touch()
        sys.exit(130)
signal.signal(signal.SIGINT, stop)
print("working", flush=True)
(folder / "tool-is-up").touch()
while not (folder / "go").exists():
    time.sleep(0.01)
print("done", flush=True)
"""


class DemoPayload(OperationPayload):
    """Where the demo leaves its marks, and how its tool behaves."""

    folder: str
    manner: str = "polite"


class Nothing(BaseModel):
    """No facts."""


class ToolBroke(Exception):
    """The demo's last step was told to fail."""

    next_step = "Remove the file named fail and retry."


DEMO = WorkflowRef("demo", takes=DemoPayload)
ACTS = [ActivityRef(f"step_{n}", takes=DemoPayload, gives=Nothing, retry=NEVER) for n in range(10)]
UNDO = ActivityRef("undo_step_2", takes=DemoPayload, retry=NEVER)
STEPS = tuple(Step(act.name, f"Step {n}", act=act, undo=UNDO if n == 2 else None) for n, act in enumerate(ACTS))


def demo(ctx: Context, payload: DemoPayload) -> Steps[None]:
    yield from run_steps(ctx, payload, STEPS)


class DemoActivities:
    """Ten steps that leave a line each time they are done."""

    def __init__(self, journals: Journals) -> None:
        self._journals = journals

    def step(self, name: str):  # type: ignore[no-untyped-def]
        async def activity(payload: DemoPayload, _: Execution) -> Nothing:
            async def act(journal: StepJournal) -> Nothing:
                journal.log(f"{name} begins")
                await asyncio.to_thread(note, payload.folder, name)
                if name == TOOL_STEP:
                    await self._run_tool(payload, journal)
                if name == LAST_STEP and await asyncio.to_thread((Path(payload.folder) / "fail").exists):
                    raise NonRetryableError("The tool broke.") from ToolBroke()
                return Nothing()

            return await self._journals.of(payload).run(name, act, gives=Nothing)

        return activity

    async def undo(self, payload: DemoPayload, _: Execution) -> None:
        async with self._journals.of(payload).undoing("step_2") as journal:
            journal.log("taking it back")
            await asyncio.to_thread(note, payload.folder, "undo_step_2")

    async def _run_tool(self, payload: DemoPayload, journal: StepJournal) -> None:
        grace_s = 30 if payload.manner == "polite" else 0.5
        command = Command(argv=(sys.executable, "-c", TOOL, payload.folder, payload.manner), grace_s=grace_s)
        await run(command, on_line=lambda line: journal.log(line.text))


def note(folder: str, what: str) -> None:
    """Leave a mark of what was done."""
    with (Path(folder) / "marks").open("a") as file:
        file.write(f"{what}\n")


def demo_service(settings: Settings) -> Service:
    """The whole service with the demo as a further kind of long work."""
    service = make_service(settings)
    acts = DemoActivities(service.long_work.journals)
    activities = [(ref, acts.step(ref.name)) for ref in ACTS]
    service.long_work.add(Feature(workflows=[(DEMO, demo)], activities=[*activities, (UNDO, acts.undo)]))
    return service


if __name__ == "__main__":
    loaded = Settings.load()
    run_server(create_app(loaded, demo_service(loaded)), loaded, listen(loaded.host, loaded.port))
