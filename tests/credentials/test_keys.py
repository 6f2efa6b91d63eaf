"""Key files: what is refused, what is warned of, and both ways to make them."""

import os
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from structlog.testing import capture_logs

from budcluster.config import PROJECT_ROOT
from budcluster.credentials.errors import KeyUnusable, UnknownKey
from budcluster.credentials.keys import (
    RSA_NAME,
    SYMMETRIC_NAME,
    load_symmetric_key,
    load_wrapping_key,
    main,
    write_key,
)
from budcluster.credentials.ring import KeyRing
from tests.fixtures.keys import RsaPems

PLAIN = serialization.NoEncryption()
SCRIPT = PROJECT_ROOT / "setup-crypto-keys.sh"


def pem_of(private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, passphrase: bytes | None = None) -> bytes:
    protection = serialization.BestAvailableEncryption(passphrase) if passphrase else PLAIN
    return private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)


SMALL = pem_of(rsa.generate_private_key(public_exponent=65537, key_size=2048))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"no key at all", "holds no RSA private key in PEM form"),
        (SMALL[: len(SMALL) // 2], "holds no RSA private key in PEM form"),
        (SMALL, "holds an RSA key of 2048 bits"),
        (b"x" * 70_000, "more than 65536 bytes"),
        (pem_of(ec.generate_private_key(ec.SECP256R1())), "of another kind than RSA"),
        (pem_of(ec.generate_private_key(ec.SECP256R1()), b"pass"), "protected by a passphrase"),
    ],
    ids=["empty", "text", "half", "small", "huge", "elliptic", "passphrase"],
)
def test_an_rsa_key_file_is_refused_with_the_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / RSA_NAME
    path.write_bytes(content)
    with pytest.raises(KeyUnusable) as refused:
        load_wrapping_key(path)
    assert reason in refused.value.detail
    assert str(path) in refused.value.detail
    assert refused.value.detail.count("\n") == 0


def test_a_damaged_rsa_key_is_noticed_when_its_form_is_still_right(tmp_path: Path, rsa_pems: RsaPems) -> None:
    private = serialization.load_pem_private_key(rsa_pems[0], None)
    assert isinstance(private, rsa.RSAPrivateKey)
    numbers = private.private_numbers()
    wrong = rsa.RSAPrivateNumbers(
        numbers.p, numbers.q, numbers.d + 2, numbers.dmp1 + 2, numbers.dmq1 + 2, numbers.iqmp, numbers.public_numbers
    )
    path = tmp_path / RSA_NAME
    path.write_bytes(pem_of(wrong.private_key(unsafe_skip_rsa_key_validation=True)))
    with pytest.raises(KeyUnusable, match="damaged"):
        load_wrapping_key(path)


@pytest.mark.parametrize(
    "content", [bytes(range(31)), bytes(range(33)), b"", bytes(32)], ids=["31", "33", "0", "zeros"]
)
def test_a_symmetric_key_of_other_than_32_random_bytes_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / SYMMETRIC_NAME
    path.write_bytes(content)
    with pytest.raises(KeyUnusable):
        load_symmetric_key(path)


def test_a_missing_key_names_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(KeyUnusable, match=r"does not exist; \./setup-crypto-keys\.sh makes keys"):
        load_wrapping_key(tmp_path / RSA_NAME)
    with pytest.raises(KeyUnusable, match=r"is a folder|regular file"):
        load_wrapping_key(tmp_path)


def test_a_key_that_everybody_may_write_is_refused(key_folder: Path) -> None:
    (key_folder / RSA_NAME).chmod(0o602)
    with pytest.raises(KeyUnusable, match="may be written by every user"):
        load_wrapping_key(key_folder / RSA_NAME)


@pytest.mark.parametrize(
    ("mode", "warning"),
    [(0o600, None), (0o640, None), (0o644, "key.readable_by_all"), (0o660, "key.writable_by_group")],
)
def test_a_key_that_too_many_may_use_is_warned_of(key_folder: Path, mode: int, warning: str | None) -> None:
    (key_folder / SYMMETRIC_NAME).chmod(mode)
    with capture_logs() as lines:
        load_symmetric_key(key_folder / SYMMETRIC_NAME)
    assert [line["event"] for line in lines] == ([warning] if warning else [])
    assert all("chmod" in line["reason"] for line in lines)


