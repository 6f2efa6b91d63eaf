"""A kubeconfig from outside is rebuilt, never used as it came.

Every Kubernetes client runs the program under `users[].user.exec` and reads the files that a kubeconfig names, as soon
as it loads it. So the upload is parsed as data, one context is picked, and a new document is made from it: an https
server, inline certificate authority, inline token or client certificate. All else is refused, with the way out.
"""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypeVar

import yaml

from budcluster.kube import pems
from budcluster.kube.refusals import (
    AuthProviderRefused,
    BasicAuthRefused,
    CertificateAuthorityInvalid,
    CertificateAuthorityMissing,
    ContextMissing,
    CredentialExpired,
    CredentialInvalid,
    CredentialMissing,
    ExecRefused,
    FilePathRefused,
    ImpersonationRefused,
    InsecureTlsRefused,
    KubeconfigMalformed,
    KubeconfigRefused,
    KubeconfigTooLarge,
    KubeconfigUnreadable,
    ProxyRefused,
    SeveralContexts,
    SeveralProblems,
)
from budcluster.kube.server_address import check_server, checked_name

Result = TypeVar("Result")

LARGEST_BYTES: Final = 1024 * 1024
_MOST_EVENTS: Final = 50_000
"""Parts of a YAML document. A kubeconfig with a thousand clusters has half as many."""
_DEEPEST: Final = 32
_LONGEST_TOKEN: Final = 64 * 1024
_NAMESPACE: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_NAME: Final = "cluster"
_ELSEWHERE: Final = (
    "Make a ServiceAccount on that cluster and send a kubeconfig with its token "
    "(`budcluster clusters onboard --context NAME` does this from your machine)."
)


