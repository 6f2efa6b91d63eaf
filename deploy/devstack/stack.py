"""Everything a person needs to try the product on one machine, started in order and stopped in reverse."""

import contextlib
import http.client
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

from devstack.children import Child
from devstack.demo import Shown, run_demo
from devstack.instance import CannotStart, Instance, Note, require_free_port
from devstack.postgres import EmbeddedPostgres, PostgresUnavailable
from devstack.tools import ToolUnavailable, ensure_tools, tool_environment

ROOT: Final = Path(__file__).resolve().parents[2]
DATABASE: Final = "budcluster_db"
_API_TIMEOUT_S: Final = 120.0
_CLUSTER_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True)
class Plan:
    """What to start."""

    state: Path
    port: int = 9082
    cluster: bool = True
    nodes: str = "h100x8:2,l40s:2,cpu-amx:1"
    clock_factor: float = 10.0
    demo: bool = False

    @property
    def url(self) -> str:
        """Where the API answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def kubeconfig(self) -> Path:
        """The sandbox cluster's administrator."""
        return self.state / "sandbox-cluster.kubeconfig"

    @property
    def hub_file(self) -> Path:
        """Where the sandbox writes the address of its model hub."""
        return self.state / "sandbox-hub.url"


def reset(state: Path) -> None:
    """Forget the data. The folder itself stays, since its lock is held, and the file that our output goes to."""
    EmbeddedPostgres(state).stop()  # one that a killed supervisor left behind
    for entry in state.iterdir() if state.is_dir() else ():
        if entry.name in {"lock", "start.log"}:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


