import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from budcluster.kit import detached, process_keeper
from budcluster.kit.command import Command, Interrupts, ToolFailed, ToolMissing, ToolTimedOut, ToolVanished
from budcluster.kit.detached import AlreadyStarted, NothingToAdopt
from tests.kit.tools import POLITE, STUBBORN, is_gone, number_in, python
from tests.waiting import until_true

COUNTS = """
import os, sys, time
for n in range(3):
    print(n, os.environ.get("HF_TOKEN", ""))
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
print("last"); print("error", file=sys.stderr)
sys.exit(int(sys.argv[2]))
"""


async def test_it_runs_to_its_end_and_leaves_private_files(tmp_path: Path) -> None:
    folder, go = tmp_path / "run", tmp_path / "go"
    go.touch()
    command = python(COUNTS, str(go), "2", ok=frozenset({2}), env={"HF_TOKEN": "canary-value"})
    lines: list[str] = []
    done = await (await detached.start(command, folder)).follow(on_line=lambda line: lines.append(line.text))
    assert lines == ["0 ***", "1 ***", "2 ***", "last", "error"]
    assert done.exit_code == 2
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}


async def test_it_survives_the_death_of_the_service_and_is_followed_from_where_reading_stopped(tmp_path: Path) -> None:
    folder, go = tmp_path / "run", tmp_path / "go"
    command = python(COUNTS, str(go), "0")
    service = f"""
import asyncio
from pathlib import Path
from budcluster.kit import detached
from budcluster.kit.command import Command
async def main():
    tool = await detached.start(Command(argv={command.argv!r}), Path({str(folder)!r}))
    await tool.follow(on_line=lambda line: print(line.text, line.offset, flush=True))
asyncio.run(main())
"""
    process = subprocess.Popen([sys.executable, "-c", service], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "0  3\n"
    process.kill()
    process.wait()
    process.stdout.close()

    tool = detached.adopt(command, folder)
    assert tool.is_running
    go.touch()
    lines: list[str] = []
    done = await tool.follow(on_line=lambda line: lines.append(line.text), offset=3)
    assert lines == ["1 ", "2 ", "last", "error"]
    assert done.exit_code == 0
    assert not tool.is_running


async def test_an_ended_tool_can_be_adopted_for_its_result(tmp_path: Path) -> None:
    command = python("import sys; print('why'); sys.exit(5)")
    tool = await detached.start(command, tmp_path)
    await until_true((tmp_path / process_keeper.EXIT).exists)
    for _ in range(2):
        with pytest.raises(ToolFailed, match="exit code 5") as failed:
            await detached.adopt(command, tmp_path).follow()
        assert failed.value.tail == ("why",)
    await tool.stop()


async def test_cancelling_the_following_leaves_the_tool_alone_and_stop_ends_it_politely(tmp_path: Path) -> None:
    command = python(POLITE, "0.1", grace_s=10)
    lines: list[str] = []
    tool = await detached.start(command, tmp_path)
    task = asyncio.create_task(tool.follow(on_line=lambda line: lines.append(line.text)))
    await until_true(lambda: "started" in lines)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert tool.is_running
    await asyncio.gather(tool.stop(), detached.adopt(command, tmp_path).stop())
    assert not tool.is_running
    with pytest.raises(ToolFailed) as failed:
        await tool.follow()
    assert failed.value.tail == ("started", "interrupted 1", "in order")


@pytest.mark.parametrize("interrupts", Interrupts)
async def test_a_stubborn_tool_is_killed_with_its_children(tmp_path: Path, interrupts: Interrupts) -> None:
    parent, child = tmp_path / "parent", tmp_path / "child"
    command = python(STUBBORN, str(parent), str(child), grace_s=0.1, interrupts=interrupts)
    tool = await detached.start(command, tmp_path / "run")
    pids = [await number_in(parent), await number_in(child)]
    assert pids[0] == tool.pid
    await tool.stop()
    await until_true(lambda: all(map(is_gone, pids)))
    with pytest.raises(ToolFailed, match="signal 9"):
        await tool.follow()


async def test_time_counts_from_the_start_of_the_tool(tmp_path: Path) -> None:
    command = python(POLITE, "0", timeout_s=2, grace_s=30)
    tool = await detached.start(command, tmp_path)
    with pytest.raises(ToolTimedOut, match="started"):
        await tool.follow()
    assert not tool.is_running


async def test_a_tool_whose_keeper_was_killed_is_still_followed_but_its_exit_is_unknown(tmp_path: Path) -> None:
    go = tmp_path / "go"
    command = python(COUNTS, str(go), "0")
    tool = await detached.start(command, tmp_path / "run")
    os.kill(json.loads((tmp_path / "run" / process_keeper.PROCESS).read_text())["keeper_pid"], signal.SIGKILL)
    lines: list[str] = []
    following = asyncio.create_task(tool.follow(on_line=lambda line: lines.append(line.text)))
    await until_true(lambda: len(lines) == 3)
    go.touch()
    with pytest.raises(ToolVanished):
        await following
    assert lines[-2:] == ["last", "error"]


async def test_another_process_with_the_same_number_is_not_taken_for_the_tool(tmp_path: Path) -> None:
    tool = await detached.start(python(""), tmp_path)
    await tool.follow()
    record = json.loads((tmp_path / process_keeper.PROCESS).read_text())
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        for lie in ({"pid": stranger.pid}, {"pid": stranger.pid, "start": None}, {"boot": "another"}):
            (tmp_path / process_keeper.PROCESS).write_text(json.dumps({**record, **lie}))
            adopted = detached.adopt(python(""), tmp_path)
            assert not adopted.is_running
            await adopted.stop()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


async def test_a_missing_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(ToolMissing, match="No such file"):
        await detached.start(Command(argv=("no-such-tool",)), tmp_path)


async def test_one_folder_holds_one_tool(tmp_path: Path) -> None:
    tool = await detached.start(python(""), tmp_path)
    with pytest.raises(AlreadyStarted):
        await detached.start(python(""), tmp_path)
    await tool.follow()
    with pytest.raises(NothingToAdopt):
        detached.adopt(python(""), tmp_path / "other")


async def test_input_reaches_the_tool_without_touching_the_disk(tmp_path: Path) -> None:
    lines: list[str] = []
    tool = await detached.start(python("import sys; print(len(sys.stdin.read()))", stdin=b"x" * 200_000), tmp_path)
    await tool.follow(on_line=lambda line: lines.append(line.text))
    assert lines == ["200000"]
