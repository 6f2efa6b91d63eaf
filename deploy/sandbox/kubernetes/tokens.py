"""Bearer tokens: the two fixed ones of the sandbox, and those of service accounts (bound and Secret-based)."""

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import orjson

from sandbox.kubernetes.clock import timestamp
from sandbox.kubernetes.errors import BadRequest, NotFound, Unauthorized
from sandbox.kubernetes.history import Event
from sandbox.kubernetes.store import Store

Obj = dict[str, Any]

ISSUER = "https://kubernetes.default.svc.cluster.local"
SECRET_TYPE = "kubernetes.io/service-account-token"  # noqa: S105 -- the name of a type
_SA = "kubernetes.io/service-account"
_DEFAULT_LIFETIME_S = 3600


@dataclass(frozen=True, slots=True)
class User:
    """Who asks."""

    name: str
    groups: tuple[str, ...]
    uid: str = ""
    extra: dict[str, list[str]] = field(default_factory=dict)

    @property
    def is_master(self) -> bool:
        """Whether everything is allowed, whatever the roles say."""
        return "system:masters" in self.groups


ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))


def user_named(name: str) -> User:
    """Somebody as an impersonator names them, with the groups that the API server adds by itself."""
    if name == ANONYMOUS.name:
        return ANONYMOUS
    groups: tuple[str, ...] = ("system:authenticated",)
    if name.startswith("system:serviceaccount:"):
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{name.split(':')[2]}", *groups)
    return User(name, groups)


