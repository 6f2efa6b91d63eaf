"""The main job on the sandbox cluster, through the command line as a user would do it."""

import base64
import json
import os
import ssl
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import yaml

from devstack.instance import CannotStart

MODEL: Final = "Qwen/Qwen2.5-7B-Instruct"
_PROMPT: Final = "Say hello to a platform engineer."
_TIMEOUT_S: Final = 900


@dataclass(frozen=True)
class Shown:
    """What the demonstration leaves running."""

    cluster: str
    deployment: str

    def commands(self, budcluster: str, url: str) -> list[str]:
        """What to try with it."""
        return [
            f"{budcluster} clusters hardware {self.cluster}",
            f"{budcluster} deployments list",
            f"{budcluster} deployments logs {self.deployment} -f",
            f"{budcluster} deployments scale {self.deployment} 3",
            f"curl '{url}/deployments?name={self.deployment}'",
            f"{budcluster} deployments delete {self.deployment}",
        ]


def run_demo(url: str, kubeconfig: Path) -> Shown:
    """Onboard, see the GPUs, deploy, scale, read logs, ask. Raises CannotStart with the reason when a step fails."""
    config = yaml.safe_load(kubeconfig.read_text())
    # The sandbox cluster is another one at every start, on another port.
    number = urlsplit(config["clusters"][0]["cluster"]["server"]).port
    cluster, deployment = f"sandbox-{number}", f"chat-{number}"
    user = _User(url)
    user.does("clusters", "onboard", str(kubeconfig), "--name", cluster)
    user.does("clusters", "hardware", cluster)
    user.does("deploy", MODEL, "--cluster", cluster, "--name", deployment, "--runtime", "vllm")
    user.does("deployments", "scale", deployment, "2")
    user.does("deployments", "logs", deployment, "--tail", "3")
    user.does("deployments", "list")
    _say(f'asking: "{_PROMPT}"')
    print(f"    {_ask(user.finds(deployment), config)}", flush=True)  # noqa: T201 - this is the program's output
    return Shown(cluster, deployment)


class _User:
    """Somebody at a shell."""

    def __init__(self, url: str) -> None:
        self._environment = {**os.environ, "BUDCLUSTER_URL": url, "COLUMNS": "120"}

    def does(self, *arguments: str) -> None:
        """Run a command and show what it says."""
        _say(f"budcluster {' '.join(arguments)}")
        if self._ran(arguments, output=None).returncode != 0:
            raise CannotStart(f"`budcluster {' '.join(arguments)}` failed; the reason is above.")

    def finds(self, deployment: str) -> dict[str, Any]:
        """A deployment by its name."""
        done = self._ran(("deployments", "show", deployment, "--json"), output=subprocess.PIPE)
        if done.returncode != 0:
            raise CannotStart(done.stderr.strip())
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def _ran(self, arguments: tuple[str, ...], *, output: int | None) -> "subprocess.CompletedProcess[str]":
        try:
            return subprocess.run(
                [sys.executable, "-m", "budcluster", *arguments],
                env=self._environment, stdout=output, stderr=output, text=True, timeout=_TIMEOUT_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise CannotStart(
                f"`budcluster {' '.join(arguments)}` did not end within {_TIMEOUT_S} s and was stopped."
            ) from None


def _say(sentence: str) -> None:
    print(f"\n  $ {sentence}", flush=True)  # noqa: T201 - this is the program's output


def _ask(deployment: dict[str, Any], config: dict[str, Any]) -> str:
    """One prompt to the model, through the proxy of the cluster's API server."""
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    service = f"{deployment['namespace']}/services/{deployment['helm_release']}:http"
    body = {"model": deployment["name"], "messages": [{"role": "user", "content": _PROMPT}], "max_tokens": 64}
    request = urllib.request.Request(  # noqa: S310 - the address is our own cluster's
        f"{cluster['server']}/api/v1/namespaces/{service}/proxy/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {user['token']}", "Content-Type": "application/json"},
    )
    trust = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    try:
        with urllib.request.urlopen(request, context=trust, timeout=60) as answer:  # noqa: S310 - our own cluster
            content: str = json.load(answer)["choices"][0]["message"]["content"]
    except (OSError, ValueError, LookupError) as error:
        raise CannotStart(f"the model did not answer: {error}") from error
    return content
