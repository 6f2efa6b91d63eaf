"""`budcluster tokens`: who may use the API. Works on the database of the settings, not through the API."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from budcluster.api.models import ApiToken, Role
from budcluster.cli.client import fail
from budcluster.cli.local import load_settings
from budcluster.cli.output import Json, age, out, print_json, print_table
from budcluster.kit.errors import DomainError

if TYPE_CHECKING:
    from budcluster.kit.database import WriteSession

Result = TypeVar("Result")

app = typer.Typer(help="API tokens.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What it is for; stands in the audit trail.")],
    role: Annotated[Role, typer.Option(help="view reads, manage changes.")] = Role.MANAGE,
    days: Annotated[int | None, typer.Option(min=1, max=3650, help="Days until it ends; default: never.")] = None,
    json: Json = False,
) -> None:
    """Make a token. It is shown once. From the first one on every call needs a token."""
    from budcluster.api.tokens import create_token  # noqa: PLC0415 - heavy: other commands must stay quick
    from budcluster.credentials.ring import KeyRing  # noqa: PLC0415

    settings = load_settings()
    expires_at = datetime.now(UTC) + timedelta(days=days) if days else None
    digest = KeyRing.from_settings(settings).token_digest

    async def work(session: "WriteSession") -> tuple[ApiToken, str]:
        return await create_token(session, digest, name=name, role=role, expires_at=expires_at)

    token, text = _run(work)
    if json:
        return print_json({**_facts(token), "token": text})
    out.print(f"Token {name} ({role.value}) is made. It is shown only now:\n")
    typer.echo(text)
    return out.print("\nUse it as BUDCLUSTER_TOKEN, or in the header Authorization: Bearer …")


@app.command("list")
def list_(json: Json = False) -> None:
    """List tokens, newest first; never their text."""
    from budcluster.api.tokens import list_tokens  # noqa: PLC0415 - heavy: other commands must stay quick

    async def work(session: "WriteSession") -> list[dict[str, Any]]:
        return [_facts(token) for token in await list_tokens(session)]

    tokens = _run(work)
    if json:
        return print_json(tokens)
    return print_table(
        tokens,
        [
            ("NAME", lambda t: t["name"]),
            ("ROLE", lambda t: t["role"]),
            ("AGE", lambda t: age(t["created_at"])),
            ("LAST USED", lambda t: age(t["last_used_at"])),
            ("EXPIRES", lambda t: t["expires_at"]),
            ("REVOKED", lambda t: t["revoked_at"]),
        ],
        empty="There are no tokens: the service listens on this machine only, and asks nobody who they are.",
    )


@app.command()
def revoke(name: Annotated[str, typer.Argument(help="Name of the token.")], json: Json = False) -> None:
    """End a token; it is refused within seconds."""
    from budcluster.api.tokens import revoke_token  # noqa: PLC0415 - heavy: other commands must stay quick

    async def work(session: "WriteSession") -> dict[str, Any]:
        return _facts(await revoke_token(session, name=name))

    token = _run(work)
    if json:
        return print_json(token)
    return out.print(f"Token {name} is revoked.")


def _run(work: "Callable[[WriteSession], Awaitable[Result]]") -> Result:
    from budcluster.kit.database import Database  # noqa: PLC0415 - heavy: other commands must stay quick

    settings = load_settings()

    async def run() -> Result:
        database = Database(settings.sqlalchemy_url, settings.database)
        try:
            async with database.writing() as session:
                return await work(session)
        finally:
            await database.close()

    try:
        return asyncio.run(run())
    except DomainError as error:
        fail(error.detail, 1)


def _facts(token: ApiToken) -> dict[str, Any]:
    def text(at: datetime | None) -> str | None:
        return at.isoformat() if at else None

    return {
        "name": token.name,
        "role": token.role.value,
        "created_at": text(token.created_at),
        "expires_at": text(token.expires_at),
        "last_used_at": text(token.last_used_at),
        "revoked_at": text(token.revoked_at),
    }
