"""Facts about hardware that callers see as problems."""

from budcluster.kit.errors import Conflict


class HardwareNotDetected(Conflict):
    """Nobody looked at this cluster's hardware yet. Onboard it, or `POST /clusters/{id}/detect-hardware`."""

    title = "Hardware was not detected yet"

    def __init__(self) -> None:
        super().__init__(
            "The hardware of this cluster was not detected yet; onboard the cluster, or POST "
            "/clusters/{id}/detect-hardware when it is READY."
        )
