"""One running stack a state folder."""

import socket
from pathlib import Path

import pytest

from devstack.instance import CannotStart, Instance, Note, require_free_port


def test_a_second_start_is_told_where_the_first_one_runs(tmp_path: Path) -> None:
    first = Instance(tmp_path)
    first.claim()
    first.write(Note(pid=4711, url="http://127.0.0.1:9082"))
    with pytest.raises(CannotStart, match=r"already running at http://127.0.0.1:9082 \(process 4711\).*--stop"):
        Instance(tmp_path).claim()
    first.release()


def test_a_note_left_by_a_killed_stack_counts_for_nothing(tmp_path: Path) -> None:
    killed = Instance(tmp_path)
    killed.write(Note(pid=4711, url="http://127.0.0.1:9082", ready=True))
    assert Instance(tmp_path).note() is None
    assert Instance(tmp_path).stop() is False


def test_a_state_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotStart, match="cannot be written"):
        Instance(tmp_path / "file").claim()


def test_a_taken_port_is_named_with_the_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotStart, match=rf"port {port} is taken.*--port"):
            require_free_port(port)


def test_a_folder_with_other_things_is_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / "thesis").write_text("")
    with pytest.raises(CannotStart, match="holds other things"):
        Instance(tmp_path).claim()


def test_the_way_to_stop_names_the_folder(tmp_path: Path) -> None:
    assert Instance(tmp_path / "with blanks").stop_command.endswith(f"--stop --state-dir '{tmp_path}/with blanks'")
