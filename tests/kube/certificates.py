"""Certificates and kubeconfigs for tests."""

import base64
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Pair:
    certificate: bytes
    key: bytes
    protected_key: bytes


def make_pair(name: str = "test", *, ends: datetime = NOW + timedelta(days=30)) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    made = builder.not_valid_before(ends - timedelta(days=60)).not_valid_after(ends).sign(key, hashes.SHA256())
    return Pair(
        made.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"passphrase")),
    )


AUTHORITY, CLIENT, OTHER = make_pair("ca"), make_pair("client"), make_pair("other")


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def make_jwt(claims: Any) -> str:
    parts = (json.dumps({"alg": "RS256"}).encode(), json.dumps(claims).encode(), b"signature")
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def make_document(
    *, cluster: dict[str, Any] | None = None, user: dict[str, Any] | None = None, **top: Any
) -> dict[str, Any]:
    """A good kubeconfig. Keys given are added or replaced; those given as None are left out."""
    sound = {"server": "https://10.0.0.5:6443", "certificate-authority-data": b64(AUTHORITY.certificate)}
    login = {"token": "a-bearer-token"}

    def without_none(body: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in body.items() if value is not None}

    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": without_none({**sound, **(cluster or {})})}],
        "users": [{"name": "u", "user": without_none({**login, **(user or {})})}],
        "contexts": [{"name": "ctx", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "ctx",
        **top,
    }
