"""Key files: making them, and reading them with every check that can be made before they are trusted.

    python -m budcluster.credentials.keys make --dir crypto-keys

makes the same two files as `setup-crypto-keys.sh`, on machines without openssl.
"""

import argparse
import hashlib
import os
import secrets
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from budcluster.credentials.errors import KeyUnusable

log = structlog.get_logger(__name__)

RSA_BITS: Final = 4096
SYMMETRIC_BYTES: Final = 32
FINGERPRINT_BYTES: Final = 16
RSA_NAME: Final = "rsa-private-key.pem"
SYMMETRIC_NAME: Final = "symmetric-key-256"
_LARGEST_FILE: Final = 64 * 1024
"""Bytes. The PEM of a 16384-bit key has 13 kB; more is some other file."""
_OAEP: Final = padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None)


@dataclass(frozen=True)
class WrappingKey:
    """An RSA key that wraps data keys with OAEP and SHA-256."""

    fingerprint: bytes
    """First 16 bytes of the SHA-256 of the public key (DER, SubjectPublicKeyInfo)."""
    bits: int
    _private: rsa.RSAPrivateKey = field(repr=False, compare=False)

    @classmethod
    def of(cls, private: rsa.RSAPrivateKey) -> "WrappingKey":
        """The key with its fingerprint."""
        public = private.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return cls(hashlib.sha256(public).digest()[:FINGERPRINT_BYTES], private.key_size, private)

    @property
    def name(self) -> str:
        """The fingerprint as text: 32 hexadecimal digits."""
        return self.fingerprint.hex()

    def wrap(self, data_key: bytes) -> bytes:
        """The data key, encrypted. About 0.1 ms."""
        return self._private.public_key().encrypt(data_key, _OAEP)

    def unwrap(self, wrapped: bytes) -> bytes:
        """The data key again. Some milliseconds: call it in a thread. Raises ValueError."""
        return self._private.decrypt(wrapped, _OAEP)


