"""The form in which secrets are stored, version 1.

A sealed secret:

    offset  bytes  what
    0       4      "BUDS"
    4       1      version, 1
    5       16     fingerprint of the RSA key that wraps the data key
    21      32     SHA-256 of the owner: table, column and row
    53      2      length of the wrapped key, big-endian
    55      n      data key (AES-256), wrapped with RSA-OAEP, SHA-256
    55+n    12     nonce
    67+n    …      AES-256-GCM ciphertext and tag; associated data: magic, version, owner hash

Because the owner hash is part of the associated data, an envelope that was moved to another row still proves whose it
was: swapped rows and altered bytes are told apart. The wrapped key is not part of it, so a key can be rotated without
touching the secret.

Bulk data is sealed with the symmetric key alone (`seal_bulk`); each piece has a key of its own, derived by HKDF
(RFC 5869).
"""

import hashlib
import hmac
import secrets
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from budcluster.credentials.errors import NotAnEnvelope, Tampered, TooLarge, UnknownKey, WrongOwner
from budcluster.credentials.keys import FINGERPRINT_BYTES, WrappingKey

MAGIC: Final = b"BUDS\x01"
BULK_MAGIC: Final = b"BUDB\x01"
FINGERPRINT_AT: Final = len(MAGIC)
LARGEST_SECRET: Final = 1024 * 1024 + 4096
"""Bytes of one secret: a kubeconfig of 1 MiB and a little."""
LARGEST_BULK: Final = 64 * 1024 * 1024
"""Bytes of one bulk piece. It is sealed in memory; a Terraform state of 64 MiB would be absurd."""

_OWNER_AT: Final = FINGERPRINT_AT + FINGERPRINT_BYTES
_LENGTH_AT: Final = _OWNER_AT + 32
_WRAPPED_AT: Final = _LENGTH_AT + 2
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_KEY_ID_BYTES: Final = 8
_SALT_BYTES: Final = 32
_BULK_HEADER: Final = len(BULK_MAGIC) + _KEY_ID_BYTES + 32 + _SALT_BYTES


@dataclass(frozen=True)
class Owner:
    """The one place that a sealed secret belongs to."""

    column: str
    """`table.column`, for example `credentials.secret`."""
    row: UUID

    def digest(self) -> bytes:
        """Hash that stands for the owner in an envelope."""
        return hashlib.sha256(self.column.encode() + b"\0" + self.row.bytes).digest()


@dataclass(frozen=True)
class _Parsed:
    fingerprint: bytes
    owner: bytes
    wrapped: bytes
    nonce: bytes
    ciphertext: bytes


def seal(plaintext: bytes, owner: Owner, key: WrappingKey) -> bytes:
    """The envelope of a secret of at most `LARGEST_SECRET` bytes. Raises TooLarge."""
    if len(plaintext) > LARGEST_SECRET:
        raise TooLarge(len(plaintext), LARGEST_SECRET)
    data_key, nonce = AESGCM.generate_key(256), secrets.token_bytes(_NONCE_BYTES)
    wrapped, whose = key.wrap(data_key), owner.digest()
    ciphertext = AESGCM(data_key).encrypt(nonce, plaintext, MAGIC + whose)
    return _assemble(_Parsed(key.fingerprint, whose, wrapped, nonce, ciphertext))


def unseal(envelope: bytes, owner: Owner, key: WrappingKey) -> bytes:
    """The secret. `key` is the one that `fingerprint_of` names. Takes milliseconds.

    Raises NotAnEnvelope, UnknownKey, Tampered and WrongOwner.
    """
    parsed = _parse(envelope)
    if parsed.fingerprint != key.fingerprint:
        raise UnknownKey(parsed.fingerprint.hex())
    try:
        data_key = key.unwrap(parsed.wrapped)
        plaintext = AESGCM(data_key).decrypt(parsed.nonce, parsed.ciphertext, MAGIC + parsed.owner)
    except (ValueError, InvalidTag):
        raise Tampered from None
    # Compared after decryption: only now is the owner that the envelope names known to be the one it was sealed for.
    if not hmac.compare_digest(parsed.owner, owner.digest()):
        raise WrongOwner
    return plaintext


