"""Facts about hardware that callers see as problems."""

from budcluster.kit.errors import Conflict, UpstreamUnavailable


class HardwareNotDetected(Conflict):
    """Nobody looked at this cluster's hardware yet. Onboard it, or `POST /clusters/{id}/detect-hardware`."""

    title = "Hardware was not detected yet"

    def __init__(self) -> None:
        super().__init__(
            "The hardware of this cluster was not detected yet; onboard the cluster, or POST "
            "/clusters/{id}/detect-hardware when it is READY."
        )


class InventoryNotReady(UpstreamUnavailable):
    """The service has not read all nodes of this cluster yet. That takes seconds once it is READY; try again."""

    title = "The inventory is not complete yet"

    def __init__(self, reason: str | None) -> None:
        why = f" The last try said: {reason}" if reason else ""
        super().__init__(
            f"The nodes of this cluster were not all read yet; try again in a few seconds.{why}",
            headers={"Retry-After": "5"},
        )
