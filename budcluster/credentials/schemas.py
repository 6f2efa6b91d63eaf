"""What credentials look like from outside: secrets go in, by purpose in a checked shape, and never come out."""

import re
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, ConfigDict, Field, SecretStr, model_validator

from budcluster.api.paging import PageQuery
from budcluster.api.schemas import Body, Name, Parsed, Versioned
from budcluster.credentials.models import CredentialPurpose

_HOST_LABEL: Final = r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
_SERVER: Final = re.compile(rf"{_HOST_LABEL}(\.{_HOST_LABEL})*(:\d{{1,5}})?")


def _shaped(pattern: str, rule: str) -> AfterValidator:
    compiled = re.compile(pattern, re.ASCII)

    def check(value: SecretStr) -> SecretStr:
        if not compiled.fullmatch(value.get_secret_value()):
            raise ValueError(rule)
        return value

    return AfterValidator(check)


def _is_one_line(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if text != text.strip() or not text.isprintable():
        raise ValueError("must be one line without blanks around it; was something copied along?")
    return value


def _is_server(value: str) -> str:
    if not _SERVER.fullmatch(value):
        raise ValueError("must be a host name, with :port if it has one, and no https:// or path")
    return value


_OneLine = AfterValidator(_is_one_line)

_AwsKeyId = Annotated[
    SecretStr,
    Field(max_length=128),
    _shaped(r"[A-Z0-9]{16,128}", "must be an AWS access key id, 16 to 128 capital letters and digits (AKIA… or ASIA…)"),
]
_AwsSecretKey = Annotated[
    SecretStr, Field(max_length=128), _shaped(r"[A-Za-z0-9/+=]{16,128}", "must be an AWS secret access key")
]
_AwsRole = Annotated[
    SecretStr,
    Field(max_length=600),
    _shaped(
        r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]{1,512}", "must look like arn:aws:iam::123456789012:role/name"
    ),
]
_HuggingFaceToken = Annotated[
    SecretStr,
    Field(max_length=256),
    _shaped(r"(hf|api_org)_[A-Za-z0-9]{16,200}", "must be a Hugging Face token (hf_…)"),
]


class AwsSecret(Body):
    """Keys of an AWS user or session, and the role to take on with them."""

    access_key_id: _AwsKeyId
    secret_access_key: _AwsSecretKey
    session_token: Annotated[SecretStr, Field(min_length=1, max_length=8192), _OneLine] | None = None
    role_arn: _AwsRole | None = None
    external_id: Annotated[SecretStr, Field(min_length=2, max_length=1224), _OneLine] | None = None

    @model_validator(mode="after")
    def _temporary_keys_have_a_token(self) -> "AwsSecret":
        if self.access_key_id.get_secret_value().startswith("ASIA") and self.session_token is None:
            raise ValueError("temporary keys (ASIA…) need their session_token")
        if self.external_id is not None and self.role_arn is None:
            raise ValueError("external_id goes with a role_arn")
        return self


class AzureSecret(Body):
    """A service principal of Microsoft Entra ID, and the subscription to work in."""

    tenant_id: Parsed[UUID]
    client_id: Parsed[UUID]
    client_secret: Annotated[SecretStr, Field(min_length=1, max_length=1024), _OneLine]
    subscription_id: Parsed[UUID]


class HuggingFaceSecret(Body):
    """An access token of Hugging Face."""

    token: _HuggingFaceToken


class RegistrySecret(Body):
    """A login to a container registry."""

    server: Annotated[str, Field(min_length=1, max_length=253, examples=["ghcr.io"]), AfterValidator(_is_server)]
    username: Annotated[SecretStr, Field(min_length=1, max_length=256), _OneLine]
    password: Annotated[SecretStr, Field(min_length=1, max_length=16384, description="A JSON key may have many lines.")]


class _Registration(Body):
    name: Name
    expires_at: Parsed[AwareDatetime | None] = Field(
        None, description="When the secret stops working, if you know: it is then refused with a clear message."
    )


def _example(purpose: str, name: str, secret: dict[str, Any]) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [{"purpose": purpose, "name": name, "secret": secret}]})


class AwsRegistration(_Registration):
    """Keys for AWS."""

    model_config = _example(
        "AWS",
        "aws-prod",
        {"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": "wJalrXUtnFEMI/K7MDENG/EXAMPLEKEY"},
    )
    purpose: Literal["AWS"]
    secret: AwsSecret


class AzureRegistration(_Registration):
    """A service principal for Azure."""

    model_config = _example(
        "AZURE",
        "azure-prod",
        {
            "tenant_id": "7f1b5c6e-0d0a-4bfb-9c1e-1f7a58a0a001",
            "client_id": "7f1b5c6e-0d0a-4bfb-9c1e-1f7a58a0a002",
            "client_secret": "example-client-secret",
            "subscription_id": "7f1b5c6e-0d0a-4bfb-9c1e-1f7a58a0a003",
        },
    )
    purpose: Literal["AZURE"]
    secret: AzureSecret


class HuggingFaceRegistration(_Registration):
    """A token for gated models."""

    model_config = _example("HUGGING_FACE", "hugging-face", {"token": "hf_exampleexampleexample"})
    purpose: Literal["HUGGING_FACE"]
    secret: HuggingFaceSecret


class RegistryRegistration(_Registration):
    """A login for image pulls."""

    model_config = _example("REGISTRY", "ghcr", {"server": "ghcr.io", "username": "robot", "password": "example"})
    purpose: Literal["REGISTRY"]
    secret: RegistrySecret


CredentialRegistration = Annotated[
    AwsRegistration | AzureRegistration | HuggingFaceRegistration | RegistryRegistration, Field(discriminator="purpose")
]
"""A secret to be kept; its shape follows from `purpose`."""


class CredentialAnswer(Versioned):
    """What may be known about a credential. The secret itself is never shown."""

    name: str = Field(examples=["aws-prod"])
    purpose: CredentialPurpose
    cluster_id: UUID | None = Field(description="The cluster that it belongs to alone, if any.")
    fingerprint: str = Field(
        description="Keyed hash: equal secrets have equal ones, and it tells nothing about them.",
        examples=["5d0c6f0e8f9b4d7a5d0c6f0e8f9b4d7a5d0c6f0e8f9b4d7a5d0c6f0e8f9b4d7a"],
    )
    expires_at: AwareDatetime | None
    last_used_at: AwareDatetime | None


class CredentialQuery(PageQuery):
    """What to list."""

    purpose: CredentialPurpose | None = Field(None, description="Only for this purpose.")
    name: str | None = Field(None, max_length=63, description="Only with exactly this name.")
    cluster_id: UUID | None = Field(None, description="Only what belongs to this cluster.")
    sort: Literal["created_at", "-created_at", "name", "-name"] = Field(
        "-created_at", description="Field to sort by; a leading minus sorts downwards."
    )
