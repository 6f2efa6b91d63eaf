"""Facts about keys, sealed secrets and credentials that callers see as problems."""

from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from budcluster.kit.errors import Conflict, DomainError, Invalid, NotFound, UpstreamUnavailable

WAY_OUT = "./setup-crypto-keys.sh makes keys and says what is wrong with those that are there"


class KeyUnusable(UpstreamUnavailable):
    """A key file of the service cannot be used; the detail says which and why. `./setup-crypto-keys.sh` makes keys."""

    title = "A key file of the service cannot be used"

    def __init__(self, path: Path, reason: str, way_out: str = WAY_OUT) -> None:
        super().__init__(f"The key file {path} {reason}; {way_out}.")
        self.path = path
        self.reason = reason


class SealedSecretRefused(DomainError):
    """A sealed secret could not be opened. The secret was not shown to anybody; the audit trail has the attempt."""

    title = "A stored secret cannot be opened"


class NotAnEnvelope(SealedSecretRefused):
    """What is stored in a secret's place is no sealed secret. Store the secret again, or restore the row."""

    title = "The stored secret is no envelope"

    def __init__(self, detail: str = "What is stored here is no sealed secret; store the secret again.") -> None:
        super().__init__(detail)


class UnknownKey(SealedSecretRefused):
    """The secret is sealed for a key that this service does not have. Put that key file back beside the current one."""

    title = "The key of a stored secret is missing"

    def __init__(self, fingerprint: str, way_out: str | None = None) -> None:
        remedy = way_out or f"put its file back beside the current key, ending in .retired-{fingerprint}"
        super().__init__(
            f"This secret is sealed for the key {fingerprint}, which is not here; {remedy}.",
            key_fingerprint=fingerprint,
        )


class Tampered(SealedSecretRefused):
    """The sealed secret was changed after it was sealed, or is damaged. Store it again; look for the cause."""

    title = "The stored secret was altered"

    def __init__(self) -> None:
        super().__init__("This secret was changed or damaged after it was sealed; store it again.")


class WrongOwner(SealedSecretRefused):
    """The sealed secret is whole but belongs to another row: rows were swapped. Store it again, and look into it."""

    title = "The stored secret belongs to another row"

    def __init__(self) -> None:
        super().__init__("This secret was sealed for another row or column; store the right one again.")


class TooLarge(Invalid):
    """The content is larger than what is sealed in one piece."""

    title = "Content is too large to be sealed"

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"{size} bytes are more than the {limit} that are sealed in one piece; store less.")


class RotationRunning(Conflict):
    """Another process rotates the keys just now. Wait for its end; a killed one can be taken over at once."""

    title = "The keys are being rotated already"

    def __init__(self) -> None:
        super().__init__("Another process is rotating the keys of this database; wait for its end, then look again.")


class CredentialNotFound(NotFound):
    """There is no credential with this id. `GET /credentials` lists what there is."""

    title = "Credential not found"

    def __init__(self, credential_id: UUID) -> None:
        super().__init__(
            "There is no credential with this id; GET /credentials lists what there is.", credential_id=credential_id
        )


class CredentialNameTaken(Conflict):
    """Another credential has this name; `credential_id` is its id. Choose another name, or use that one."""

    title = "Credential name is taken"

    def __init__(self, name: str, credential_id: UUID) -> None:
        super().__init__(
            f"A credential named {name} exists; choose another name, or use that one.", credential_id=credential_id
        )


class CredentialExists(Conflict):
    """The same secret is stored already; `credential_id` is its id. Use that one, or delete it first."""

    title = "The same secret is stored already"

    def __init__(self, name: str, credential_id: UUID) -> None:
        super().__init__(
            f"The credential {name} holds this very secret; use that one, or delete it first.",
            credential_id=credential_id,
        )


class CredentialInUse(Conflict):
    """Something still works with this credential; `used_by` lists it. Delete or change that first."""

    title = "Credential is in use"

    def __init__(self, used_by: list[dict[str, Any]]) -> None:
        names = ", ".join(f"{user['kind']} {user['name']}" for user in used_by[:5])
        super().__init__(
            f"The credential is used by {names}; delete that first, or give it another credential.", used_by=used_by
        )


class CredentialExpired(Conflict):
    """The credential's expiry has passed. Store a fresh one and use that."""

    title = "Credential has expired"

    def __init__(self, name: str, expired_at: datetime) -> None:
        super().__init__(
            f"The credential {name} expired at {expired_at.isoformat(timespec='seconds')}; store a fresh one."
        )


class CredentialUnfit(Invalid):
    """The credential is for another purpose than this one. Use or store one of the right purpose."""

    title = "Credential has another purpose"

    def __init__(self, name: str, purpose: str, wanted: str) -> None:
        super().__init__(f"The credential {name} is for {purpose}; use one for {wanted}.")


class ExpiryInThePast(Invalid):
    """`expires_at` has passed already. Leave it out, or give the time at which the secret will stop working."""

    title = "Expiry lies in the past"

    def __init__(self) -> None:
        super().__init__(
            "expires_at has passed already; leave it out, or give a time to come.",
            errors=[{"in": "body", "pointer": "/expires_at", "code": "past", "detail": "must lie in the future"}],
        )
