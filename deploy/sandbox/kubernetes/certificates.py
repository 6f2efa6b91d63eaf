"""The throw-away authority of one cluster, and the server certificates it issues."""

import ssl
from datetime import UTC, datetime, timedelta

import trustme


class Authority:
    """Signs certificates for the loopback names of the API server. Lives in memory alone."""

    def __init__(self) -> None:
        self._ca = trustme.CA(organization_name="budcluster sandbox")

    @property
    def pem(self) -> str:
        """The authority's certificate, for clients to trust."""
        return self._ca.cert_pem.bytes().decode()

    def context(self) -> ssl.SSLContext:
        """A server's TLS context with a fresh certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.certify(context)
        return context

    def certify(self, context: ssl.SSLContext, *, expired: bool = False) -> None:
        """Give a context a new certificate, which handshakes use from now on; an expired one ended an hour ago."""
        ended = datetime.now(UTC) - timedelta(hours=1) if expired else None
        names = ("localhost", "127.0.0.1", "::1", "kubernetes", "kubernetes.default.svc")
        issued = self._ca.issue_cert(*names, common_name="kube-apiserver", not_after=ended)
        issued.configure_cert(context)
