"""Why a kubeconfig is refused: one class a reason, with a stable slug and a sentence that says the way out."""

import re
from collections.abc import Sequence


class KubeconfigRefused(ValueError):
    """A kubeconfig that is not taken. `slug` names the reason for programs, `detail` tells a person what to do."""

    def __init__(self, detail: str, *, pointer: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.pointer = pointer
        """JSON pointer to the place inside the kubeconfig."""

    @property
    def slug(self) -> str:
        """The class name in kebab case."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", type(self).__name__).lower()


class SeveralProblems(KubeconfigRefused):
    """All reasons at once, each a KubeconfigRefused, so that a person can mend them in one go."""

    def __init__(self, problems: Sequence[KubeconfigRefused]) -> None:
        super().__init__(" ".join(problem.detail for problem in problems))
        self.problems = tuple(problems)


class KubeconfigTooLarge(KubeconfigRefused):
    """More than 1 MiB."""


class KubeconfigUnreadable(KubeconfigRefused):
    """Neither YAML nor JSON, or YAML with features that a kubeconfig has no use for."""


class KubeconfigMalformed(KubeconfigRefused):
    """Readable, but not of a kubeconfig's shape."""


class SeveralContexts(KubeconfigRefused):
    """Several contexts and none chosen."""

    def __init__(self, contexts: Sequence[str]) -> None:
        listed = ", ".join(contexts[:20]) + (", …" if len(contexts) > 20 else "")
        super().__init__(f"The kubeconfig has several contexts; name one of them: {listed}.", pointer="/contexts")
        self.contexts = tuple(contexts)


class ContextMissing(KubeconfigRefused):
    """The chosen context is not there, or there is none at all."""


class ExecRefused(KubeconfigRefused):
    """A program would have to run here to log in."""


class AuthProviderRefused(KubeconfigRefused):
    """The old plugin mechanism, which also runs programs."""


class FilePathRefused(KubeconfigRefused):
    """A path to a file of the uploader's machine."""


class BasicAuthRefused(KubeconfigRefused):
    """User name and password, which Kubernetes dropped in 1.19."""


class ImpersonationRefused(KubeconfigRefused):
    """Acting as somebody else."""


class ProxyRefused(KubeconfigRefused):
    """A proxy of the uploader's choice."""


class InsecureTlsRefused(KubeconfigRefused):
    """A connection that anybody in between could read."""


class NotHttps(KubeconfigRefused):
    """The server is not an https address."""


class ServerAddressInvalid(KubeconfigRefused):
    """The server address has parts that do not belong there, or cannot be read."""


class ServerAddressRefused(KubeconfigRefused):
    """The address is this machine, a link-local one, or a cloud's metadata service."""


class CredentialMissing(KubeconfigRefused):
    """Neither a token nor a client certificate with its key."""


class CredentialInvalid(KubeconfigRefused):
    """Token, certificate or key cannot be used."""


class CertificateAuthorityMissing(KubeconfigRefused):
    """No certificate authority to check the server against."""


class CertificateAuthorityInvalid(KubeconfigRefused):
    """The certificate authority is no certificate."""


class CredentialExpired(KubeconfigRefused):
    """The token or the client certificate is past its time."""
