import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
import trustme

from budcluster.kube.client import ClusterClient
from budcluster.kube.errors import (
    CertificateProblem,
    Conflict,
    Forbidden,
    Gone,
    KubeError,
    NotFound,
    Rejected,
    ServerFailed,
    TooManyRequests,
    Unauthorized,
    Unreachable,
)
from budcluster.kube.resources import NAMESPACES, NODES, PODS, Resource
from tests.kube.api_server import Answer, ApiServer, Asked, require_client_certificate, serving, status

AUTHORITY, STRANGER = trustme.CA(), trustme.CA()


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    async with serving(ApiServer(AUTHORITY)) as running:
        yield running


@pytest.fixture
async def api(server: ApiServer) -> AsyncIterator[ClusterClient]:
    async with ClusterClient(server.config(), timeout_s=10) as client:
        yield client


def in_turn(*answers: Answer) -> Any:
    left = list(answers)
    return lambda asked: left.pop(0) if len(left) > 1 else left[0]


class TestConnection:
    async def test_the_token_is_sent_and_the_authority_checked(self, server: ApiServer, api: ClusterClient) -> None:
        assert await api.read("/version") == {"path": "/version"}
        assert server.asked[0].headers["authorization"] == "bearer canary-bearer-token"

    async def test_a_client_certificate_is_shown(self) -> None:
        server = ApiServer(AUTHORITY)
        require_client_certificate(server, AUTHORITY)
        issued = AUTHORITY.issue_cert("admin")
        certificate = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        login = {"token": None, "client_certificate": certificate, "client_key": issued.private_key_pem.bytes()}
        async with serving(server), ClusterClient(server.config(**login)) as api:
            assert await api.read("/version")
        assert "authorization" not in server.asked[0].headers

    async def test_another_authority_is_a_certificate_problem(self, server: ApiServer) -> None:
        config = server.config(certificate_authority=STRANGER.cert_pem.bytes())
        async with ClusterClient(config, timeout_s=5) as api:
            with pytest.raises(CertificateProblem, match="certificate authority"):
                await api.read("/version")

    async def test_another_name_is_a_certificate_problem_unless_it_is_given(self) -> None:
        async with serving(ApiServer(AUTHORITY, "kubernetes.default")) as server:
            async with ClusterClient(server.config()) as api:
                with pytest.raises(CertificateProblem):
                    await api.read("/version")
            async with ClusterClient(server.config(tls_server_name="kubernetes.default")) as api:
                assert await api.read("/version")

    async def test_a_dead_server_is_unreachable(self, server: ApiServer) -> None:
        async with ClusterClient(server.config(server="https://127.0.0.1:1"), timeout_s=5) as api:
            with pytest.raises(Unreachable, match="is the cluster up"):
                await api.read("/version")

    async def test_a_silent_server_is_given_up_in_time(self, server: ApiServer) -> None:
        async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        silent = await asyncio.start_server(hold, "127.0.0.1", 0)
        port = silent.sockets[0].getsockname()[1]
        async with silent, ClusterClient(server.config(server=f"https://127.0.0.1:{port}"), timeout_s=0.2) as api:
            with pytest.raises(Unreachable):
                await api.read("/version")


class TestErrors:
    CASES = (
        (401, Unauthorized),
        (403, Forbidden),
        (404, NotFound),
        (409, Conflict),
        (410, Gone),
        (400, Rejected),
        (422, Rejected),
        (302, Rejected),
        (500, ServerFailed),
    )

    @pytest.mark.parametrize(("code", "kind"), CASES)
    async def test_each_status_has_its_error(
        self, server: ApiServer, api: ClusterClient, code: int, kind: type[KubeError]
    ) -> None:
        server.answer = lambda asked: status(code, "Reason")
        with pytest.raises(kind):
            await api.get(NODES, "a")
        assert len(server.asked) == 1

    async def test_what_the_server_says_is_cut_and_masked(self, server: ApiServer, api: ClusterClient) -> None:
        server.answer = lambda asked: status(403, "Forbidden", "canary-bearer-token " + "x" * 10_000)
        with pytest.raises(Forbidden) as caught:
            await api.get(PODS, "a", namespace="b")
        assert "canary" not in str(caught.value)
        assert len(str(caught.value)) < 400
        assert (caught.value.verb, caught.value.resource) == ("get", "pods")

    @pytest.mark.parametrize("content", [b"<html>", b"", b"[]", b"1"])
    async def test_an_answer_that_is_no_object_is_told(
        self, server: ApiServer, api: ClusterClient, content: bytes
    ) -> None:
        server.answer = lambda asked: Answer(content)
        with pytest.raises(ServerFailed, match="JSON"):
            await api.read("/version")


