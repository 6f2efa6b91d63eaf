"""What the workflows of clusters are given beside the ids of their operation."""

from typing import Any

from budcluster.operations.contracts import OperationPayload


class OnboardingPayload(OperationPayload):
    """An onboarding."""

    take_over: bool = False
    """Go on although another budcluster says that it manages the cluster."""
    force: bool = False
    """Whether GPUs may be taken from running pods."""


class SharingPayload(OperationPayload):
    """A change of how GPUs are handed out."""

    force: bool = False
    """Whether GPUs may be taken from running pods."""
    options_before: dict[str, Any] | None = None
    """The cluster's options as they were; None: unknown, for a change that began when they were not told."""