class Stack:
    """A plan at work. `run` returns when it was asked to stop or a part died."""

    def __init__(self, plan: Plan, instance: Instance, *, echo: bool) -> None:
        self._plan = plan
        self._instance = instance
        self._echo = echo
        self._stopping = threading.Event()
        self._children: list[Child] = []
        self._is_starting = True

    def run(self) -> None:
        """Start all parts, say so, and wait. Raises CannotStart with one sentence when a part does not come up."""
        plan = self._plan
        require_free_port(plan.port)
        signal.signal(signal.SIGTERM, self._ask_to_stop)
        signal.signal(signal.SIGINT, self._ask_to_stop)
        with ExitStack() as parts:
            parts.callback(self._instance.release)
            self._instance.write(Note(os.getpid(), plan.url))
            database_url = parts.enter_context(self._database())
            self._ensure_keys()
            say("tools", self._tools())
            if plan.cluster:
                cluster = parts.enter_context(self._child("sandbox cluster", self._cluster_argv(), dict(os.environ)))
                cluster.wait_until(plan.kubeconfig.exists, timeout_s=_CLUSTER_TIMEOUT_S, stopping=self._stopping)
                say("cluster", f"a new sandbox Kubernetes, kubeconfig {plan.kubeconfig}")
            environment = self._environment(database_url)
            api = parts.enter_context(
                self._child("the service", [sys.executable, "-m", "budcluster", "serve"], environment)
            )
            api.wait_until(lambda: is_ready(plan.port), timeout_s=_API_TIMEOUT_S, stopping=self._stopping)
            say("service", f"{plan.url} (API reference: {plan.url}/docs)")
            shown = run_demo(plan.url, plan.kubeconfig) if plan.demo else None
            self._is_starting = False
            self._instance.write(Note(os.getpid(), plan.url, ready=True))
            self._say_what_next(shown)
            while not self._stopping.wait(0.5):
                self._check_children()
            say("stopping", "the data is kept; start again to go on")

    def _ask_to_stop(self, _signal: int, _frame: FrameType | None) -> None:
        """The first signal ends the start at once, be it in the middle of a download; later ones change nothing."""
        is_first = not self._stopping.is_set()
        self._stopping.set()
        if is_first and self._is_starting:
            raise KeyboardInterrupt

    def _check_children(self) -> None:
        for child in self._children:
            if child.process.poll() is not None:
                raise CannotStart(f"{child.name} ended with exit code {child.process.returncode}:\n{child.tail()}")

    @contextlib.contextmanager
    def _database(self) -> Iterator[str]:
        if given := os.environ.get("DATABASE_URL"):
            say("database", "the one that DATABASE_URL names")
            yield given
            return
        server = EmbeddedPostgres(self._plan.state)
        try:
            server.start()
        except PostgresUnavailable as error:
            raise CannotStart(str(error)) from error
        try:
            server.ensure_database(DATABASE)
            say("database", f"embedded PostgreSQL, data in {server.data}")
            yield server.url(DATABASE)
        finally:
            server.stop()

    def _ensure_keys(self) -> None:
        folder = ROOT / "crypto-keys"
        argv = [sys.executable, "-m", "budcluster.credentials.keys", "make", "--dir", str(folder)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise CannotStart(done.stderr.strip() or "the encryption keys could not be made.")
        say("keys", f"in {folder}")

    def _tools(self) -> str:
        try:
            ensure_tools()
        except ToolUnavailable as error:
            raise CannotStart(str(error)) from error
        return "Helm, kubectl and kubernetes.core are in place"

    @contextlib.contextmanager
    def _child(self, name: str, argv: list[str], environment: dict[str, str]) -> Iterator[Child]:
        log_file = self._plan.state / f"{name.removeprefix('the ').replace(' ', '-')}.log"
        child = Child(name, argv, env=environment, log_file=log_file, echo=self._echo and name == "the service")
        self._children.append(child)
        try:
            yield child
        finally:
            child.stop()

    def _cluster_argv(self) -> list[str]:
        plan = self._plan
        plan.kubeconfig.unlink(missing_ok=True)
        options = [
            "--nodes",
            plan.nodes,
            "--clock-factor",
            str(plan.clock_factor),
            "--kubeconfig",
            str(plan.kubeconfig),
            "--hub-file",
            str(plan.hub_file),
        ]
        return [sys.executable, "-m", "sandbox", *options]

    def _environment(self, database_url: str) -> dict[str, str]:
        defaults = {
            "RSA_PRIVATE_KEY_PATH": str(ROOT / "crypto-keys/rsa-private-key.pem"),
            "SYMMETRIC_KEY_PATH": str(ROOT / "crypto-keys/symmetric-key-256"),
            "ANSIBLE_PLAYBOOKS_PATH": str(ROOT / "playbooks"),
            "TERRAFORM_WORKSPACE": str(self._plan.state / "terraform"),
            "KUBERNETES__WORKSPACE": str(self._plan.state / "tools"),
            "KUBERNETES__ALLOW_LOCAL_SERVERS": "true",
            "ADDONS__CHART_MIRROR": str(ROOT / "deploy/sandbox/charts"),
        }
        tools = tool_environment()
        defaults["KUBERNETES__COLLECTIONS_PATH"] = tools["ANSIBLE_COLLECTIONS_PATH"]
        if self._plan.cluster:
            defaults["MODEL_HUB__URL"] = self._plan.hub_file.read_text()
        given = {"DATABASE_URL": database_url, "HOST": "127.0.0.1", "PORT": str(self._plan.port)}
        return {**defaults, **os.environ, **tools, **given}

    def _say_what_next(self, shown: Shown | None) -> None:
        plan = self._plan
        budcluster = shlex.quote(str(ROOT / ".venv/bin/budcluster"))
        if plan.port != Plan.port:
            budcluster = f"BUDCLUSTER_URL={plan.url} {budcluster}"
        lines = [f"curl {plan.url}/clusters", f"{budcluster} clusters list"]
        if shown:
            lines = shown.commands(budcluster, plan.url)
        elif plan.cluster:
            lines.append(f"{budcluster} clusters onboard {shlex.quote(str(plan.kubeconfig))} --name lab")
        how_to_stop = "Ctrl-C" if self._echo else self._instance.stop_command
        print("\nTry next:", *lines, sep="\n  ")  # noqa: T201 - this is the program's output
        print(f"Stop with: {how_to_stop}", flush=True)  # noqa: T201


def say(part: str, sentence: str) -> None:
    """One line for the person at the terminal."""
    print(f"  {part:<9} {sentence}", flush=True)  # noqa: T201 - this is the program's output


def is_ready(port: int) -> bool:
    """Whether the API answers 200 to /readyz."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
