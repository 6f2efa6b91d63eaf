"""The keys that one process knows, kept in step with the files while it runs.

Sealing uses the current file. Opening finds the key that an envelope names: the current one, one beside it that ends
in `.next` (put there before it becomes the current one), or `.retired-<fingerprint>` (was the current one). A changed
file is noticed at the next sealing, an unknown fingerprint makes all of them be read again; so keys are rotated
without a restart.
"""

import threading
from pathlib import Path

import structlog

from budcluster.config import Settings
from budcluster.credentials.envelope import keyed_hash
from budcluster.credentials.errors import KeyUnusable, UnknownKey
from budcluster.credentials.keys import WrappingKey, load_symmetric_key, load_wrapping_key

log = structlog.get_logger(__name__)

_Stamp = tuple[int, int, int]


class KeyRing:
    """All keys of the service. Safe to share between threads."""

    def __init__(self, rsa_path: Path, symmetric_path: Path) -> None:
        """Reads nothing yet; a file that cannot be used shows when it is needed, or in `check`."""
        self.rsa_path = rsa_path
        self.symmetric_path = symmetric_path
        self._lock = threading.Lock()
        self._current: WrappingKey | None = None
        self._stamp: _Stamp | None = None
        self._known: dict[bytes, WrappingKey] = {}
        self._symmetric: bytes | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> "KeyRing":
        """The ring on the two files that the settings name."""
        return cls(settings.rsa_private_key_path, settings.symmetric_key_path)

    def __repr__(self) -> str:
        return f"KeyRing({str(self.rsa_path)!r})"

    @property
    def next_path(self) -> Path:
        """Where the coming RSA key is put."""
        return self.rsa_path.with_name(self.rsa_path.name + ".next")

    def retired_path(self, fingerprint: str) -> Path:
        """Where a former RSA key is kept."""
        return self.rsa_path.with_name(f"{self.rsa_path.name}.retired-{fingerprint}")

    def retired_paths(self) -> list[Path]:
        """Former RSA keys that are still here."""
        prefix = f"{self.rsa_path.name}.retired-"
        try:
            return sorted(path for path in self.rsa_path.parent.iterdir() if path.name.startswith(prefix))
        except OSError:
            return []

    def check(self) -> None:
        """Make sure that both keys are at hand. Reads files: call it in a thread. Raises KeyUnusable."""
        self.sealing_key()
        self.symmetric_key()

    def sealing_key(self) -> WrappingKey:
        """The key for new envelopes. Follows the file; keeps the last good key when that is damaged.

        Raises KeyUnusable.
        """
        stamp = self._stamp_of_file()
        if self._current is not None and (stamp is None or stamp == self._stamp):
            return self._current
        try:
            return self._remember(load_wrapping_key(self.rsa_path), stamp)
        except KeyUnusable as error:
            if self._current is None:
                raise
            self._stamp = stamp
            log.warning("key.reload_failed", path=str(self.rsa_path), reason=error.detail)
            return self._current

    def opening_key(self, fingerprint: bytes) -> WrappingKey:
        """The key that an envelope names; reads the files again when it is not known. Raises UnknownKey."""
        known = self._known.get(fingerprint)
        if known is not None:
            return known
        with self._lock:
            for path in (self.rsa_path, self.next_path, *self.retired_paths()):
                if path.exists():
                    self._try(path)
            found = self._known.get(fingerprint)
        if found is None:
            raise UnknownKey(fingerprint.hex())
        log.info("key.found", fingerprint=found.name)
        return found

    def symmetric_key(self) -> bytes:
        """The 32 bytes that seal bulk data and key the HMACs. Read once. Raises KeyUnusable."""
        if self._symmetric is None:
            self._symmetric = load_symmetric_key(self.symmetric_path)
        return self._symmetric

    def token_digest(self, token: str) -> bytes:
        """Keyed hash of an API token's text, 32 bytes. Raises KeyUnusable."""
        return keyed_hash(self.symmetric_key(), "api token", token.encode())

    def request_digest(self, request: bytes) -> bytes:
        """Keyed hash of a request, 32 bytes. Keyed, because its body may carry a secret. Raises KeyUnusable."""
        return keyed_hash(self.symmetric_key(), "request", request)

    def _try(self, path: Path) -> None:
        try:
            key = load_wrapping_key(path)
        except KeyUnusable as error:
            log.warning("key.skipped", path=str(path), reason=error.detail)
        else:
            self._known[key.fingerprint] = key

    def _remember(self, key: WrappingKey, stamp: _Stamp | None) -> WrappingKey:
        self._known[key.fingerprint] = key
        self._current, self._stamp = key, stamp
        return key

    def _stamp_of_file(self) -> _Stamp | None:
        try:
            status = self.rsa_path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size
