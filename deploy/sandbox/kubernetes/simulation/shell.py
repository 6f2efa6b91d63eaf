"""The few commands that `exec` understands inside a simulated container."""

from __future__ import annotations

from sandbox.kubernetes.contracts import ExecResult
from sandbox.kubernetes.simulation.containers import Container
from sandbox.kubernetes.simulation.gpu_runtime import visible_devices
from sandbox.kubernetes.simulation.machines import Device
from sandbox.kubernetes.simulation.surroundings import ConfigProblem, environment
from sandbox.kubernetes.simulation.world import World


def run_command(world: World, container: Container, command: list[str]) -> ExecResult:  # noqa: PLR0911 -- a table
    """Run one command; an unknown one ends with 127 as a missing file would."""
    name, words = command[0].rsplit("/", 1)[-1], command[1:]
    if name in ("sh", "bash", "ash") and words[:1] in (["-c"], ["-lc"], ["-ec"]) and len(words) > 1:
        return _script(world, container, words[1])
    match name:
        case "echo":
            return ExecResult(stdout=(" ".join(words) + "\n").encode())
        case "true" | "sleep" | "ls" | "touch" | "mkdir" | "sh" | "bash":
            return ExecResult()
        case "false":
            return ExecResult(code=1)
        case "hostname":
            return ExecResult(stdout=f"{container.pod.name}\n".encode())
        case "cat":
            return _cat(container, words)
        case "env" | "printenv":
            return _environment(world, container, words)
        case "date":
            return ExecResult(stdout=f"{world.now()}\n".encode())
        case "nvidia-smi":
            return _nvidia_smi(container, words)
        case _:
            text = f'exec: "{command[0]}": executable file not found in $PATH: unknown\n'
            return ExecResult(stderr=text.encode(), code=127)


def _script(world: World, container: Container, text: str) -> ExecResult:
    output, errors, code = b"", b"", 0
    for part in text.replace("&&", ";").split(";"):
        words = part.split()
        if not words:
            continue
        if words[0] == "exit":
            return ExecResult(output, errors, int(words[1]) if len(words) > 1 and words[1].isdigit() else code)
        result = run_command(world, container, [word.strip("\"'") for word in words])
        output, errors, code = output + result.stdout, errors + result.stderr, result.code
    return ExecResult(output, errors, code)


def _cat(container: Container, words: list[str]) -> ExecResult:
    if words == ["/etc/hostname"]:
        return ExecResult(stdout=f"{container.pod.name}\n".encode())
    missing = "".join(f"cat: {word}: No such file or directory\n" for word in words)
    return ExecResult(stderr=missing.encode(), code=1 if words else 0)


def _environment(world: World, container: Container, words: list[str]) -> ExecResult:
    try:
        env = environment(world.store, container.pod.current(), container.spec)
    except ConfigProblem:
        env = {}
    env["HOSTNAME"] = container.pod.name
    if words:
        found = [env[word] for word in words if word in env]
        return ExecResult(stdout="".join(f"{value}\n" for value in found).encode(), code=0 if found else 1)
    return ExecResult(stdout="".join(f"{name}={value}\n" for name, value in sorted(env.items())).encode())


def _nvidia_smi(container: Container, words: list[str]) -> ExecResult:
    pod = container.pod
    devices = visible_devices(pod.current(), pod.machine, pod.machine.devices_of(pod.uid))
    if not devices:
        text = 'exec: "nvidia-smi": executable file not found in $PATH: unknown\n'
        return ExecResult(stderr=text.encode(), code=127)
    if words[:1] == ["-L"]:
        rows = [f"GPU {number}: {one.model.name} (UUID: {one.uuid})" for number, one in enumerate(devices)]
        return ExecResult(stdout=("\n".join(rows) + "\n").encode())
    rows = [_row(number, one, pod.machine.driver or "") for number, one in enumerate(devices)]
    return ExecResult(stdout=("\n".join(rows) + "\n").encode())


def _row(number: int, device: Device, driver: str) -> str:
    return f"{number}, {device.model.name}, {device.uuid}, {driver}, {device.model.memory_mib} MiB"
