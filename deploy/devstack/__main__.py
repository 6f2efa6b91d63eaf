"""`python -m devstack`: what deploy/start_dev.sh runs once the environment is there; its `--help` has the options."""

import argparse
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from devstack.instance import DEFAULT_STATE, CannotStart, Instance, require_free_port
from devstack.postgres import EmbeddedPostgres
from devstack.stack import Plan, Stack, reset

_DETACH_TIMEOUT_S: Final = 900.0


def main(arguments: list[str]) -> int:
    """Exit codes: 0 done, 1 could not start (the reason is on standard error), 2 wrong options."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.demo and not options.cluster:
        parser.error("--demo needs the sandbox cluster; leave out --no-cluster")
    state = (options.state_dir or DEFAULT_STATE).absolute()
    plan = Plan(state=state, port=options.port, cluster=options.cluster, demo=options.demo)
    if options.nodes:
        plan = replace(plan, nodes=options.nodes)
    if options.clock_factor:
        plan = replace(plan, clock_factor=options.clock_factor)
    instance = Instance(state)
    try:
        if options.stop:
            stopped = instance.stop()
            EmbeddedPostgres(state).stop()  # one that a killed supervisor left behind
            print("budcluster: stopped." if stopped else "budcluster: nothing is running.")  # noqa: T201
        elif options.detach:
            _detach(arguments, plan, instance)
        else:
            _run(plan, instance, forget=options.reset, echo=not options.detached)
    except CannotStart as error:
        print(f"budcluster: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./deploy/start_dev.sh", add_help=False, allow_abbrev=False)
    parser.add_argument("--demo", action="store_true")
    parser.add_argument("--detach", action="store_true")
    parser.add_argument("--detached", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--stop", action="store_true")
    parser.add_argument("--reset", action="store_true")
    parser.add_argument("--port", type=_port, default=9082)
    parser.add_argument("--nodes")
    parser.add_argument("--no-cluster", dest="cluster", action="store_false")
    parser.add_argument("--clock-factor", type=float)
    parser.add_argument("--state-dir", type=Path)
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port; use a number from 1 to 65535")
    return int(text)


def _run(plan: Plan, instance: Instance, *, forget: bool, echo: bool) -> None:
    instance.claim()
    if forget:
        reset(plan.state)
    print("budcluster: starting", flush=True)  # noqa: T201
    Stack(plan, instance, echo=echo).run()


def _detach(arguments: list[str], plan: Plan, instance: Instance) -> None:
    """Start ourselves again in the background, show what it says until it is ready, and leave it running."""
    instance.claim()
    instance.release()
    require_free_port(plan.port)
    rest = [argument for argument in arguments if argument != "--detach"]
    said = plan.state / "start.log"
    with said.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "devstack", "--detached", *rest],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _show_until_ready(process, instance, said)
    except (CannotStart, KeyboardInterrupt):
        process.terminate()  # nothing is left running that nobody was told of
        process.wait()
        raise


def _show_until_ready(process: "subprocess.Popen[bytes]", instance: Instance, said: Path) -> None:
    with said.open() as lines:
        deadline = time.monotonic() + _DETACH_TIMEOUT_S
        while time.monotonic() < deadline:
            ended = process.poll() is not None
            note = instance.note()
            sys.stdout.write(lines.read())
            sys.stdout.flush()
            if ended:
                raise CannotStart(f"it did not start; the reason is above and in {said}.")
            if note is not None and note.ready:
                time.sleep(0.1)  # its last words follow the note
                sys.stdout.write(lines.read())
                return
            time.sleep(0.1)
    raise CannotStart(f"it was not ready after {_DETACH_TIMEOUT_S:.0f} s; see {said}.")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