class TestRepeating:
    async def test_a_busy_server_is_asked_again(self, server: ApiServer, api: ClusterClient) -> None:
        server.answer = in_turn(status(429, "TooManyRequests", retry_after="0"), status(503, "X"), Answer({"a": 1}))
        assert await api.get(NODES, "a") == {"a": 1}
        assert len(server.asked) == 3

    async def test_one_that_stays_busy_is_given_up(self, server: ApiServer, api: ClusterClient) -> None:
        server.answer = lambda asked: status(429, "TooManyRequests")
        with pytest.raises(TooManyRequests):
            await api.create(NAMESPACES, {"metadata": {"name": "a"}})
        assert len(server.asked) == 4

    async def test_the_wait_it_asks_for_never_exceeds_the_time_limit(self, server: ApiServer) -> None:
        server.answer = lambda asked: status(429, "TooManyRequests", retry_after="3600")
        async with ClusterClient(server.config(), timeout_s=0.5) as api:
            with pytest.raises(TooManyRequests):
                await api.get(NODES, "a")

    async def test_a_broken_connection_is_tried_again_unless_that_could_do_it_twice(
        self, server: ApiServer, api: ClusterClient
    ) -> None:
        server.answer = in_turn(Answer(cut=True), Answer({"a": 1}))
        assert await api.get(NODES, "a") == {"a": 1}
        server.answer = in_turn(Answer(cut=True), Answer({"a": 1}))
        with pytest.raises(Unreachable):
            await api.create(NAMESPACES, {"metadata": {"name": "a"}})


class TestObjects:
    async def test_create_apply_patch_and_delete_say_who_manages_the_fields(
        self, server: ApiServer, api: ClusterClient
    ) -> None:
        deployments = Resource("apps", "v1", "deployments")
        await api.create(deployments, {"metadata": {"name": "a"}}, namespace="n")
        await api.apply(deployments, {"metadata": {"name": "a"}}, namespace="n", force=True)
        await api.patch(deployments, "a", {"spec": {"replicas": 2}}, namespace="n", subresource="scale")
        assert await api.delete(deployments, "a", namespace="n") is True
        create, apply, patch, delete = server.asked
        assert (create.method, create.path) == ("POST", "/apis/apps/v1/namespaces/n/deployments")
        assert apply.headers["content-type"] == "application/apply-patch+yaml"
        assert apply.params == {"fieldManager": "budcluster", "force": "true"}
        assert patch.path == "/apis/apps/v1/namespaces/n/deployments/a/scale"
        assert patch.headers["content-type"] == "application/merge-patch+json"
        assert delete.json == {"propagationPolicy": "Background"}

    async def test_deleting_what_is_absent_is_success(self, server: ApiServer, api: ClusterClient) -> None:
        server.answer = lambda asked: status(404, "NotFound")
        assert await api.delete(NODES, "a") is False

    async def test_a_name_cannot_leave_its_place(self, server: ApiServer, api: ClusterClient) -> None:
        await api.get(PODS, "../../nodes?x=1", namespace="n")
        assert server.asked[0].path == "/api/v1/namespaces/n/pods/..%2F..%2Fnodes%3Fx%3D1"
        with pytest.raises(ValueError, match="name"):
            await api.get(PODS, "..", namespace="n")

    async def test_permissions_are_asked_for(self, server: ApiServer, api: ClusterClient) -> None:
        def answer(asked: Asked) -> Answer:
            return Answer({"status": {"allowed": asked.json["spec"]["resourceAttributes"]["verb"] == "get"}})

        server.answer = answer
        assert await api.may("get", NODES)
        assert not await api.may("delete", NODES)

    async def test_a_service_is_asked_through_the_proxy(self, server: ApiServer, api: ClusterClient) -> None:
        server.answer = lambda asked: Answer(b"metrics 1\n")
        got = await api.ask_service("n", "prom", "/api/v1/query", port=9090, params={"query": "up == 1"})
        assert got == b"metrics 1\n"
        assert server.asked[0].path == "/api/v1/namespaces/n/services/prom:9090/proxy/api/v1/query"
        assert server.asked[0].params == {"query": "up == 1"}


