"""What surrounds a request: ids, traces, one line in the log, metrics."""

import httpx
import pytest
from structlog.testing import capture_logs

from budcluster.api.context import trace_id

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def test_a_sane_request_id_is_kept_and_another_one_replaced(shared_client: httpx.AsyncClient) -> None:
    kept = await shared_client.get("/clusters", headers={"X-Request-ID": "abc-1.2_3"})
    assert kept.headers["X-Request-ID"] == "abc-1.2_3"
    for strange in ("x" * 65, "two words", "<script>", ""):
        replaced = await shared_client.get("/clusters", headers={"X-Request-ID": strange})
        assert len(replaced.headers["X-Request-ID"]) == 24


async def test_a_request_leaves_one_line_with_its_route_and_health_leaves_none(
    shared_client: httpx.AsyncClient,
) -> None:
    with capture_logs() as lines:
        await shared_client.get("/clusters/00000000-0000-0000-0000-000000000000")
        await shared_client.get("/healthz")
    (line,) = [line for line in lines if line["event"] == "request.answered"]
    assert (line["method"], line["route"], line["status"]) == ("GET", "/clusters/{cluster_id}", 404)
    assert line["ms"] > 0


async def test_log_lines_carry_request_trace_and_actor(
    shared_client: httpx.AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    await shared_client.get("/clusters", headers={"traceparent": TRACE, "X-Request-ID": "trace-me"})
    out = capsys.readouterr().out
    assert "request_id='trace-me'" in out
    assert "trace_id='4bf92f3577b34da6a3ce929d0e0e4736'" in out
    assert "actor='anonymous'" in out


async def test_metrics_count_by_route_template(shared_client: httpx.AsyncClient) -> None:
    await shared_client.get("/clusters/00000000-0000-0000-0000-000000000001")
    await shared_client.get("/made/up/path")
    text = (await shared_client.get("/metrics")).text
    assert 'budcluster_http_requests_total{method="GET",route="/clusters/{cluster_id}",status="404"}' in text
    assert 'route="unmatched"' in text
    assert "made/up" not in text


@pytest.mark.parametrize(
    "header",
    [
        *(None, "", "junk", TRACE.replace("00-", "ff-", 1), TRACE + "-x", TRACE.upper()),
        *("00-" + "0" * 32 + "-00f067aa0ba902b7-01", "00-4bf92f3577b34da6a3ce929d0e0e4736-" + "0" * 16 + "-01"),
    ],
)
def test_a_malformed_traceparent_is_ignored(header: str | None) -> None:
    assert trace_id(header) is None


def test_a_trace_of_a_later_version_is_understood() -> None:
    assert trace_id(TRACE.replace("00-", "01-", 1) + "-more") == TRACE.split("-")[1]
