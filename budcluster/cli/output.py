"""How results are shown: tables for people, JSON for programs."""

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.prompt import Confirm
from rich.table import Table

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=500, help="How many to print at the most.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask whether this is meant.")]
Column = tuple[str, Callable[[Mapping[str, Any]], object]]

out = Console(highlight=False, soft_wrap=True)
_WHOLE_ROW = 10_000
"""Characters: no row is wider."""

_COLORS = {
    "READY": "green", "RUNNING": "green", "SUCCEEDED": "green", "HEALTHY": "green",
    "ERROR": "red", "FAILED": "red", "UNREACHABLE": "red",
    "DEGRADED": "yellow", "CANCELLING": "yellow", "UPDATING": "yellow", "DELETING": "yellow",
}  # fmt: skip


def require_yes(question: str, *, yes: bool) -> None:
    """Ask a person whether this is meant; a program that calls meant it. Ends the program with code 1 on a no."""
    if (
        not yes
        and sys.stdin.isatty()
        and not Confirm.ask(escape(question), console=Console(stderr=True), default=False)
    ):
        raise typer.Exit(1)


def print_json(value: Any) -> None:
    """JSON on standard output, nothing else."""
    typer.echo(json.dumps(value, indent=2))


def print_table(items: Iterable[Mapping[str, Any]], columns: list[Column], *, empty: str) -> None:
    """A table, or a sentence where there is nothing to show."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, _ in columns:
        table.add_column(title, overflow="fold")
    rows = [[cell(value(item)) for _, value in columns] for item in items]
    if not rows:
        out.print(empty)
        return
    for row in rows:
        table.add_row(*row)
    _show(table)


def print_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Names and values, one a line."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(name, cell(value))
    _show(table)


def _show(table: Table) -> None:
    """Fold cells to fit a screen; give programs and files each row on one line."""
    if out.file.isatty():
        out.print(table, soft_wrap=False)
    else:
        _print_rows(table)


def _print_rows(table: Table) -> None:
    console = Console(file=out.file, width=_WHOLE_ROW, highlight=False)
    with console.capture() as printed:
        console.print(table)
    out.file.writelines(f"{line.rstrip()}\n" for line in printed.get().splitlines())


def cell(value: object) -> str:
    """One value as Rich markup; text from outside is escaped."""
    if value is None or value == "":
        return "[dim]-[/dim]"
    text = escape(str(value))
    color = _COLORS.get(str(value))
    return f"[{color}]{text}[/{color}]" if color else text


def upper(text: str | None) -> str | None:
    """A status as the service spells it."""
    return text and text.upper()


def age(timestamp: str | None) -> str | None:
    """How long ago an ISO timestamp was, in one unit: `42s`, `7m`, `3h`, `12d`."""
    if timestamp is None:
        return None
    seconds = max(0, int((datetime.now(UTC) - datetime.fromisoformat(timestamp)).total_seconds()))
    return _in_one_unit(seconds)


def ahead(timestamp: str | None) -> str | None:
    """How far an ISO timestamp is ahead: `about 40s`; None where nobody knows."""
    if timestamp is None:
        return None
    seconds = max(1, int((datetime.fromisoformat(timestamp) - datetime.now(UTC)).total_seconds()))
    return f"about {_in_one_unit(seconds)}"


def _in_one_unit(seconds: int) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
