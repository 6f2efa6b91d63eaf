import contextlib
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budcluster.kube.refusals import KubeconfigRefused, NotHttps, ServerAddressInvalid, ServerAddressRefused
from budcluster.kube.server_address import check_server, checked_name, is_local


@pytest.mark.parametrize(
    ("given_", "normal"),
    [
        ("https://API.Example.com:443/", "https://api.example.com"),
        ("https://api.example.com.:6443", "https://api.example.com:6443"),
        ("HTTPS://10.0.0.5:6443", "https://10.0.0.5:6443"),
        ("https://[2001:DB8:0::1]:6443", "https://[2001:db8::1]:6443"),
        ("https://rancher.example.com/k8s/clusters/c-1/", "https://rancher.example.com/k8s/clusters/c-1"),
        ("https://node_1.internal", "https://node_1.internal"),
    ],
)
def test_an_address_has_one_spelling(given_: str, normal: str) -> None:
    assert check_server(given_, allow_local=False) == normal
    assert check_server(normal, allow_local=False) == normal


@pytest.mark.parametrize(
    "host",
    ["localhost", "a.localhost", "127.0.0.1", "127.8.8.8", "[::1]", "[::ffff:127.0.0.1]", "169.254.1.1", "[fe80::1]",
     "0.0.0.0", "[::]", "0.1.2.3", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "224.0.0.1", "255.255.255.255"],
)  # fmt: skip
def test_this_machine_and_its_surroundings_are_refused_unless_allowed(host: str) -> None:
    with pytest.raises(ServerAddressRefused):
        check_server(f"https://{host}:6443", allow_local=False)
    assert check_server(f"https://{host}:6443", allow_local=True)


@pytest.mark.parametrize("host", ["169.254.169.254", "metadata.google.internal", "[fd00:ec2::254]", "168.63.129.16"])
@pytest.mark.parametrize("allow_local", [True, False])
def test_metadata_services_are_never_allowed(host: str, allow_local: bool) -> None:
    with pytest.raises(ServerAddressRefused):
        check_server(f"https://{host}", allow_local=allow_local)


@pytest.mark.parametrize("server", ["http://a", "ftp://a", "a:6443", "unix:///x", "//a", "10.0.0.1"])
def test_only_https_is_taken(server: str) -> None:
    with pytest.raises(NotHttps):
        check_server(server, allow_local=True)


@pytest.mark.parametrize(
    "server",
    ["", None, 5, "https://", "https://u:p@a", "https://u@a", "https://a?x=1", "https://a#x", "https://a?",
     "https://a b", "https://a:0", "https://a:99999", "https://a:x", "https://a/../b", "https://a/%2e", "https://[fe80::1%25eth0]",
     "https://2130706433", "https://0x7f.1", "https://127.1", "https://-a", "https://a..b", "https://\n", "https://[::1",
     "https://ä.example", "https://a\\b", "https://" + "a" * 3000],
)  # fmt: skip
def test_odd_addresses_are_refused(server: object) -> None:
    with pytest.raises(ServerAddressInvalid):
        check_server(server, allow_local=True)


def test_private_networks_are_ordinary() -> None:
    for address in ("10.0.0.1", "192.168.1.1", "172.16.0.1", "100.64.0.1", "fd12::1"):
        assert not is_local(ipaddress.ip_address(address))


def test_names_for_tls_are_host_names() -> None:
    assert checked_name(None) is None
    assert checked_name("Kubernetes") == "kubernetes"
    for name in (5, "a b", "-", "a" * 300):
        with pytest.raises(ServerAddressInvalid):
            checked_name(name)


@given(st.text().map(lambda text: "https://" + text) | st.text())
def test_any_text_is_an_address_or_refused(server: str) -> None:
    with contextlib.suppress(KubeconfigRefused):
        checked = check_server(server, allow_local=False)
        assert check_server(checked, allow_local=False) == checked
