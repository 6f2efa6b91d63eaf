"""`budcluster keys`: the encryption keys of this installation."""

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer
from rich.progress import Progress

from budcluster.cli.client import fail
from budcluster.cli.local import load_settings, on_database
from budcluster.cli.output import Json, out, print_facts, print_json

if TYPE_CHECKING:
    from budcluster.config import Settings
    from budcluster.credentials.rotation import KeyStatus, Rotation
    from budcluster.kit.database import Database

app = typer.Typer(help="Encryption keys.", no_args_is_help=True)


@app.command()
def status(json: Json = False) -> None:
    """Show which keys there are and what is sealed with them."""
    settings = load_settings()
    found = on_database(settings, lambda database: _status(database, settings))
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
    settings = load_settings()
    rotation = on_database(settings, lambda database: _rotate(database, settings, show=not json))
    facts = {**asdict(rotation), "is_complete": rotation.is_complete}
    if json:
        print_json(facts)
    else:
        print_facts([(name.replace("_", " ").capitalize(), value) for name, value in facts.items()])
    if not rotation.is_complete:
        fail("the rotation is not complete; run it again, and look above for what was refused.", 1)


async def _status(database: "Database", settings: "Settings") -> "KeyStatus":
    from budcluster.credentials.registry import sealed_places  # noqa: PLC0415 - heavy: other commands must stay quick
    from budcluster.credentials.ring import KeyRing  # noqa: PLC0415
    from budcluster.credentials.rotation import key_status  # noqa: PLC0415
    from budcluster.tables import METADATA  # noqa: PLC0415

    return await key_status(database, KeyRing.from_settings(settings), sealed_places(METADATA))


async def _rotate(database: "Database", settings: "Settings", *, show: bool) -> "Rotation":
    from budcluster.credentials.registry import sealed_places  # noqa: PLC0415 - heavy: other commands must stay quick
    from budcluster.credentials.ring import KeyRing  # noqa: PLC0415
    from budcluster.credentials.rotation import Progress as Wrapped  # noqa: PLC0415
    from budcluster.credentials.rotation import rotate as run  # noqa: PLC0415
    from budcluster.tables import METADATA  # noqa: PLC0415

    with Progress(console=out, disable=not show) as progress:
        bar = progress.add_task("Wrapping secrets anew", total=None)

        def on_progress(wrapped: Wrapped) -> None:
            progress.update(bar, completed=wrapped.done, total=wrapped.total)

        ring, places = KeyRing.from_settings(settings), sealed_places(METADATA)
        return await run(database, ring, places, actor="command-line", on_progress=on_progress)
