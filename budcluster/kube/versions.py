"""Which Kubernetes versions the service works with, and what may run beside which.

The data changes with every release of Kubernetes; the functions do not.
Sources: Kubernetes version skew policy (kubernetes.io/releases/version-skew-policy) and the `kubeVersion` of the
charts that are installed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple, Self

_GIT_VERSION: Final = re.compile(r"v?(\d{1,3})\.(\d{1,4})\.(\d{1,5})(?![\d.])", re.ASCII)
_SHORT: Final = re.compile(r"v?(\d{1,3})\.(\d{1,4})\+?", re.ASCII)
_DIGITS: Final = re.compile(r"(\d{1,4})\+?", re.ASCII)
_LONGEST: Final = 128


class Minor(NamedTuple):
    """A minor release, ordered: `Minor(1, 33)`."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


class UnreadableVersion(ValueError):
    """What the server says about its version cannot be understood."""


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """The version of a server, a kubelet or a client. Vendor suffixes are dropped; an unknown patch is 0."""

    minor: Minor
    patch: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "v1.33.5-eks-3025e55", "1.33.5" or "1.33+". Raises UnreadableVersion."""
        if isinstance(text, str) and len(text) <= _LONGEST:
            if found := _GIT_VERSION.match(text):
                return cls(Minor(int(found[1]), int(found[2])), int(found[3]))
            if found := _SHORT.fullmatch(text):
                return cls(Minor(int(found[1]), int(found[2])))
        raise UnreadableVersion(f"{str(text)[:_LONGEST]!r} is not a Kubernetes version; one looks like v1.33.5.")

    @classmethod
    def of_server(cls, answer: Mapping[str, Any]) -> Self:
        """Read the answer of `GET /version`: `gitVersion`, else `major` and `minor` ("32+" on EKS and GKE).

        Raises UnreadableVersion.
        """
        try:
            return cls.parse(answer.get("gitVersion", ""))
        except UnreadableVersion:
            major, minor = (_DIGITS.fullmatch(str(answer.get(part, ""))) for part in ("major", "minor"))
            if major is None or minor is None:
                raise
            return cls(Minor(int(major[1]), int(minor[1])))

    def __str__(self) -> str:
        return f"{self.minor}.{self.patch}"


OLDEST_SUPPORTED: Final = Minor(1, 25)
"""kube-prometheus-stack 88 asks for it (`kubeVersion`); NFD 0.19 would work from 1.24, HAMi 2.10 from 1.23."""
OLDEST_TESTED: Final = Minor(1, 33)
"""GPU operator 26.7 is validated from here."""
NEWEST_TESTED: Final = Minor(1, 37)
"""The newest release when this was written (2026-08-26)."""
KUBELET_BEHIND: Final = 3
"""Minor releases that a kubelet may be older than its API server. It may never be newer."""


class Support(StrEnum):
    """What a version means for onboarding."""

    SUPPORTED = "SUPPORTED"
    UNTESTED = "UNTESTED"
    """Goes on, with a warning."""
    REFUSED = "REFUSED"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judgement and, unless all is well, the sentence that goes with it."""

    support: Support
    sentence: str = ""


def judge_server(version: Version) -> Verdict:
    """Whether the service works with an API server of this version."""
    tested = f"{OLDEST_TESTED} to {NEWEST_TESTED}"
    if version.minor < OLDEST_SUPPORTED:
        sentence = (
            f"Kubernetes {version} is too old: {OLDEST_SUPPORTED} is the oldest supported, {tested} are tested. "
            "Upgrade the cluster, one minor release at a time, and try again."
        )
        return Verdict(Support.REFUSED, sentence)
    if version.minor.major != NEWEST_TESTED.major:
        sentence = f"Kubernetes {version} is of another major release than the service knows; {tested} are tested."
        return Verdict(Support.REFUSED, sentence)
    if version.minor < OLDEST_TESTED:
        sentence = f"Kubernetes {version} is older than what is tested ({tested}); plan an upgrade of the cluster."
        return Verdict(Support.UNTESTED, sentence)
    if version.minor > NEWEST_TESTED:
        sentence = (
            f"Kubernetes {version} is newer than what is tested ({tested}); look for a newer release of budcluster."
        )
        return Verdict(Support.UNTESTED, sentence)
    return Verdict(Support.SUPPORTED)


def judge_kubelet(kubelet: Version, *, server: Version) -> Verdict:
    """Whether a node may be of this version beside that API server."""
    apart = _minors_apart(server, kubelet)
    if apart is None or apart < 0:
        sentence = (
            f"The kubelet {kubelet} is newer than the API server {server}, which Kubernetes does not support. "
            "Upgrade the control plane first."
        )
        return Verdict(Support.REFUSED, sentence)
    if apart > KUBELET_BEHIND:
        sentence = (
            f"The kubelet {kubelet} is {apart} minor releases older than the API server {server}; "
            f"{KUBELET_BEHIND} are supported. Upgrade the node."
        )
        return Verdict(Support.REFUSED, sentence)
    return Verdict(Support.SUPPORTED)


def _minors_apart(server: Version, other: Version) -> int | None:
    """How many minor releases the other is older; None between major releases."""
    if server.minor.major != other.minor.major:
        return None
    return server.minor.minor - other.minor.minor
