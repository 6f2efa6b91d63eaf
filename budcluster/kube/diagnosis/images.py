"""Why a node does not have the image of a container."""

import re
from typing import Final

from budcluster.kube.diagnosis.finding import Finding, Weight

_Meaning = tuple[str, str, str]
_UNREACHABLE: Final = (
    "registry-unreachable", "the node cannot reach the registry", "check the nodes' egress, or use a mirror"
)  # fmt: skip
_UNSIGNED: Final = (
    "image-signature", "its signature does not satisfy the node's policy", "use a signed image, or relax the policy"
)  # fmt: skip
_PULL: Final[tuple[tuple[str, _Meaning], ...]] = (
    # Ports, tags and digests may hold these digits, too.
    (r"toomanyrequests|(?<![\w.:/@-])429(?![\w/-])",
     ("registry-rate-limit", "the registry's pull rate limit is reached",
      "add a registry credential, or use a mirror")),
    (r"401 unauthorized|403 forbidden|authentication required|authorization failed|no basic auth credentials"
     r"|access to the resource is denied",
     ("registry-denied", "the registry does not let the node in", "add a registry credential that may read the image")),
    (r"pull access denied",
     ("registry-denied", "the image does not exist or needs credentials",
      "check the image's name, or add a registry credential")),
    (r"x509:|failed to verify certificate|server gave HTTP response to HTTPS client",
     ("registry-certificate", "the node does not trust the registry's certificate",
      "give the nodes the registry's certificate authority, or use a registry that they trust")),
    (r"no such host",
     ("registry-unreachable", "the node cannot resolve the registry's name",
      "check the nodes' DNS and egress, or use a mirror")),
    (r"i/o timeout|connection refused|connection reset|no route to host|network is unreachable|handshake timeout",
     _UNREACHABLE),
    (r"no space left",
     ("image-disk-full", "the node's disk is too full for the image",
      "free disk on the node; runtime images take 20 GB and more")),
    (r"no match for platform",
     ("image-platform", "the image is not made for the node's processor", "use an image for this architecture")),
    (r"not found|manifest unknown",
     ("image-not-found", "there is no such image or tag", "check the image's name and tag")),
)  # fmt: skip
"""Pattern in an image pull's message -> type, meaning, fix. Specific ones stand first."""


def explain_pull(message: str) -> Finding:
    """Why an image cannot be pulled. A bare "Back-off pulling image" only says that it failed before."""
    return _pull_cause(message) or Finding(
        "image-pull", "The image cannot be pulled.", "Look at the pod's events for the registry's answer.",
        Weight.SYMPTOM, lines=(message,),
    )  # fmt: skip


def explain_image(reason: str, message: str) -> Finding | None:
    """The cause behind a waiting reason of the kubelet that speaks of an image; None for all others."""
    match reason:
        case "ErrImagePull" | "ImagePullBackOff":
            return explain_pull(message)
        case "RegistryUnavailable":
            return _pull_cause(message) or _not_pulled(message, _UNREACHABLE)
        case "SignatureValidationFailed":
            return _not_pulled(message, _UNSIGNED)
        case "ErrImageNeverPull":
            meaning = ("image-absent", "The node does not have the image, and may not pull it.",
                       "Bring the image to the node, or allow pulling it.")  # fmt: skip
        case "ImageInspectError":
            meaning = ("image-broken", "The node cannot read the image that it has.",
                       "Remove the image from the node, so that it is pulled again.")  # fmt: skip
        case "InvalidImageName":
            meaning = ("image-name", "The image's name is not valid.", "Correct the image.")
        case _:
            return None
    return Finding(*meaning, Weight.CAUSE, lines=(message,))


def _pull_cause(message: str) -> Finding | None:
    meaning = next((found for pattern, found in _PULL if re.search(pattern, message, re.IGNORECASE)), None)
    return _not_pulled(message, meaning) if meaning else None


def _not_pulled(message: str, meaning: _Meaning) -> Finding:
    kind, detail, fix = meaning
    return Finding(kind, f"The image cannot be pulled: {detail}.", f"{fix[0].upper()}{fix[1:]}.", Weight.CAUSE,
                   lines=(message,))  # fmt: skip