class TestLists:
    async def test_pages_are_followed_to_the_end(self, server: ApiServer, api: ClusterClient) -> None:
        def answer(asked: Asked) -> Answer:
            page = int(asked.params.get("continue", "0"))
            following = {"continue": str(page + 1)} if page < 2 else {}
            return Answer({"metadata": {"resourceVersion": "7", **following}, "items": [page]})

        server.answer = answer
        pages = [page async for page in api.list_pages(NODES, label_selector="a=b", limit=1)]
        assert [page["items"] for page in pages] == [[0], [1], [2]]
        assert all(asked.params["limit"] == "1" and asked.params["labelSelector"] == "a=b" for asked in server.asked)

    async def test_a_list_that_took_too_long_is_gone(self, server: ApiServer, api: ClusterClient) -> None:
        server.answer = in_turn(Answer({"metadata": {"continue": "x"}}), status(410, "Expired"))
        with pytest.raises(Gone):
            _ = [page async for page in api.list_pages(NODES)]


def event(kind: str, **content: Any) -> bytes:
    return json.dumps({"type": kind, "object": content}).encode() + b"\n"


class TestWatch:
    async def test_events_arrive_whatever_the_chunks(self, server: ApiServer, api: ClusterClient) -> None:
        stream = event("ADDED", name="ä" * 100) + event("BOOKMARK", version="9") + event("DELETED")
        server.answer = lambda asked: Answer(chunks=[stream[n : n + 7] for n in range(0, len(stream), 7)])
        seen = [one["type"] async for one in api.watch(NODES, resource_version="5")]
        assert seen == ["ADDED", "BOOKMARK", "DELETED"]
        assert server.asked[0].params["resourceVersion"] == "5"
        assert server.asked[0].params["allowWatchBookmarks"] == "true"

    async def test_an_old_version_is_gone_as_answer_and_as_event(self, server: ApiServer, api: ClusterClient) -> None:
        for answer in (status(410, "Expired"), Answer(chunks=[event("ERROR", code=410, reason="Expired")])):
            server.answer = in_turn(answer)
            with pytest.raises(Gone):
                _ = [one async for one in api.watch(NODES, resource_version="1")]

    async def test_a_broken_stream_is_told(self, server: ApiServer, api: ClusterClient) -> None:
        server.answer = lambda asked: Answer(chunks=[event("ADDED")], cut=True)
        events = api.watch(NODES, resource_version="1")
        assert (await anext(events))["type"] == "ADDED"
        with pytest.raises(Unreachable):
            await anext(events)

    async def test_it_can_be_left_early(self, server: ApiServer, api: ClusterClient) -> None:
        server.answer = lambda asked: Answer(chunks=[event("ADDED")] * 3)
        async with aclosing(api.watch(NODES, resource_version="1")) as events:
            async for one in events:
                assert one["type"] == "ADDED"
                break


class TestLogs:
    async def test_lines_are_streamed(self, server: ApiServer, api: ClusterClient) -> None:
        server.answer = lambda asked: Answer(chunks=[b"one\ntw", b"o\n\xff", b"end"])
        lines = [line async for line in api.log_lines("n", "p", container="c", follow=True, tail_lines=5)]
        assert lines == ["one", "two", "\ufffdend"]
        assert server.asked[0].params == {"container": "c", "follow": "true", "tailLines": "5"}

    async def test_a_container_that_is_waiting_is_told(self, server: ApiServer, api: ClusterClient) -> None:
        server.answer = lambda asked: status(400, "BadRequest", 'container "c" is waiting to start: PodInitializing')
        with pytest.raises(Rejected, match="waiting to start"):
            _ = [line async for line in api.log_lines("n", "p")]