class Tokens:
    """Issues and checks tokens. Fills Secrets of type kubernetes.io/service-account-token as they are created."""

    def __init__(self, store: Store, *, ca_pem: str) -> None:
        self._store = store
        self._ca_pem = ca_pem
        self._key = secrets.token_bytes(32)
        self.admin = secrets.token_urlsafe(24)
        self.viewer = secrets.token_urlsafe(24)
        authenticated = "system:authenticated"
        self._fixed = {
            self.admin: User("kubernetes-admin", ("system:masters", authenticated)),
            self.viewer: User("viewer", ("sandbox:viewers", authenticated)),
        }
        store.subscribe(self._fill_secret, kinds=["Secret"])
        store.subscribe(self._drop_secrets, kinds=["ServiceAccount"])

    def authenticate(self, authorization: str) -> User:
        """The user behind an Authorization header, anonymous when there is none. Raises Unauthorized."""
        if not authorization:
            return ANONYMOUS
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthorized
        return self._fixed.get(token.strip()) or self._service_account(token.strip())

    def revoke_fixed(self, token: str) -> None:
        """Refuse a token of the sandbox from now on."""
        self._fixed.pop(token, None)

    def request(self, account: Obj, spec: Obj) -> Obj:
        """Answer a TokenRequest: a token bound to the account, for `expirationSeconds` (600 s at least)."""
        seconds = spec.get("expirationSeconds") or _DEFAULT_LIFETIME_S
        if seconds < 600:
            raise BadRequest("spec.expirationSeconds: Invalid value: may not specify a duration less than 10 minutes")
        meta, now = account["metadata"], self._store.clock.now()
        expires = now + timedelta(seconds=seconds)
        audiences = spec.get("audiences") or [ISSUER]
        claims = {
            "aud": audiences,
            "exp": int(expires.timestamp()),
            "iat": int(now.timestamp()),
            "nbf": int(now.timestamp()),
            "iss": ISSUER,
            "jti": secrets.token_hex(16),
            "kubernetes.io": {
                "namespace": meta["namespace"],
                "serviceaccount": {"name": meta["name"], "uid": meta["uid"]},
            },
            "sub": f"system:serviceaccount:{meta['namespace']}:{meta['name']}",
        }
        return {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"name": meta["name"], "namespace": meta["namespace"], "creationTimestamp": timestamp(now)},
            "spec": {**spec, "audiences": audiences, "expirationSeconds": seconds},
            "status": {"token": self._sign(claims), "expirationTimestamp": timestamp(expires)},
        }

    def _sign(self, claims: Obj) -> str:
        signed = f"{_encode(orjson.dumps({'alg': 'HS256', 'typ': 'JWT'}))}.{_encode(orjson.dumps(claims))}"
        return f"{signed}.{self._signature(signed)}"

    def _signature(self, text: str) -> str:
        return _encode(hmac.new(self._key, text.encode(), hashlib.sha256).digest())

    def _service_account(self, token: str) -> User:
        signed, _, signature = token.rpartition(".")
        if not signed or not hmac.compare_digest(self._signature(signed).encode(), signature.encode()):
            raise Unauthorized
        claims = orjson.loads(_decode(signed.partition(".")[2]))
        if claims.get("exp", float("inf")) < self._store.clock.now().timestamp():
            raise Unauthorized
        _, _, namespace, name = claims["sub"].split(":")
        account = self._store.find("ServiceAccount", namespace, name)
        if account is None or account["metadata"]["uid"] != _account_uid(claims):
            raise Unauthorized
        if (secret := claims.get(f"{_SA}/secret.name")) and not self._is_kept(token, namespace, secret):
            raise Unauthorized
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
        return User(claims["sub"], groups, account["metadata"]["uid"])

    def _is_kept(self, token: str, namespace: str, name: str) -> bool:
        """Whether a Secret still holds the token."""
        secret = self._store.find("Secret", namespace, name) or {}
        return (secret.get("data") or {}).get("token") == base64.b64encode(token.encode()).decode()

    def _fill_secret(self, event: Event) -> None:
        secret = event.obj
        if event.type == "DELETED" or secret.get("type") != SECRET_TYPE or (secret.get("data") or {}).get("token"):
            return
        meta = secret["metadata"]
        name = (meta.get("annotations") or {}).get(f"{_SA}.name", "")
        account = self._store.find("ServiceAccount", meta["namespace"], name)
        if account is None:
            return
        claims = {
            "iss": "kubernetes/serviceaccount",
            f"{_SA}/namespace": meta["namespace"],
            f"{_SA}/secret.name": meta["name"],
            f"{_SA}/service-account.name": name,
            f"{_SA}/service-account.uid": account["metadata"]["uid"],
            "sub": f"system:serviceaccount:{meta['namespace']}:{name}",
        }
        filled = {"ca.crt": self._ca_pem, "namespace": meta["namespace"], "token": self._sign(claims)}

        def fill(obj: Obj) -> None:
            obj["metadata"].setdefault("annotations", {})[f"{_SA}.uid"] = account["metadata"]["uid"]
            data = {key: base64.b64encode(text.encode()).decode() for key, text in filled.items()}
            obj["data"] = {**(obj.get("data") or {}), **data}

        self._store.update("Secret", meta["namespace"], meta["name"], fill)

    def _drop_secrets(self, event: Event) -> None:
        """The tokens controller removes the token Secrets of an account that is gone."""
        if event.type != "DELETED":
            return
        meta = event.obj["metadata"]
        for secret in self._store.list("Secret", meta["namespace"]):
            named = (secret["metadata"].get("annotations") or {}).get(f"{_SA}.name")
            if secret.get("type") == SECRET_TYPE and named == meta["name"]:
                self._store.delete("Secret", meta["namespace"], secret["metadata"]["name"])

    def review(self, token: str) -> Obj:
        """The status of a TokenReview."""
        try:
            user = self.authenticate(f"Bearer {token}")
        except (Unauthorized, NotFound):
            return {"authenticated": False, "user": {}, "error": "[invalid bearer token, unknown]"}
        described = {"username": user.name, "uid": user.uid, "groups": list(user.groups)}
        return {"authenticated": True, "user": described, "audiences": [ISSUER]}


def _account_uid(claims: Obj) -> str:
    bound = claims.get("kubernetes.io", {}).get("serviceaccount", {}).get("uid")
    uid: str = bound or claims.get(f"{_SA}/service-account.uid", "")
    return uid


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
