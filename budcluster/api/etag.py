"""ETags from row versions, and `If-Match` on changes."""

from typing import Annotated

from fastapi import Header, Response

from budcluster.kit.errors import StaleVersion

IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match",
        max_length=512,
        description="Change only if the resource still has this ETag; otherwise 412.",
        examples=['"3"'],
    ),
]


def etag(version: int) -> str:
    """The entity tag of a version."""
    return f'"{version}"'


def tag(response: Response, version: int) -> None:
    """Put the entity tag on an answer."""
    response.headers["ETag"] = etag(version)


def require_match(if_match: str | None, version: int) -> None:
    """Let a change pass if it was meant for this version. Strong comparison (RFC 9110, 13.1.1). Raises StaleVersion."""
    if if_match is None or if_match.strip() == "*":
        return
    if etag(version) not in {candidate.strip() for candidate in if_match.split(",")}:
        raise StaleVersion(
            f"If-Match names another version than the present one, {etag(version)}; read the resource again.",
            version=version,
        )
