"""`budcluster keys`: the encryption keys of this installation."""

import asyncio
from collections.abc import Coroutine
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

import typer
from rich.progress import Progress

from budcluster.cli.client import fail
from budcluster.cli.local import load_settings
from budcluster.cli.output import Json, out, print_facts, print_json
from budcluster.kit.errors import DomainError

if TYPE_CHECKING:
    from budcluster.config import Settings
    from budcluster.credentials.rotation import KeyStatus, Rotation

Result = TypeVar("Result")

app = typer.Typer(help="Encryption keys.", no_args_is_help=True)


@app.command()
def status(json: Json = False) -> None:
    """Show which keys there are and what is sealed with them."""
    found = _run(_status(load_settings()))
    if json:
        return print_json({**asdict(found), "unfinished": found.unfinished, "removable": found.removable})
    return print_facts(
        [
            ("Current key", f"{found.current} ({found.bits} bits)"),
            ("Next key", found.next),
            ("Former keys", ", ".join(found.retired) or None),
            ("Sealed secrets", sum(found.envelopes.values())),
            ("On a former key", found.unfinished),
            ("May be deleted", ", ".join(found.removable) or None),
        ]
    )


@app.command()
def rotate(json: Json = False) -> None:
    """Change the RSA key and wrap every secret anew, while the service runs. Repeat it if it was cut off."""
    rotation = _run(_rotate(load_settings(), show=not json))
    facts = {**asdict(rotation), "is_complete": rotation.is_complete}
    if json:
        print_json(facts)
    else:
        print_facts([(name.replace("_", " ").capitalize(), value) for name, value in facts.items()])
    if not rotation.is_complete:
        fail("the rotation is not complete; run it again, and look at the service's log for what was refused.", 1)


async def _status(settings: "Settings") -> "KeyStatus":
    from budcluster.credentials.registry import sealed_places  # noqa: PLC0415 - heavy: other commands must stay quick
    from budcluster.credentials.ring import KeyRing  # noqa: PLC0415
    from budcluster.credentials.rotation import key_status  # noqa: PLC0415
    from budcluster.kit.database import Database  # noqa: PLC0415
    from budcluster.tables import METADATA  # noqa: PLC0415

    database = Database(settings.sqlalchemy_url, settings.database)
    try:
        return await key_status(database, KeyRing.from_settings(settings), sealed_places(METADATA))
    finally:
        await database.close()


async def _rotate(settings: "Settings", *, show: bool) -> "Rotation":
    from budcluster.credentials.registry import sealed_places  # noqa: PLC0415 - heavy: other commands must stay quick
    from budcluster.credentials.ring import KeyRing  # noqa: PLC0415
    from budcluster.credentials.rotation import Progress as Wrapped  # noqa: PLC0415
    from budcluster.credentials.rotation import rotate as run  # noqa: PLC0415
    from budcluster.kit.database import Database  # noqa: PLC0415
    from budcluster.tables import METADATA  # noqa: PLC0415

    database = Database(settings.sqlalchemy_url, settings.database)
    with Progress(console=out, disable=not show) as progress:
        bar = progress.add_task("Wrapping secrets anew", total=None)

        def on_progress(wrapped: Wrapped) -> None:
            progress.update(bar, completed=wrapped.done, total=wrapped.total)

        try:
            return await run(
                database,
                KeyRing.from_settings(settings),
                sealed_places(METADATA),
                actor="command-line",
                on_progress=on_progress,
            )
        finally:
            await database.close()


def _run(work: Coroutine[Any, Any, Result]) -> Result:
    try:
        return asyncio.run(work)
    except DomainError as error:
        fail(error.detail, 1)