@dataclass(frozen=True)
class Kubeconfig:
    """One server and one way to log in, all inline. `repr` shows the server only."""

    server: str
    """Normalised: lower case, no default port, no trailing slash."""
    certificate_authority: bytes = field(repr=False)
    """PEM."""
    token: str | None = field(default=None, repr=False)
    client_certificate: bytes | None = field(default=None, repr=False)
    """PEM, with its chain."""
    client_key: bytes | None = field(default=None, repr=False)
    """PEM, not encrypted."""
    tls_server_name: str | None = None
    """The name that the server's certificate must bear, where it is not the one in the address."""
    namespace: str = "default"
    expires_at: datetime | None = None
    """When token or client certificate end, if they say so. UTC."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 over server and certificate authority, hexadecimal: the same cluster, whoever logs in."""
        parts = (self.server.encode(), *sorted(pems.certificate_digests(self.certificate_authority)))
        return hashlib.sha256(b"\0".join(parts)).hexdigest()

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be seen in any output."""
        key = None if self.client_key is None else self.client_key.decode()
        return tuple(secret for secret in (self.token, key) if secret)

    def to_json(self) -> str:
        """The kubeconfig as a JSON document, which is YAML too. Holds the secrets."""
        cluster: dict[str, Any] = {
            "server": self.server,
            "certificate-authority-data": pems.encoded(self.certificate_authority),
        }
        if self.tls_server_name:
            cluster["tls-server-name"] = self.tls_server_name
        user: dict[str, Any] = {"token": self.token} if self.token else {}
        if self.client_certificate is not None and self.client_key is not None:
            user["client-certificate-data"] = pems.encoded(self.client_certificate)
            user["client-key-data"] = pems.encoded(self.client_key)
        context = {"cluster": _NAME, "user": _NAME, "namespace": self.namespace}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": _NAME, "cluster": cluster}],
            "users": [{"name": _NAME, "user": user}],
            "contexts": [{"name": _NAME, "context": context}],
            "current-context": _NAME,
        }
        return json.dumps(document)

    @contextlib.contextmanager
    def in_memory(self) -> Iterator[str]:
        """A path that holds this kubeconfig and never touches a disk; for this process and for tools it runs.

        Helm 3 and 4, kubectl 1.37, pyhelm3 and the Python clients read kubeconfigs from such paths.
        The file is gone when the block ends.
        """
        descriptor = os.memfd_create("kubeconfig", os.MFD_CLOEXEC)
        try:
            os.fchmod(descriptor, 0o600)
            with open(descriptor, "wb", closefd=False) as file:
                file.write(self.to_json().encode())
            # Not /proc/self: a tool that reads it is another process.
            yield f"/proc/{os.getpid()}/fd/{descriptor}"
        finally:
            os.close(descriptor)


def read_kubeconfig(
    text: str | bytes, *, now: datetime, context: str | None = None, allow_local: bool = False
) -> Kubeconfig:
    """Rebuild an uploaded kubeconfig. `allow_local` permits servers on this machine or a link-local address.

    Without `context` the only one is taken; of several one must be chosen, `current-context` does not count.
    Raises a KubeconfigRefused; SeveralProblems when there is more than one.
    """
    document = _parsed(text)
    clusters, users = _named(document, "clusters", "cluster"), _named(document, "users", "user")
    chosen = _chosen(_named(document, "contexts", "context"), context)
    problems: list[KubeconfigRefused] = []
    cluster, user = _referred(chosen, "cluster", clusters, problems), _referred(chosen, "user", users, problems)
    _raise(problems)

    problems += _forbidden_in_cluster(cluster)
    problems += _forbidden_in_user(user)
    server = _kept(problems, lambda: check_server(cluster.get("server"), allow_local=allow_local)) or ""
    name = _kept(problems, lambda: checked_name(cluster.get("tls-server-name")))
    authority = _kept(problems, lambda: _authority(cluster))
    token = _kept(problems, lambda: _token(user))
    pair = _kept(problems, lambda: _client_pair(user))
    if not (token or pair or any(problem.pointer.startswith("/user") for problem in problems)):
        sentence = f"The user has neither a token nor a client certificate with its key. {_ELSEWHERE}"
        problems.append(CredentialMissing(sentence, pointer="/user"))
    _raise(problems)
    return _built(server, authority or b"", token, pair, name, _namespace(chosen), now)


def _built(
    server: str,
    authority: bytes,
    token: str | None,
    pair: tuple[bytes, bytes] | None,
    name: str | None,
    namespace: str,
    now: datetime,
) -> Kubeconfig:
    ends = [end for end in (token and pems.token_expiry(token), pair and pems.certificate_expiry(pair[0])) if end]
    if ends and min(ends) <= now:
        when = f"{min(ends):%Y-%m-%d %H:%M} UTC"
        raise CredentialExpired(f"The credential ended at {when}; send a kubeconfig with a fresh one.", pointer="/user")
    certificate, key = pair or (None, None)
    return Kubeconfig(server, authority, token, certificate, key, name, namespace, min(ends, default=None))


def _parsed(text: str | bytes) -> dict[str, Any]:
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if len(raw) > LARGEST_BYTES:
        raise KubeconfigTooLarge("The kubeconfig is larger than 1 MiB; send only the context of this cluster.")
    try:
        decoded = raw.decode("utf-8-sig")
        _check_shape(decoded)
        document = yaml.load(decoded, Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError, OverflowError, AttributeError) as error:
        if isinstance(error, KubeconfigRefused):
            raise
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark is not None else ""
        # Never `from error`: parsers quote the text around the fault, and that may be a key.
        raise KubeconfigUnreadable(f"The kubeconfig is neither YAML nor JSON{where}; send the file as it is.") from None
    if not isinstance(document, dict):
        raise KubeconfigMalformed("The document is not a kubeconfig: a mapping with clusters, users and contexts is.")
    if document.get("kind", "Config") != "Config" or document.get("apiVersion", "v1") != "v1":
        raise KubeconfigMalformed("The document is not a kubeconfig: its kind is not Config of apiVersion v1.")
    return document


def _check_shape(text: str) -> None:
    """Refuse what a kubeconfig has no use for before anything is built: aliases can blow up a small file."""
    depth = 0
    for number, event in enumerate(yaml.parse(text, Loader=yaml.CSafeLoader)):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise KubeconfigUnreadable("The kubeconfig uses YAML anchors or aliases; write the values out.")
        if getattr(event, "tag", None):
            raise KubeconfigUnreadable("The kubeconfig uses YAML tags; remove them.")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST or number > _MOST_EVENTS:
            raise KubeconfigUnreadable("The kubeconfig is too large or too deeply nested; send only one context.")


def _named(document: dict[str, Any], plural: str, singular: str) -> dict[str, dict[str, Any]]:
    """The entries of a list of `{name, <singular>: {…}}`. Later ones with the same name do not count, as in kubectl."""
    entries = document.get(plural) or []
    if not isinstance(entries, list):
        raise KubeconfigMalformed(f"`{plural}` is not a list.", pointer=f"/{plural}")
    found: dict[str, dict[str, Any]] = {}
    for number, entry in enumerate(entries):
        body = entry.get(singular) if isinstance(entry, dict) else None
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str) or not isinstance(body or {}, dict):
            sentence = f"Entry {number + 1} of `{plural}` is not a name with a {singular}."
            raise KubeconfigMalformed(sentence, pointer=f"/{plural}/{number}")
        found.setdefault(entry["name"], body or {})
    return found


def _chosen(contexts: dict[str, dict[str, Any]], wanted: str | None) -> dict[str, Any]:
    if not contexts:
        raise ContextMissing("The kubeconfig has no context; send one that kubectl can use.", pointer="/contexts")
    if wanted is not None:
        if wanted not in contexts:
            listed = ", ".join(list(contexts)[:20])
            raise ContextMissing(f"The kubeconfig has no context {wanted!r}; it has: {listed}.", pointer="/contexts")
        return contexts[wanted]
    if len(contexts) > 1:
        raise SeveralContexts(list(contexts))
    return next(iter(contexts.values()))


def _referred(
    context: dict[str, Any], kind: str, known: dict[str, dict[str, Any]], problems: list[KubeconfigRefused]
) -> dict[str, Any]:
    name = context.get(kind)
    if isinstance(name, str) and name in known:
        return known[name]
    problems.append(KubeconfigMalformed(f"The context names a {kind} that the kubeconfig lacks.", pointer=f"/{kind}s"))
    return {}


def _forbidden_in_cluster(cluster: dict[str, Any]) -> Iterator[KubeconfigRefused]:
    if cluster.get("insecure-skip-tls-verify") not in (None, False):
        sentence = "`insecure-skip-tls-verify` is not allowed; put the cluster's CA into `certificate-authority-data`."
        yield InsecureTlsRefused(sentence, pointer="/cluster/insecure-skip-tls-verify")
    if cluster.get("proxy-url"):
        sentence = "`proxy-url` is not allowed; the service reaches the cluster directly or by its own HTTPS_PROXY."
        yield ProxyRefused(sentence, pointer="/cluster/proxy-url")
    if cluster.get("certificate-authority"):
        yield _file_path("certificate-authority", "cluster")


def _forbidden_in_user(user: dict[str, Any]) -> Iterator[KubeconfigRefused]:
    if user.get("exec") is not None:
        sentence = f"The user logs in by running a program (`exec`), which the service does not do. {_ELSEWHERE}"
        yield ExecRefused(sentence, pointer="/user/exec")
    if user.get("auth-provider") is not None:
        sentence = f"The user logs in by an `auth-provider`, which the service does not run. {_ELSEWHERE}"
        yield AuthProviderRefused(sentence, pointer="/user/auth-provider")
    for name in ("client-certificate", "client-key", "tokenFile"):
        if user.get(name):
            yield _file_path(name, "user")
    if user.get("username") or user.get("password"):
        sentence = f"User name and password are not accepted; Kubernetes has dropped them. {_ELSEWHERE}"
        yield BasicAuthRefused(sentence, pointer="/user/username")
    if any(user.get(name) for name in ("as", "as-uid", "as-groups", "as-user-extra")):
        sentence = "Impersonation (`as`, `as-groups`) is not accepted; send the credential of the account itself."
        yield ImpersonationRefused(sentence, pointer="/user/as")


def _file_path(name: str, where: str) -> FilePathRefused:
    inline = {"tokenFile": "token"}.get(name, f"{name}-data")
    sentence = f"`{name}` names a file on your machine; send the output of `kubectl config view --flatten` ({inline})."
    return FilePathRefused(sentence, pointer=f"/{where}/{name}")


def _authority(cluster: dict[str, Any]) -> bytes | None:
    data = cluster.get("certificate-authority-data")
    if not data:
        if cluster.get("certificate-authority") or cluster.get("insecure-skip-tls-verify"):
            return None
        sentence = "The cluster has no `certificate-authority-data`; without it the server cannot be told from another."
        raise CertificateAuthorityMissing(sentence, pointer="/cluster/certificate-authority-data")
    try:
        return pems.certificates(pems.decoded(data))
    except pems.Unusable as error:
        sentence = f"`certificate-authority-data` {error}; copy it anew from a kubeconfig that works."
        raise CertificateAuthorityInvalid(sentence, pointer="/cluster/certificate-authority-data") from None


def _token(user: dict[str, Any]) -> str | None:
    token = user.get("token")
    if token is None or token == "":
        return None
    # Only what may stand in a header: a line break would let the uploader add headers of their own.
    if not isinstance(token, str) or len(token) > _LONGEST_TOKEN or not all("!" <= letter <= "~" for letter in token):
        raise CredentialInvalid("`token` is not a bearer token; copy it anew.", pointer="/user/token")
    return token


def _client_pair(user: dict[str, Any]) -> tuple[bytes, bytes] | None:
    certificate, key = user.get("client-certificate-data"), user.get("client-key-data")
    if not certificate and not key:
        return None
    if not certificate or not key:
        sentence = "`client-certificate-data` and `client-key-data` go together; one of them is missing."
        raise CredentialInvalid(sentence, pointer="/user/client-certificate-data")
    try:
        return pems.client_pair(pems.decoded(certificate), pems.decoded(key))
    except pems.Unusable as error:
        sentence = f"The client certificate or its key {error}; copy both anew."
        raise CredentialInvalid(sentence, pointer="/user/client-certificate-data") from None


def _namespace(context: dict[str, Any]) -> str:
    namespace = context.get("namespace")
    return namespace if isinstance(namespace, str) and _NAMESPACE.fullmatch(namespace) else "default"


def _kept(problems: list[KubeconfigRefused], check: Callable[[], Result]) -> Result | None:
    """What the check gives; its refusal joins the others."""
    try:
        return check()
    except KubeconfigRefused as problem:
        problems.append(problem)
        return None


def _raise(problems: list[KubeconfigRefused]) -> None:
    if len(problems) > 1:
        raise SeveralProblems(problems)
    if problems:
        raise problems[0]
