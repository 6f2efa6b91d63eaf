"""Ciphertext that cannot be mistaken for its content: a value that never prints, and the column type that carries it.

Neither does any cryptography: opening is an explicit call to the vault (`budcluster.credentials`).
"""

from typing import Any

from sqlalchemy import Dialect, LargeBinary
from sqlalchemy.types import TypeDecorator


class Sealed:
    """An envelope as stored. `repr` and `str` show `***`; it cannot be pickled or serialised to JSON by accident."""

    __slots__ = ("_envelope",)

    def __init__(self, envelope: bytes) -> None:
        self._envelope = envelope

    def envelope(self) -> bytes:
        """The ciphertext with its header."""
        return self._envelope

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sealed) and other._envelope == self._envelope

    def __hash__(self) -> int:
        return hash(self._envelope)

    def __repr__(self) -> str:
        return "Sealed(***)"

    __str__ = __repr__

    def __reduce__(self) -> Any:
        raise TypeError("a sealed secret is not pickled")


class SealedColumn(TypeDecorator[Sealed]):
    """Stores the envelope as `bytea`. Every column of this type is found by key rotation and by the canary test."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: Sealed | None, dialect: Dialect) -> bytes | None:  # noqa: ARG002
        return None if value is None else value.envelope()

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> Sealed | None:  # noqa: ARG002
        return None if value is None else Sealed(value)
