import io

import pytest
import typer
from rich.console import Console

from budcluster.cli import output

LONG = "bud-chat-fa2a8992-zzcx2fkjml-dkdxg"


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("TERM", "xterm")


def printed_on(file: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(output, "out", Console(file=file, soft_wrap=True, color_system=None))
    columns: list[output.Column] = [("POD", lambda item: item["pod"]), ("ID", lambda item: item["id"])]
    output.print_table([{"pod": LONG, "id": "x" * 300}], columns, empty="none")
    return file.getvalue().splitlines()


def test_a_pipe_gets_each_row_whole_on_one_line(narrow: None, monkeypatch: pytest.MonkeyPatch) -> None:
    _, row = printed_on(io.StringIO(), monkeypatch)
    assert row.split() == [LONG, "x" * 300]


def test_a_screen_gets_cells_folded_to_its_width(narrow: None, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed_on(Screen(), monkeypatch)
    assert len(lines) > 2
    assert max(map(len, lines)) <= 30


def test_sentences_are_left_to_the_reader_to_wrap(narrow: None, capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table([], [("POD", lambda item: item)], empty="No attempts are kept of this deployment.")
    assert capsys.readouterr().out == "No attempts are kept of this deployment.\n"


@pytest.mark.parametrize(("answer", "goes_on"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_a_person_is_asked_before_something_is_deleted(
    answer: str, goes_on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", Screen(answer))
    if goes_on:
        output.require_yes("Delete chat?", yes=False)
    else:
        with pytest.raises(typer.Exit):
            output.require_yes("Delete chat?", yes=False)


def test_neither_a_program_nor_who_said_yes_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Screen(""))
    output.require_yes("Delete chat?", yes=True)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    output.require_yes("Delete chat?", yes=False)
