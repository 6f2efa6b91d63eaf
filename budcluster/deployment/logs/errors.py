"""Facts about logs that callers see as problems."""

from budcluster.kit.errors import Invalid, NotFound, UpstreamFailed, UpstreamUnavailable


class LogsUnavailable(UpstreamUnavailable):
    """The cluster that has the logs cannot be reached now. Kept logs of failed attempts can: `…/attempts`."""

    title = "Logs cannot be read now"

    def __init__(self, sentence: str) -> None:
        super().__init__(
            f"{sentence} Try again; logs of failed attempts are kept: GET /deployments/{{id}}/attempts.",
            headers={"Retry-After": "10"},
        )


class LogsRefused(UpstreamFailed):
    """The cluster does not give the logs to the stored credential. Onboard the cluster again, or widen its role."""

    title = "The cluster refuses its logs"

    def __init__(self, sentence: str) -> None:
        super().__init__(f"{sentence} Onboard the cluster again, or let its role read pods and pods/log.")


class NoLogs(NotFound):
    """No pod or container of the deployment fits. `follow=true` waits for one; failed attempts: `…/attempts`."""

    title = "There are no such logs"

    def __init__(self, present: list[str]) -> None:
        there = f"There are: {', '.join(present)}." if present else "The deployment has no pods now."
        super().__init__(
            f"No pod and container fit. {there} follow=true waits for one; logs of failed attempts are kept: "
            "GET /deployments/{id}/attempts.",
            present=present,
        )


class AttemptNotFound(NotFound):
    """The deployment has no such kept attempt; the oldest go. `GET /deployments/{id}/attempts` lists what is kept."""

    title = "Attempt not found"

    def __init__(self) -> None:
        super().__init__("There is no such attempt; GET /deployments/{id}/attempts lists those that are kept.")


class LogQueryRefused(Invalid):
    """Parameters of the log request do not fit together, or cannot be read."""

    title = "Log request is not valid"

    def __init__(self, parameter: str, sentence: str, *, where: str = "query") -> None:
        super().__init__(
            sentence, errors=[{"in": where, "pointer": f"/{parameter}", "code": "unusable", "detail": sentence}]
        )
