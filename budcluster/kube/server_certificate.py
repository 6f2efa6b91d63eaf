"""When the certificate that an API server shows ends."""

import ssl
from datetime import UTC, datetime

import httpx


def end_of_certificate(response: httpx.Response) -> datetime | None:
    """The end of the certificate behind this answer, UTC; None where there is none to be seen."""
    stream = response.extensions.get("network_stream")
    tls = stream.get_extra_info("ssl_object") if stream is not None else None
    shown = tls.getpeercert() if tls is not None else None
    end = shown.get("notAfter") if shown else None
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(end), UTC) if isinstance(end, str) else None