def test_a_replaced_key_is_used_at_the_next_sealing_when_the_process_runs_on(ring: KeyRing, rsa_pems: RsaPems) -> None:
    old = ring.sealing_key()
    ring.rsa_path.rename(ring.retired_path(old.name))
    write_key(ring.rsa_path, rsa_pems[1])
    assert ring.sealing_key().name != old.name
    assert ring.opening_key(old.fingerprint) == old
    fresh = KeyRing(ring.rsa_path, ring.symmetric_path)
    assert fresh.opening_key(old.fingerprint) == old


def test_a_key_beside_the_current_one_opens_and_does_not_seal(ring: KeyRing, rsa_pems: RsaPems) -> None:
    current = ring.sealing_key()
    write_key(ring.next_path, rsa_pems[1])
    coming = load_wrapping_key(ring.next_path)
    assert ring.opening_key(coming.fingerprint) == coming
    assert ring.sealing_key() == current
    with pytest.raises(UnknownKey, match="retired-00"):
        ring.opening_key(bytes(16))


def test_the_last_good_key_is_kept_when_the_file_becomes_damaged_or_goes(ring: KeyRing) -> None:
    good = ring.sealing_key()
    ring.rsa_path.write_bytes(b"half a fi")
    assert ring.sealing_key() == good
    ring.rsa_path.unlink()
    assert ring.sealing_key() == good
    with pytest.raises(KeyUnusable):
        KeyRing(ring.rsa_path, ring.symmetric_path).check()


def test_keys_never_print(ring: KeyRing) -> None:
    key = ring.sealing_key()
    assert repr(key) == f"WrappingKey(fingerprint={key.fingerprint!r}, bits=4096)"
    assert repr(ring) == f"KeyRing({str(ring.rsa_path)!r})"


def run_script(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/bash", str(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_the_script_makes_keys_that_the_service_takes_and_never_overwrites_them(tmp_path: Path) -> None:
    folder = tmp_path / "a folder with blanks"
    made = run_script("--dir", str(folder))
    assert made.returncode == 0, made.stderr
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert before.keys() == {RSA_NAME, SYMMETRIC_NAME}
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    KeyRing(folder / RSA_NAME, folder / SYMMETRIC_NAME).check()

    again = run_script("--dir", str(folder))
    assert again.returncode == 0
    assert again.stdout.count("stays as it is") == 2
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_the_script_says_what_is_wrong_with_keys_that_are_there(key_folder: Path) -> None:
    (key_folder / SYMMETRIC_NAME).write_bytes(b"short")
    short = run_script("--dir", str(key_folder))
    assert short.returncode == 1
    assert "has 5 bytes" in short.stderr
    (key_folder / RSA_NAME).write_bytes(SMALL)
    small = run_script("--dir", str(key_folder))
    assert "has 2048 bits, and 4096 are the least" in small.stderr
    (key_folder / RSA_NAME).chmod(0o602)
    (key_folder / RSA_NAME).write_bytes(b"no key")
    assert "is no usable RSA private key" in run_script("--dir", str(key_folder)).stderr


def test_the_script_names_the_other_way_when_openssl_is_missing(tmp_path: Path) -> None:
    for tool in ("bash", "dirname"):
        (tmp_path / tool).symlink_to(f"/usr/bin/{tool}")
    refused = run_script(PATH=str(tmp_path))
    assert refused.returncode == 1
    assert "budcluster.credentials.keys make" in refused.stderr
    assert "unknown option" in run_script("--force").stderr
    assert "--group-readable" in run_script("--help").stdout


def test_python_makes_and_checks_the_same_files(key_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (key_folder / SYMMETRIC_NAME).unlink()
    before = (key_folder / RSA_NAME).read_bytes()
    assert main(["make", "--dir", str(key_folder), "--group-readable"]) == 0
    said = capsys.readouterr().out
    assert "stays as it is" in said
    assert "mode 640" in said
    assert (key_folder / RSA_NAME).read_bytes() == before
    assert (key_folder / SYMMETRIC_NAME).stat().st_mode & 0o777 == 0o640
    (key_folder / SYMMETRIC_NAME).write_bytes(b"short")
    assert main(["make", "--dir", str(key_folder)]) == 1
    assert "exactly 32" in capsys.readouterr().err
    assert main(["make", "--dir", str(key_folder / RSA_NAME)]) == 1
