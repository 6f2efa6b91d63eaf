"""Which API server addresses the service is ready to talk to.

An uploaded kubeconfig makes this service send requests to an address of the uploader's choice; it must not become a
way to reach this machine's own ports or a cloud's metadata service. Host names are judged by their text here, and by
the addresses that they resolve to when `network` connects.
"""

import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

from budcluster.kube.refusals import NotHttps, ServerAddressInvalid, ServerAddressRefused

_LONGEST: Final = 2048
_LABEL: Final = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_LABELS: Final = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*")
_PATH: Final = re.compile(r"(/[A-Za-z0-9._~-]+)*/?")
_NUMBERS_ONLY: Final = re.compile(r"(0x[0-9a-f]*|\d+)(\.(0x[0-9a-f]*|\d+))*")
_METADATA_NAMES: Final = frozenset(
    {"metadata", "metadata.google.internal", "instance-data", "instance-data.ec2.internal"}
)
_METADATA_ADDRESSES: Final = frozenset(
    ipaddress.ip_address(address)
    # AWS, Azure, Google and others; AWS over IPv6; Alibaba; Azure's wire server; Oracle's older one.
    for address in ("169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192")
)
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def check_server(server: object, *, allow_local: bool) -> str:
    """The address in its one spelling: lower case, no port 443, no trailing slash.

    Raises NotHttps, ServerAddressInvalid, ServerAddressRefused.
    """
    if not isinstance(server, str) or not server or len(server) > _LONGEST:
        raise _invalid("The cluster has no usable `server`; it looks like https://host:6443.")
    if not all("!" <= letter <= "~" and letter != "\\" for letter in server):
        raise _invalid("`server` holds spaces or letters that no address has; it looks like https://host:6443.")
    try:
        parts = urlsplit(server)
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        raise _invalid("`server` cannot be read as an address; it looks like https://host:6443.") from None
    if parts.scheme.lower() != "https":
        raise NotHttps("`server` must be an https address; credentials do not travel unencrypted.", pointer=_POINTER)
    if "@" in parts.netloc or "?" in server or "#" in server:
        raise _invalid("`server` may not hold user names, passwords, queries or fragments; remove them.")
    if not _PATH.fullmatch(parts.path) or ".." in parts.path.split("/") or "." in parts.path.split("/"):
        raise _invalid("The path in `server` is unusual; it looks like https://host:6443/k8s/clusters/c-1.")
    if port == 0:
        raise _invalid("`server` names port 0; it looks like https://host:6443.")
    host = _checked_host(host, allow_local=allow_local)
    suffix = "" if port in (None, 443) else f":{port}"
    return f"https://{host}{suffix}{parts.path.rstrip('/')}"


def is_local(address: Address) -> bool:
    """Whether this address is the machine itself, its own network segment, a metadata service, or no host at all."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = _inner(address)
        if inner is not None and is_local(inner):
            return True
    return (
        address in _METADATA_ADDRESSES
        or address.is_loopback
        or address.is_link_local
        or address.is_unspecified
        or address.is_multicast
        or (isinstance(address, ipaddress.IPv4Address) and address in ipaddress.ip_network("0.0.0.0/8"))
        or address == ipaddress.ip_address("255.255.255.255")
    )


def is_refused(address: Address, *, allow_local: bool) -> bool:
    """Whether a server must not be at this address. Metadata services never are one."""
    if isinstance(address, ipaddress.IPv6Address) and (inner := _inner(address)) is not None:
        return is_refused(inner, allow_local=allow_local) or (is_local(address) and not allow_local)
    return address in _METADATA_ADDRESSES or (is_local(address) and not allow_local)


def _inner(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that packets to this one go on to."""
    return address.ipv4_mapped or address.sixtofour or _nat64(address)


def checked_name(name: object) -> str | None:
    """A `tls-server-name`, in lower case. Raises ServerAddressInvalid."""
    if name is None or name == "":
        return None
    if isinstance(name, str) and _LABELS.fullmatch(name.lower()):
        return name.lower()
    raise ServerAddressInvalid("`tls-server-name` is not a host name.", pointer="/cluster/tls-server-name")


_POINTER: Final = "/cluster/server"


def _checked_host(host: str, *, allow_local: bool) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        if not _LABELS.fullmatch(host):
            raise _invalid("The host in `server` is not a host name or address.") from None
        if _NUMBERS_ONLY.fullmatch(host):
            # 2130706433 and 0x7f.1 are 127.0.0.1 to a resolver.
            raise _invalid("The host in `server` is an unusual spelling of an address; write it as 10.0.0.1.") from None
        name_is_local = host == "localhost" or host.endswith((".localhost", ".localdomain"))
        if host in _METADATA_NAMES or (name_is_local and not allow_local):
            raise _refused(host) from None
        return host
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        raise _invalid("`server` names a network interface of your machine; use an address without a zone.")
    if is_refused(address, allow_local=allow_local):
        raise _refused(host)
    return f"[{address.compressed}]" if address.version == 6 else str(address)


def _nat64(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address in ipaddress.ip_network("64:ff9b::/96"):
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return None


def _invalid(sentence: str) -> ServerAddressInvalid:
    return ServerAddressInvalid(sentence, pointer=_POINTER)


def _refused(host: str) -> ServerAddressRefused:
    sentence = (
        f"`server` points to {host}, which from here is not your cluster but this machine or its surroundings; "
        "use the address under which the cluster is reached from elsewhere."
    )
    return ServerAddressRefused(sentence, pointer=_POINTER)