def rewrap(envelope: bytes, old: WrappingKey, new: WrappingKey) -> bytes:
    """The same sealed secret under another RSA key; the secret itself is not decrypted. Takes milliseconds.

    Raises NotAnEnvelope and Tampered.
    """
    parsed = _parse(envelope)
    try:
        data_key = old.unwrap(parsed.wrapped)
    except ValueError:
        raise Tampered from None
    return _assemble(
        _Parsed(new.fingerprint, parsed.owner, new.wrap(data_key), parsed.nonce, parsed.ciphertext),
    )


def fingerprint_of(envelope: bytes) -> bytes:
    """Fingerprint of the RSA key that opens an envelope. Raises NotAnEnvelope."""
    return _parse(envelope).fingerprint


def _assemble(parts: _Parsed) -> bytes:
    header = MAGIC + parts.fingerprint + parts.owner + struct.pack(">H", len(parts.wrapped))
    return header + parts.wrapped + parts.nonce + parts.ciphertext


def _parse(envelope: bytes) -> _Parsed:
    if envelope[: len(MAGIC)] != MAGIC:
        raise NotAnEnvelope
    if len(envelope) < _WRAPPED_AT:
        raise Tampered
    (length,) = struct.unpack_from(">H", envelope, _LENGTH_AT)
    nonce_at = _WRAPPED_AT + length
    if len(envelope) < nonce_at + _NONCE_BYTES + _TAG_BYTES:
        raise Tampered
    return _Parsed(
        fingerprint=envelope[FINGERPRINT_AT:_OWNER_AT],
        owner=envelope[_OWNER_AT:_LENGTH_AT],
        wrapped=envelope[_WRAPPED_AT:nonce_at],
        nonce=envelope[nonce_at : nonce_at + _NONCE_BYTES],
        ciphertext=envelope[nonce_at + _NONCE_BYTES :],
    )


def seal_bulk(plaintext: bytes, owner: Owner, key: bytes) -> bytes:
    """Bulk data (Terraform state, kept logs) under the symmetric key. 64 MiB take some 50 ms. Raises TooLarge."""
    if len(plaintext) > LARGEST_BULK:
        raise TooLarge(len(plaintext), LARGEST_BULK)
    whose, salt = owner.digest(), secrets.token_bytes(_SALT_BYTES)
    cipher, nonce = _bulk_cipher(key, salt)
    header = BULK_MAGIC + _key_id(key) + whose + salt
    return header + cipher.encrypt(nonce, plaintext, BULK_MAGIC + whose)


def unseal_bulk(envelope: bytes, owner: Owner, key: bytes) -> bytes:
    """The bulk data again. Raises NotAnEnvelope, UnknownKey, Tampered and WrongOwner."""
    if envelope[: len(BULK_MAGIC)] != BULK_MAGIC:
        raise NotAnEnvelope
    if len(envelope) < _BULK_HEADER + _TAG_BYTES:
        raise Tampered
    key_id = envelope[len(BULK_MAGIC) : len(BULK_MAGIC) + _KEY_ID_BYTES]
    if key_id != _key_id(key):
        raise UnknownKey(key_id.hex(), "put the symmetric key file back that it was sealed with")
    whose = envelope[_BULK_HEADER - _SALT_BYTES - 32 : _BULK_HEADER - _SALT_BYTES]
    cipher, nonce = _bulk_cipher(key, envelope[_BULK_HEADER - _SALT_BYTES : _BULK_HEADER])
    try:
        plaintext = cipher.decrypt(nonce, envelope[_BULK_HEADER:], BULK_MAGIC + whose)
    except InvalidTag:
        raise Tampered from None
    if not hmac.compare_digest(whose, owner.digest()):
        raise WrongOwner
    return plaintext


def _bulk_cipher(key: bytes, salt: bytes) -> tuple[AESGCM, bytes]:
    # The salt is new for every piece, so key and nonce are, too.
    derived = HKDF(hashes.SHA256(), 32 + _NONCE_BYTES, salt, b"budcluster bulk v1").derive(key)
    return AESGCM(derived[:32]), derived[32:]


def _key_id(key: bytes) -> bytes:
    return keyed_hash(key, "symmetric key id", b"")[:_KEY_ID_BYTES]


def keyed_hash(key: bytes, label: str, content: bytes) -> bytes:
    """HMAC-SHA256 under a key that is derived from the symmetric key for this label alone. 32 bytes."""
    return hmac.new(_derived(key, label), content, hashlib.sha256).digest()


@lru_cache(maxsize=16)
def _derived(key: bytes, label: str) -> bytes:
    return HKDF(hashes.SHA256(), 32, None, b"budcluster hmac v1: " + label.encode()).derive(key)
