"""Certificates, keys and tokens of a kubeconfig: do they parse, belong together, and when do they end?"""

import base64
import binascii
import hashlib
import json
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

_MOST_CERTIFICATES: Final = 100


class Unusable(ValueError):
    """What is wrong, as the end of a sentence. Never quotes the content."""


def encoded(pem: bytes) -> str:
    """Base64, as kubeconfigs hold it."""
    return base64.b64encode(pem).decode()


def decoded(data: object) -> bytes:
    """The bytes behind base64. Line breaks within are taken, as Go's decoder does. Raises Unusable."""
    if not isinstance(data, str):
        raise Unusable("is not text")
    try:
        return base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError):
        raise Unusable("is not base64") from None


def certificates(pem: bytes) -> bytes:
    """The certificates of a bundle, without anything else that was in it. Raises Unusable."""
    return b"".join(one.public_bytes(Encoding.PEM) for one in _loaded(pem))


def certificate_digests(pem: bytes) -> set[bytes]:
    """SHA-256 of each certificate, for comparing bundles whatever their order and spelling."""
    return {hashlib.sha256(one.public_bytes(Encoding.DER)).digest() for one in _loaded(pem)}


def certificate_expiry(pem: bytes) -> datetime:
    """When the first certificate ends, UTC. Raises Unusable."""
    return _loaded(pem)[0].not_valid_after_utc


def client_pair(certificate: bytes, key: bytes) -> tuple[bytes, bytes]:
    """The pair in clean PEM, if the key is the certificate's. Raises Unusable."""
    chain = _loaded(certificate)
    try:
        private = load_pem_private_key(key, password=None)
        held = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        named = chain[0].public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except TypeError:
        raise Unusable("is protected by a passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise Unusable("is not a private key in PEM form") from None
    if held != named:
        raise Unusable("do not belong together")
    return certificates(certificate), private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def token_expiry(token: str) -> datetime | None:
    """The `exp` of a token that is a JWT (RFC 7519); None for others. The signature is the API server's business."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        return datetime.fromtimestamp(claims["exp"], UTC)
    except (ValueError, KeyError, TypeError, OverflowError, OSError, RecursionError):
        return None


def _loaded(pem: bytes) -> list[x509.Certificate]:
    try:
        found = x509.load_pem_x509_certificates(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise Unusable("holds no certificate in PEM form") from None
    if not found or len(found) > _MOST_CERTIFICATES:
        raise Unusable("holds no certificate, or far too many")
    return found