def load_wrapping_key(path: Path) -> WrappingKey:
    """Read an RSA private key of at least 4096 bits. Raises KeyUnusable."""
    content = _read(path)
    try:
        # OpenSSL's own check of the primes takes a third of a second; the trial below proves what is needed here.
        private = serialization.load_pem_private_key(content, password=None, unsafe_skip_rsa_key_validation=True)
    except TypeError:
        raise KeyUnusable(
            path, "is protected by a passphrase, which nobody can type at a start", "store it without one, mode 600"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise KeyUnusable(path, "holds no RSA private key in PEM form") from None
    if not isinstance(private, rsa.RSAPrivateKey):
        raise KeyUnusable(path, "holds a private key of another kind than RSA")
    if private.key_size < RSA_BITS:
        raise KeyUnusable(path, f"holds an RSA key of {private.key_size} bits, and {RSA_BITS} are the least")
    key = WrappingKey.of(private)
    if not _works(key):
        raise KeyUnusable(path, "holds a damaged RSA key: what it wraps it cannot unwrap")
    return key


def load_symmetric_key(path: Path) -> bytes:
    """Read a key of exactly 32 raw bytes. Raises KeyUnusable."""
    content = _read(path)
    if len(content) != SYMMETRIC_BYTES:
        raise KeyUnusable(path, f"holds {len(content)} bytes, and a symmetric key has exactly {SYMMETRIC_BYTES}")
    if len(set(content)) == 1:
        raise KeyUnusable(path, "holds one byte repeated, which is no key")
    return content


def _works(key: WrappingKey) -> bool:
    trial = secrets.token_bytes(SYMMETRIC_BYTES)
    try:
        return key.unwrap(key.wrap(trial)) == trial
    except ValueError:
        return False


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise KeyUnusable(path, "is no regular file")
            _check_permissions(path, status.st_mode)
            content = file.read(_LARGEST_FILE + 1)
    except FileNotFoundError:
        raise KeyUnusable(path, "does not exist") from None
    except PermissionError:
        raise KeyUnusable(path, "may not be read by the user of this process") from None
    except IsADirectoryError:
        raise KeyUnusable(path, "is a folder") from None
    except OSError as error:
        raise KeyUnusable(path, f"cannot be read ({error.strerror})") from None
    if not content:
        raise KeyUnusable(path, "is empty")
    if len(content) > _LARGEST_FILE:
        raise KeyUnusable(path, f"has more than {_LARGEST_FILE} bytes, so it is no key")
    return content


def _check_permissions(path: Path, mode: int) -> None:
    if mode & stat.S_IWOTH:
        raise KeyUnusable(
            path, "may be written by every user of this machine", "run chmod 600 on it, then make new keys"
        )
    if mode & stat.S_IROTH:
        log.warning(
            "key.readable_by_all",
            path=str(path),
            mode=f"{stat.S_IMODE(mode):o}",
            reason="every user of this machine can open all sealed secrets with it; chmod 600 ends that",
        )
    if mode & stat.S_IWGRP:
        log.warning(
            "key.writable_by_group",
            path=str(path),
            mode=f"{stat.S_IMODE(mode):o}",
            reason="any member of the file's group can replace the key; chmod g-w ends it",
        )


def new_rsa_pem() -> bytes:
    """A fresh RSA-4096 private key, PKCS#8 in PEM without passphrase, as `openssl genpkey` writes it. About 1 s."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def write_key(path: Path, content: bytes, *, mode: int = 0o600) -> bool:
    """Write a key file whole or not at all; False when one is there already: keys are never overwritten."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        # A hard link, unlike a rename, fails when the name is taken meanwhile.
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
    return True


def sync_folder(folder: Path) -> None:
    """Make new names in a folder survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_key_files(folder: Path, *, mode: int = 0o600) -> list[str]:
    """Make what is missing of both key files and check what is there; a sentence about each. Raises KeyUnusable."""
    try:
        folder.mkdir(mode=0o750 if mode & stat.S_IRGRP else 0o700, parents=True, exist_ok=True)
        said = []
        rsa_path, symmetric_path = folder / RSA_NAME, folder / SYMMETRIC_NAME
        if rsa_path.exists() or not write_key(rsa_path, new_rsa_pem(), mode=mode):
            said.append(f"{rsa_path} is there and usable (key {load_wrapping_key(rsa_path).name}); it stays as it is.")
        else:
            said.append(f"{rsa_path} is new: an RSA key of {RSA_BITS} bits, mode {mode:o}.")
        symmetric = secrets.token_bytes(SYMMETRIC_BYTES)
        if symmetric_path.exists() or not write_key(symmetric_path, symmetric, mode=mode):
            load_symmetric_key(symmetric_path)
            said.append(f"{symmetric_path} is there and usable; it stays as it is.")
        else:
            said.append(f"{symmetric_path} is new: {SYMMETRIC_BYTES} random bytes, mode {mode:o}.")
    except OSError as error:
        raise KeyUnusable(
            folder, f"cannot be made ({error.strerror})", "choose a folder that can be written with --dir"
        ) from None
    return said


def main(argv: Sequence[str] | None = None) -> int:
    """The command `make`. Exit code 0 when both keys are usable, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m budcluster.credentials.keys", description="Key files.")
    commands = parser.add_subparsers(required=True, metavar="make")
    make = commands.add_parser("make", help="make the missing key files, check those that are there")
    make.add_argument("--dir", type=Path, default=Path("crypto-keys"), help="folder of the keys (default: crypto-keys)")
    make.add_argument("--group-readable", action="store_true", help="mode 640 for new keys, for mounts into containers")
    chosen = parser.parse_args(argv)
    try:
        said = make_key_files(chosen.dir, mode=0o640 if chosen.group_readable else 0o600)
    except KeyUnusable as error:
        sys.stderr.write(f"budcluster: {error.detail}\n")
        return 1
    sys.stdout.writelines(f"budcluster: {sentence}\n" for sentence in said)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
