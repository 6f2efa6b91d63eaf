"""The main job on the sandbox cluster, through the command line as a user would do it."""

import base64
import json
import os
import ssl
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import yaml

from devstack.instance import CannotStart

MODEL: Final = "Qwen/Qwen2.5-7B-Instruct"
_PROMPT: Final = "Say hello to a platform engineer."
_TIMEOUT_S: Final = 900


def run_demo(url: str, kubeconfig: Path) -> None:
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


class _User:
    """Somebody at a shell."""

    def __init__(self, url: str) -> None:
        self._environment = {**os.environ, "BUDCLUSTER_URL": url, "COLUMNS": "120"}

    def does(self, *arguments: str) -> None:
        """Run a command and show what it says."""
        _say(f"budcluster {' '.join(arguments)}")
        done = subprocess.run(self._argv(arguments), env=self._environment, timeout=_TIMEOUT_S, check=False)
        if done.returncode != 0:
            raise CannotStart(f"`budcluster {' '.join(arguments)}` failed; the reason is above.")

    def finds(self, deployment: str) -> dict[str, Any]:
        """A deployment by its name."""
        found: dict[str, Any] = self._asked("deployments", "show", deployment)
        return found

    def _asked(self, *arguments: str) -> Any:
        argv = self._argv((*arguments, "--json"))
        done = subprocess.run(
            argv, env=self._environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
        if done.returncode != 0:
            raise CannotStart(done.stderr.strip())
        return json.loads(done.stdout)

    def _argv(self, arguments: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "budcluster", *arguments]


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
