"""`budcluster tokens`: who may use the API. Works on the database of the settings, not through the API."""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from budcluster.cli.local import load_settings, on_database
from budcluster.cli.output import Json, age, out, print_json, print_table

if TYPE_CHECKING:
    from budcluster.api.models import ApiToken
    from budcluster.kit.database import Database, WriteSession

app = typer.Typer(help="API tokens.", no_args_is_help=True)


class Role(StrEnum):
    """What a token may do."""

    VIEW = "view"
    MANAGE = "manage"


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What it is for; stands in the audit trail.")],
    role: Annotated[Role, typer.Option(help="view reads, manage changes.")] = Role.MANAGE,
    days: Annotated[int | None, typer.Option(min=1, max=3650, help="Days until it ends; default: never.")] = None,
    json: Json = False,
) -> None:
    """Make a token. It is shown once. From the first one on every call needs a token."""
    from budcluster.api.models import Role as TokenRole  # noqa: PLC0415 - heavy: other commands must stay quick
    from budcluster.api.tokens import create_token  # noqa: PLC0415
    from budcluster.credentials.ring import KeyRing  # noqa: PLC0415
    from budcluster.migrations import migrate  # noqa: PLC0415

    settings = load_settings()
    expires_at = datetime.now(UTC) + timedelta(days=days) if days else None

    async def work(database: "Database") -> tuple["ApiToken", str]:
        digest = KeyRing.from_settings(settings).token_digest
        # The first token is made before the first start, which would do this.
        await migrate(settings.sqlalchemy_url)
        async with database.writing() as session:
            kind = TokenRole(role.value)
            made, text = await create_token(session, digest, name=name, role=kind, expires_at=expires_at)
            await _record(session, "token.created", made)
        return made, text

    token, text = on_database(settings, work)
    if json:
        return print_json({**_facts(token), "token": text})
    out.print(f"Token {name} ({role.value}) is made. It is shown only now:\n")
    typer.echo(text)
    return out.print("\nUse it as BUDCLUSTER_TOKEN, or in the header Authorization: Bearer …")


@app.command("list")
def list_(json: Json = False) -> None:
    """List tokens, newest first; never their text."""
    from budcluster.api.tokens import list_tokens  # noqa: PLC0415 - heavy: other commands must stay quick

    async def work(database: "Database") -> list[dict[str, Any]]:
        async with database.reading() as session:
            return [_facts(token) for token in await list_tokens(session)]

    tokens = on_database(load_settings(), work)
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

    async def work(database: "Database") -> dict[str, Any]:
        async with database.writing() as session:
            revoked = await revoke_token(session, name=name)
            await _record(session, "token.revoked", revoked)
            return _facts(revoked)

    token = on_database(load_settings(), work)
    if json:
        return print_json(token)
    return out.print(f"Token {name} is revoked.")


async def _record(session: "WriteSession", action: str, token: "ApiToken") -> None:
    from budcluster.audit import services as audit  # noqa: PLC0415 - heavy: other commands must stay quick

    await audit.record(
        session,
        actor="command-line",
        action=action,
        subject_type="token",
        subject_id=token.id,
        subject_name=token.name,
        facts={"role": token.role.value},
    )


def _facts(token: "ApiToken") -> dict[str, Any]:
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
