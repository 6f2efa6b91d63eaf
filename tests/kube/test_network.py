"""A server's name is judged by the addresses that it leads to, at the moment of connecting."""

from collections.abc import Sequence

import httpcore
import pytest
import trustme

from budcluster.kube.client import ClusterClient
from budcluster.kube.errors import AddressRefused, Unreachable
from budcluster.kube.network import JudgedNetwork, Resolve
from tests.kube.api_server import ApiServer, serving

NAME = "api.example.test"


def leading_to(*addresses: str) -> Resolve:
    """A resolver that knows one answer."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        assert (host, port > 0) == (NAME, True)
        return addresses

    return resolve


async def unknown(host: str, port: int) -> Sequence[str]:
    raise OSError(-2, "Name or service not known")


@pytest.mark.parametrize(
    "addresses",
    [("127.0.0.1",), ("::1",), ("169.254.1.1",), ("fe80::1%eth0",), ("::ffff:127.0.0.1",), ("0.0.0.0",),
     ("10.0.0.5", "127.0.0.1"), ("169.254.169.254",)],
)  # fmt: skip
async def test_a_name_that_leads_here_is_refused_before_anything_is_sent(addresses: tuple[str, ...]) -> None:
    network = JudgedNetwork(allow_local=False, resolver=leading_to(*addresses))
    with pytest.raises(AddressRefused, match=NAME):
        await network.connect_tcp(NAME, 6443, timeout=1)


@pytest.mark.parametrize("address", ["169.254.169.254", "::ffff:169.254.169.254", "168.63.129.16"])
async def test_a_name_never_leads_to_a_metadata_service(address: str) -> None:
    with pytest.raises(AddressRefused):
        await JudgedNetwork(allow_local=True, resolver=leading_to(address)).connect_tcp(NAME, 443, timeout=1)


async def test_the_client_speaks_to_the_address_that_was_judged_under_the_name_that_was_given() -> None:
    server = ApiServer(trustme.CA(), NAME)
    async with serving(server):
        config = server.config(server=f"https://{NAME}:{server.port}")
        # Nobody listens at the first address: the next one is taken.
        resolver = leading_to("::1", "127.0.0.1")
        async with ClusterClient(config, allow_local=True, resolver=resolver) as client:
            assert await client.read("/version") == {"path": "/version"}
        assert server.asked[0].headers["host"] == f"{NAME}:{server.port}"
        async with ClusterClient(config, resolver=leading_to("127.0.0.1")) as client:
            with pytest.raises(AddressRefused, match=r"leads to 127\.0\.0\.1"):
                await client.read("/version")
    assert len(server.asked) == 1


async def test_a_name_that_nobody_knows_is_unreachable() -> None:
    server = ApiServer(trustme.CA(), NAME)
    async with ClusterClient(server.config(server=f"https://{NAME}"), timeout_s=0.3, resolver=unknown) as client:
        with pytest.raises(Unreachable):
            await client.read("/version")
    with pytest.raises(httpcore.ConnectError, match="no address"):
        await JudgedNetwork(allow_local=False, resolver=leading_to()).connect_tcp(NAME, 443, timeout=1)


async def test_a_proxy_of_this_process_is_used_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    server = ApiServer(trustme.CA(), NAME)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    config = server.config(server=f"https://{NAME}")
    async with ClusterClient(config, timeout_s=0.3, resolver=leading_to("127.0.0.1")) as client:
        with pytest.raises(Unreachable):
            await client.read("/version")
