import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from budcluster.kit.command import (
    Command,
    Completed,
    Interrupts,
    Line,
    SecretOnCommandLine,
    Stream,
    ToolFailed,
    ToolMissing,
    ToolOutputTooLarge,
    ToolTimedOut,
)
from budcluster.kit.lines import LONGEST_LINE
from budcluster.kit.process import ProcessSlots, run
from budcluster.kit.process_guard import ProcessGuard
from tests.kit.tools import POLITE, STUBBORN, is_gone, number_in, python
from tests.waiting import until_true


class TestCommand:
    def test_a_secret_among_the_arguments_is_refused_without_repeating_it(self) -> None:
        with pytest.raises(SecretOnCommandLine) as refused:
            Command(argv=("helm", "--token=hunter22"), secrets=("hunter22",))
        assert "hunter22" not in str(refused.value)

    def test_its_repr_shows_no_environment_input_or_secret(self) -> None:
        command = Command(argv=("x",), env={"A": "hunter22"}, stdin=b"hunter22", secrets=("hunter22",))
        assert "hunter22" not in repr(command)

    @pytest.mark.parametrize("argv", [(), ("",), ("x", "a\0b")])
    def test_arguments_that_no_program_can_get_are_refused(self, argv: tuple[str, ...]) -> None:
        with pytest.raises(ValueError, match="program"):
            Command(argv=argv)

    def test_an_impossible_variable_is_refused(self) -> None:
        with pytest.raises(ValueError, match="variable"):
            Command(argv=("x",), env={"A=B": "c"})

    def test_only_a_few_variables_are_inherited(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DATABASE_URL", "postgresql://secret")
        monkeypatch.setenv("https_proxy", "http://proxy")
        monkeypatch.setenv("SSL_CERT_FILE", "/ca.pem")
        seen = Command(argv=("x",), env={"EXTRA": "1"}).environment()
        assert {"https_proxy", "SSL_CERT_FILE", "EXTRA", "PATH"} <= seen.keys()
        assert "DATABASE_URL" not in seen


class TestRun:
    async def test_lines_arrive_with_their_stream_and_the_result_keeps_standard_output(self) -> None:
        lines: list[Line] = []
        program = "import sys; print('one'); print('two\\r'); print('bad', file=sys.stderr); print('end', end='')"
        done = await run(python(program), on_line=lines.append)
        assert [line.text for line in lines if line.stream is Stream.STDOUT] == ["one", "two", "end"]
        assert [line.text for line in lines if line.stream is Stream.STDERR] == ["bad"]
        assert [line.offset for line in lines if line.stream is Stream.STDOUT] == [4, 9, 12]
        assert done.stdout == b"one\ntwo\r\nend"
        assert done.exit_code == 0

    async def test_the_tool_reads_its_input_and_sees_only_its_environment(self) -> None:
        program = "import os, sys; print(len(sys.stdin.read()), os.environ['GIVEN'], 'TEST_ONLY' in os.environ)"
        os.environ["TEST_ONLY"] = "1"
        try:
            done = await run(python(program, stdin=b"x" * 1_000_000, env={"GIVEN": "here"}))
        finally:
            del os.environ["TEST_ONLY"]
        assert done.stdout == b"1000000 here False\n"

    async def test_without_input_the_tool_reads_nothing(self) -> None:
        assert (await run(python("import sys; print(repr(sys.stdin.read()))"))).stdout == b"''\n"

    async def test_lines_longer_than_any_buffer_survive(self) -> None:
        lines: list[Line] = []
        await run(python("print('x' * 700_000); print('y')"), on_line=lines.append)
        assert [len(line.text) for line in lines] == [700_000, 1]

    async def test_an_endless_line_is_cut_and_no_piece_of_a_secret_stays_at_the_cut(self) -> None:
        lines: list[Line] = []
        program = "import os; s = os.environ['S']; print(s * (3_000_000 // len(s))); print('next')"
        await run(python(program, env={"S": "0123456789abcdef!"}, secrets=("0123456789abcdef!",)), on_line=lines.append)
        assert len(lines[0].text) <= LONGEST_LINE + 100
        assert lines[0].text.endswith("(line cut)")
        assert "0123" not in lines[0].text
        assert lines[1].text == "next"

    async def test_secrets_are_masked_before_any_sink_and_in_errors(self) -> None:
        lines: list[Line] = []
        program = "import os, sys; print(os.environ['HF_TOKEN'], os.environ['OTHER']); sys.exit(4)"
        command = python(program, env={"HF_TOKEN": "by-its-name", "OTHER": "declared"}, secrets=("declared",))
        with pytest.raises(ToolFailed) as failed:
            await run(command, on_line=lines.append)
        assert lines[0].text == "*** ***"
        assert failed.value.exit_code == 4
        assert "by-its-name" not in str(failed.value)
        assert "declared" not in str(failed.value)
        assert "*** ***" in str(failed.value)

    async def test_bytes_that_are_no_text_do_not_stop_it(self) -> None:
        lines: list[Line] = []
        program = "import sys; sys.stdout.buffer.write(b'\\xff\\x00a\\n\\xc3'); sys.stdout.flush()"
        await run(python(program), on_line=lines.append)
        assert [line.text for line in lines] == ["\ufffda", "\ufffd"]

    async def test_other_exit_codes_may_mean_success(self) -> None:
        assert (await run(python("import sys; sys.exit(2)", ok=frozenset({0, 2})))).exit_code == 2

    async def test_death_by_a_signal_is_a_failure_that_names_it(self) -> None:
        with pytest.raises(ToolFailed, match="signal 9"):
            await run(python("import os; os.kill(os.getpid(), 9)"))

    async def test_a_missing_program_or_folder_is_told_apart(self, tmp_path: Path) -> None:
        with pytest.raises(ToolMissing, match="no-such-tool"):
            await run(Command(argv=("no-such-tool",)))
        with pytest.raises(ToolMissing, match="folder"):
            await run(python("", cwd=tmp_path / "absent"))

    async def test_too_much_output_ends_it(self) -> None:
        with pytest.raises(ToolOutputTooLarge):
            await run(python("while True: print('x' * 1000)", capture_bytes=10_000))

    async def test_a_sink_that_fails_ends_the_tool(self, tmp_path: Path) -> None:
        def sink(line: Line) -> None:
            raise LookupError(line.text)

        with pytest.raises(LookupError, match="started"):
            await run(python(STUBBORN, str(tmp_path / "a"), str(tmp_path / "b"), grace_s=60), on_line=sink)
        assert is_gone(await number_in(tmp_path / "a"))

    async def test_out_of_time_it_is_interrupted_then_killed_with_its_children(self, tmp_path: Path) -> None:
        parent, child = tmp_path / "parent", tmp_path / "child"
        with pytest.raises(ToolTimedOut, match="started"):
            await run(python(STUBBORN, str(parent), str(child), timeout_s=2, grace_s=0.1))
        assert is_gone(await number_in(parent))
        child_pid = await number_in(child)
        await until_true(lambda: is_gone(child_pid))

    async def test_a_cancelled_run_waits_until_the_tool_has_put_its_things_in_order(self) -> None:
        lines: list[str] = []
        task = asyncio.create_task(run(python(POLITE, "0.2", grace_s=10), on_line=lambda line: lines.append(line.text)))
        await until_true(lambda: "started" in lines)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()  # impatience changes nothing
        with pytest.raises(asyncio.CancelledError):
            await task
        assert lines == ["started", "interrupted 1", "in order"]

    async def test_a_command_may_have_its_whole_group_interrupted(self, tmp_path: Path) -> None:
        program = """
import os, signal, sys, time
def end(number, frame):
    open(sys.argv[1], "a").write("child\\n" if child == 0 else "parent\\n")
    os._exit(0)
signal.signal(signal.SIGINT, end)
child = os.fork()
if child == 0:
    print("started")
else:
    os.waitpid(child, 0)
time.sleep(60)
"""
        log, lines = tmp_path / "log", list[str]()
        command = python(program, str(log), interrupts=Interrupts.GROUP)
        task = asyncio.create_task(run(command, on_line=lambda line: lines.append(line.text)))
        await until_true(lambda: "started" in lines)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert "parent" in log.read_text()

    async def test_children_that_a_tool_leaves_behind_are_killed(self, tmp_path: Path) -> None:
        program = "import os, sys, time\nif os.fork() == 0:\n open(sys.argv[1], 'w').write(f'{os.getpid()}\\n')\n"
        program += " time.sleep(60)\nwhile not os.path.exists(sys.argv[1]): time.sleep(0.01)\n"
        await run(python(program, str(tmp_path / "child")))
        child = await number_in(tmp_path / "child")
        await until_true(lambda: is_gone(child))

    async def test_somebody_who_left_the_session_cannot_hold_the_run_open(self, tmp_path: Path) -> None:
        program = "import os, sys, time\nif os.fork() == 0:\n os.setsid()\n"
        program += " open(sys.argv[1], 'w').write(f'{os.getpid()}\\n')\n time.sleep(60)\n"
        program += "while not os.path.exists(sys.argv[1]): time.sleep(0.01)\nprint('done')"
        try:
            async with asyncio.timeout(20):
                done = await run(python(program, str(tmp_path / "away")))
        finally:
            os.kill(await number_in(tmp_path / "away"), signal.SIGKILL)
        assert done.stdout == b"done\n"

    def test_it_works_on_uvloop(self) -> None:
        import uvloop

        async def main() -> Completed:
            return await run(python("import sys; print(sys.stdin.read())", stdin=b"hello"))

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            assert runner.run(main()).stdout == b"hello\n"

    async def test_no_descriptor_is_left_open(self) -> None:
        await run(python("print(1)"))
        before = len(list(Path("/proc/self/fd").iterdir()))
        await asyncio.gather(*(run(python("print(1)", stdin=b"x")) for _ in range(5)))
        with pytest.raises(ToolMissing):
            await run(Command(argv=("no-such-tool",), stdin=b"x"))
        assert len(list(Path("/proc/self/fd").iterdir())) == before


class TestProcessSlots:
    async def test_no_more_run_at_once_than_there_are_slots_and_the_first_comes_first(self) -> None:
        slots, most, order = ProcessSlots(2), 0, list[int]()

        async def work(number: int) -> None:
            nonlocal most
            async with slots:
                most = max(most, slots.running)
                order.append(number)
                await asyncio.sleep(0)

        await asyncio.gather(*(work(number) for number in range(8)))
        assert most == 2
        assert order == list(range(8))
        assert (slots.running, slots.waiting) == (0, 0)

    async def test_one_that_gives_up_waiting_takes_no_slot(self) -> None:
        slots = ProcessSlots(1)
        async with slots:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01), slots:
                    pass
            assert slots.waiting == 0
        async with asyncio.timeout(1), slots:
            assert slots.running == 1


class TestGuard:
    async def test_what_ran_dies_when_the_service_is_killed(self, tmp_path: Path) -> None:
        service = f"""
import asyncio, sys
from budcluster.kit.command import Command
from budcluster.kit.process import run
asyncio.run(run(Command(argv=(sys.executable, "-c", {STUBBORN!r}, *sys.argv[1:]))))
"""
        parent, child = tmp_path / "parent", tmp_path / "child"
        process = subprocess.Popen([sys.executable, "-c", service, str(parent), str(child)], stdout=subprocess.DEVNULL)
        parent_pid, child_pid = await number_in(parent), await number_in(child)
        process.kill()
        process.wait()
        await until_true(lambda: is_gone(parent_pid) and is_gone(child_pid))

    async def test_a_guard_that_was_killed_is_replaced_and_learns_what_runs(self) -> None:
        guard = ProcessGuard()
        sleepers = [
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
            for _ in range(2)
        ]
        guard.watch(sleepers[0].pid)
        assert guard._process is not None
        guard._process.kill()
        guard._process.wait()
        guard.watch(sleepers[1].pid)
        guard.close()
        assert [sleeper.wait(10) for sleeper in sleepers] == [-9, -9]
