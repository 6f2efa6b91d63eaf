"""`python -m sandbox`: a simulated cluster to try things on."""

import argparse
import asyncio
import contextlib
import signal
import sys
from pathlib import Path

from sandbox import hub
from sandbox.kubernetes.cluster import Options
from sandbox.kubernetes.pod_security import LEVELS, PRIVILEGED
from sandbox.kubernetes.server import KubernetesServer
from sandbox.kubernetes.simulation.profiles import PROFILES, UnknownProfile, parse_nodes

_DEFAULT_NODES = "h100x8:2,l40s:2,cpu-amx:1"
_DEFAULT_KUBECONFIG = Path("sandbox.kubeconfig")


def main(arguments: list[str] | None = None) -> int:
    """Start a simulated Kubernetes cluster and serve it until interrupted."""
    given = _parser().parse_args(arguments)
    factor, seed = given.clock_factor, given.seed
    level = given.pod_security
    options = Options(
        nodes=given.nodes, version=given.version, clock_factor=factor, seed=seed, pod_security=level
    )  # fmt: skip
    try:
        parse_nodes(given.nodes)
        server = KubernetesServer(options, port=given.port)
    except UnknownProfile as error:
        sys.stderr.write(f"--nodes: {error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"Port {given.port} cannot be used ({error.strerror}). Choose another with --port, or 0.\n")
        return 1
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(server, given.kubeconfig, given.hub_file))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sandbox",
        description="A simulated Kubernetes cluster that kubectl, Helm, Ansible and client libraries can use.",
    )
    parser.add_argument(
        "--nodes",
        default=_DEFAULT_NODES,
        help=f"profile:count,… (default: {_DEFAULT_NODES}); profiles are {', '.join(sorted(PROFILES))}",
    )
    parser.add_argument("--port", type=int, default=0, help="TCP port on 127.0.0.1; 0 takes a free one (default)")
    parser.add_argument(
        "--kubeconfig",
        type=Path,
        default=_DEFAULT_KUBECONFIG,
        help=f"where to write the administrator's kubeconfig (default: {_DEFAULT_KUBECONFIG})",
    )
    parser.add_argument("--hub-file", type=Path, help="serve a small model hub too, and write its address to this file")
    parser.add_argument("--version", default="1.36.2", help="the Kubernetes version to report (default: 1.36.2)")
    parser.add_argument(
        "--clock-factor",
        type=float,
        default=1.0,
        help="how many times faster than the wall clock time runs (default: 1)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random (default: 0)")
    parser.add_argument(
        "--pod-security",
        choices=LEVELS,
        default=PRIVILEGED,
        help=f"the Pod Security Standard of namespaces without a label (default: {PRIVILEGED})",
    )
    return parser


async def _serve(server: KubernetesServer, kubeconfig: Path, hub_file: Path | None) -> None:
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, server.stop)
    async with contextlib.AsyncExitStack() as parts:
        if hub_file is not None:
            url = await parts.enter_async_context(hub.serving())
            await asyncio.to_thread(hub_file.write_text, url)
            sys.stdout.write(f"Model hub at {url}\n")
        _tell(server, server.write_kubeconfig(kubeconfig).resolve())
        await server.serve()


def _tell(server: KubernetesServer, path: Path) -> None:
    sys.stdout.write(
        f"Simulated Kubernetes at {server.url}\n"
        f"  export KUBECONFIG={path}\n"
        f"  kubectl get nodes\n"
        f"Faults: POST {server.url}/sandbox/faults with the administrator's token, for example\n"
        '  {"kind": "throttle", "verbs": ["list"], "resources": ["pods"], "times": 3, "retry_after": 1}\n'
        "Ctrl-C ends it; nothing is kept.\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
