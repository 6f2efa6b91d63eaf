"""What can go wrong when a cluster is asked something. The HTTP library's own errors stop at `kube.connection`.

Each carries a sentence for a person. What a server wrote is cut and masked before it becomes part of one.
"""

from typing import ClassVar, Final


class KubeError(Exception):
    """A call to a cluster did not succeed."""

    is_temporary: ClassVar[bool] = False
    """Whether the same call may succeed later without anybody doing anything."""

    def __init__(self, sentence: str, *, status: int | None = None, reason: str = "") -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.status = status
        self.reason = reason
        """The server's machine-readable reason, such as AlreadyExists."""
        self.retry_after_s = 0.0
        """How long the server asks to wait."""


class Unreachable(KubeError):
    """No answer: refused, timed out, or cut off."""

    is_temporary = True


class CertificateProblem(KubeError):
    """The server's certificate does not fit the certificate authority, the name, or the time."""


class AddressRefused(KubeError):
    """The server's name leads to this machine, its own network segment, or a metadata service. Nothing was sent."""


class Unauthorized(KubeError):
    """401: the credential is unknown or has expired."""


class Forbidden(KubeError):
    """403: the credential may not do this."""

    def __init__(self, sentence: str, *, verb: str, resource: str) -> None:
        super().__init__(sentence, status=403, reason="Forbidden")
        self.verb = verb
        self.resource = resource


class NotFound(KubeError):
    """404: no such object, or no such kind."""


class Conflict(KubeError):
    """409: it exists already, was changed meanwhile, or another manager owns a field. `reason` tells which."""


class Gone(KubeError):
    """410: the version to continue from is too old; list anew."""


class Rejected(KubeError):
    """400 or 422, or another answer that repeating will not change."""


class TooManyRequests(KubeError):
    """429, also after waiting as asked."""

    is_temporary = True


class ServerFailed(KubeError):
    """5xx, or an answer that is none."""

    is_temporary = True


_BY_STATUS: Final[dict[int, tuple[type[KubeError], str]]] = {
    401: (Unauthorized, "The cluster does not accept the credential; it may have expired."),
    404: (NotFound, "Not found: {said}"),
    409: (Conflict, "{said}"),
    410: (Gone, "The version to go on from is too old; list anew."),
    429: (TooManyRequests, "The cluster's API server is busy: {said}"),
}


def refusal(code: int, *, verb: str, resource: str, said: str, reason: str = "") -> KubeError:
    """The error for an answer of this HTTP status. `said` is the server's message, already cut and masked."""
    if code == 403:
        return Forbidden(f"The credential may not {verb} {resource}: {said}", verb=verb, resource=resource)
    if code in _BY_STATUS:
        kind, sentence = _BY_STATUS[code]
        return kind(sentence.format(said=said), status=code, reason=reason)
    if code >= 500:
        return ServerFailed(f"The cluster's API server failed: {said}", status=code, reason=reason)
    return Rejected(f"The cluster refused to {verb} {resource}: {said}", status=code, reason=reason)
