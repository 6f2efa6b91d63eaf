"""Commands that speak to the REST API: what they print, and what they tell scripts by their exit code."""

import asyncio
import json
import os
import re
import signal
import socket
import sys
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import update
from typer.testing import CliRunner

from budcluster.api.models import Role
from budcluster.api.tokens import create_token
from budcluster.bootstrap import Service, token_digest
from budcluster.cli.app import app as commands
from budcluster.cluster.models import Cluster, ClusterHealth
from budcluster.config import PROJECT_ROOT, Settings
from budcluster.kit.database import Database
from budcluster.monitoring.verdict import Reason
from budcluster.operations.causes import Cause
from budcluster.operations.models import OperationStatus, StepStatus, SubjectType
from budcluster.operations.services import Subject
from tests.cli.conftest import CommandLine
from tests.operations.desk import Desk, eventually, payload_of

LAB = {"name": "lab", "provider": "ON_PREMISES"}
NO_QUOTA = Cause(type="quota-exceeded", detail="No more GPUs.", next_step="Ask for quota.", step="apply_terraform")


@pytest.mark.parametrize("command", ["", "clusters", "deployments", "operations", "keys", "tokens", "serve", "migrate"])
def test_every_command_explains_itself(command: str) -> None:
    result = CliRunner().invoke(commands, [*command.split(), "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.stdout


async def test_a_cluster_is_listed_and_shown_by_name_and_by_id(
    budcluster: CommandLine, client: httpx.AsyncClient
) -> None:
    made = (await client.post("/clusters", json=LAB)).json()
    assert [cluster["id"] for cluster in await budcluster.json("clusters", "list")] == [made["id"]]
    assert (await budcluster.json("clusters", "show", "lab"))["id"] == made["id"]
    assert (await budcluster.json("clusters", "show", made["id"]))["name"] == "lab"
    table = await budcluster("clusters", "list")
    assert table.exit_code == 0
    assert "PROVISIONING" in table.stdout


async def test_what_to_do_about_a_cluster_that_is_away_is_shown(
    budcluster: CommandLine, client: httpx.AsyncClient, database: Database
) -> None:
    made = (await client.post("/clusters", json=LAB)).json()
    away = Reason("unreachable", "It does not answer.", next_step="Look where it is.")
    reasons = [away.as_json(), Reason("no-nodes", "The cluster has no nodes.").as_json()]
    async with database.writing() as session:
        values = {"health": ClusterHealth.UNREACHABLE, "health_reasons": reasons}
        await session.execute(update(Cluster).where(Cluster.id == UUID(made["id"])).values(**values))
    shown = (await budcluster("clusters", "show", "lab")).stdout
    assert re.search(r"Because +It does not answer\. The cluster has no nodes\.", shown)
    assert re.search(r"Next +Look where it is\.", shown)


async def test_empty_lists_say_so_and_are_json_for_programs(budcluster: CommandLine) -> None:
    for collection in ("clusters", "deployments", "operations"):
        assert f"no {collection} yet" in (await budcluster(collection, "list")).stdout
        assert await budcluster.json(collection, "list") == []


async def test_a_list_is_read_page_after_page_up_to_its_limit(
    budcluster: CommandLine, client: httpx.AsyncClient
) -> None:
    for number in range(3):
        await client.post("/clusters", json={**LAB, "name": f"lab-{number}"})
    assert [c["name"] for c in await budcluster.json("clusters", "list", "--limit", "2")] == ["lab-2", "lab-1"]
    assert len(await budcluster.json("clusters", "list")) == 3


async def test_what_is_not_there_is_refused_with_code_4(budcluster: CommandLine) -> None:
    for arguments in (["clusters", "show", "nowhere"], ["operations", "show", str(uuid4())]):
        result = await budcluster(*arguments)
        assert (result.exit_code, result.stdout) == (4, "")
        assert result.stderr.startswith("budcluster: There is no") or "there is no cluster" in result.stderr


async def test_a_value_that_the_service_refuses_is_explained(budcluster: CommandLine) -> None:
    result = await budcluster("clusters", "list", "--status", "LOST")
    assert result.exit_code == 4
    assert "'PROVISIONING', 'READY'" in result.stderr


@pytest.mark.parametrize("arguments", [["nonsense"], ["clusters", "list", "--limit", "0"], ["operations", "show", "x"]])
async def test_wrong_usage_is_code_2(budcluster: CommandLine, arguments: list[str]) -> None:
    assert (await budcluster(*arguments)).exit_code == 2


async def test_a_service_that_is_away_is_code_3(budcluster: CommandLine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    result = await budcluster("clusters", "list", BUDCLUSTER_URL=f"http://127.0.0.1:{port}")
    assert result.exit_code == 3
    assert "BUDCLUSTER_URL" in result.stderr


async def test_an_answer_of_somebody_else_is_code_3(budcluster: CommandLine, service_url: str) -> None:
    result = await budcluster("clusters", "list", BUDCLUSTER_URL=f"{service_url}/docs?")
    assert result.exit_code == 3
    assert "is not this service" in result.stderr


async def test_a_url_or_token_that_cannot_be_one_is_code_2(budcluster: CommandLine) -> None:
    assert (await budcluster("clusters", "list", BUDCLUSTER_URL="http://x:notaport")).exit_code == 2
    result = await budcluster("clusters", "list", BUDCLUSTER_TOKEN="tök")
    assert result.exit_code == 2
    assert "tök" not in result.output


async def test_tokens_are_asked_for_sent_and_judged_by_role(
    budcluster: CommandLine, database: Database, settings: Settings
) -> None:
    async with database.writing() as session:
        _, text = await create_token(session, token_digest(settings), name="viewer", role=Role.VIEW)
    without = await budcluster("clusters", "list")
    assert without.exit_code == 4
    assert "Set BUDCLUSTER_TOKEN." in without.stderr
    assert (await budcluster("clusters", "list", BUDCLUSTER_TOKEN=f"{text}\n")).exit_code == 0
    assert (await budcluster("operations", "cancel", str(uuid4()), BUDCLUSTER_TOKEN=text)).exit_code == 4
    assert text not in without.output


async def test_watching_shows_each_step_and_ends_with_the_operation(
    budcluster: CommandLine, desk: Desk, service: Service
) -> None:
    operation = await desk.request()
    watching = asyncio.create_task(budcluster("operations", "watch", str(operation.id)))

    async def is_watched() -> bool:
        return service.long_work.feeds.listeners > 0

    await eventually(is_watched)
    await desk.mark(operation.id, "apply_terraform", StepStatus.RUNNING)
    await desk.mark(operation.id, "apply_terraform", StepStatus.SUCCEEDED)
    await desk.mark(operation.id, "store_kubeconfig", StepStatus.SUCCEEDED)
    await desk.finish(operation.id)
    result = await watching
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-2:] == ["SUCCEEDED Create the cluster", "SUCCEEDED Keep the credential"]


async def test_how_long_it_will_take_is_said_as_soon_as_a_step_shows_its_pace(
    budcluster: CommandLine, desk: Desk, service: Service
) -> None:
    operation = await desk.request()
    began = datetime.now(UTC) - timedelta(minutes=10)
    await desk.mark(operation.id, "apply_terraform", StepStatus.RUNNING, started_at=began, percent=50)
    assert "about 1" in (await budcluster("operations", "show", str(operation.id))).stdout
    watching = asyncio.create_task(budcluster("operations", "watch", str(operation.id)))

    async def is_watched() -> bool:
        return service.long_work.feeds.listeners > 0

    await eventually(is_watched)
    await desk.finish(operation.id)
    assert re.search(r"about \d+m left", (await watching).stdout)


async def test_watching_a_failure_says_cause_and_next_step_with_code_1(budcluster: CommandLine, desk: Desk) -> None:
    operation = await desk.request()
    await desk.mark(operation.id, "apply_terraform", StepStatus.FAILED)
    await desk.finish(operation.id, OperationStatus.FAILED, error=NO_QUOTA)
    result = await budcluster("operations", "watch", str(operation.id), "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout.splitlines()[-1])["data"]["status"] == "FAILED"
    assert "No more GPUs. Ask for quota." in result.stderr
    shown = await budcluster("operations", "show", str(operation.id))
    assert shown.exit_code == 0
    assert "Ask for quota." in shown.stdout


async def test_one_that_was_cancelled_is_said_to_be_and_names_what_is_left(budcluster: CommandLine, desk: Desk) -> None:
    operation = await desk.request()
    await desk.cancel(operation.id)
    await desk.finish(operation.id, OperationStatus.CANCELLED, result={"undone": [], "left": ["apply_terraform"]})
    result = await budcluster("operations", "watch", str(operation.id))
    assert result.exit_code == 1
    assert result.stderr == "budcluster: provision_cluster was cancelled. Not undone: Create the cluster.\n"
    assert "Create the cluster" in (await budcluster("operations", "show", str(operation.id))).stdout


@pytest.mark.parametrize("is_interrupted", [True, False], ids=["Ctrl-C", "closed pipe"])
async def test_who_stops_watching_is_told_that_the_work_goes_on(
    service_url: str, desk: Desk, service: Service, is_interrupted: bool
) -> None:
    operation = await desk.request()
    await desk.mark(operation.id, "apply_terraform", StepStatus.RUNNING)
    reads, writes = os.pipe()
    watching = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "budcluster", "operations", "watch", str(operation.id),
        env={**os.environ, "BUDCLUSTER_URL": service_url}, cwd=PROJECT_ROOT,
        stdout=writes, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    os.close(writes)
    assert await asyncio.to_thread(os.read, reads, 1024) == b"RUNNING   Create the cluster\n"
    if is_interrupted:
        watching.send_signal(signal.SIGINT)
        _, told = await watching.communicate()
        os.close(reads)
    else:
        os.close(reads)
        await desk.mark(operation.id, "apply_terraform", StepStatus.SUCCEEDED)
        _, told = await watching.communicate()
    said = told.decode()
    assert (watching.returncode, said.count("\n")) == (130, 1), said
    assert f"`budcluster operations watch {operation.id}` shows it" in said
    assert (await desk.look(operation.id))[0].status is OperationStatus.PENDING


async def test_work_on_one_cluster_is_listed_by_its_name_and_a_status_in_any_case(
    budcluster: CommandLine, client: httpx.AsyncClient, desk: Desk
) -> None:
    made = (await client.post("/clusters", json=LAB)).json()
    mine = await desk.request(Subject(SubjectType.CLUSTER, UUID(made["id"]), "lab"))
    await desk.request()
    for chosen in (("--cluster", "lab"), ("--cluster", "lab", "--status", "pending")):
        assert [one["id"] for one in await budcluster.json("operations", "list", *chosen)] == [str(mine.id)]
    both = await budcluster("operations", "list", "--cluster", "lab", "--deployment", "chat")
    assert both.exit_code == 2


async def test_what_the_tools_printed_is_shown_whole_or_of_one_step(budcluster: CommandLine, desk: Desk) -> None:
    operation = await desk.request()
    journal = desk.journals.of(payload_of(operation))
    for name in ("apply_terraform", "store_kubeconfig"):
        async with journal.step(name) as step:
            step.log(f"{name} [was] begun")
    shown = await budcluster("operations", "logs", str(operation.id))
    assert shown.stdout == "apply_terraform [was] begun\nstore_kubeconfig [was] begun\n"
    (line,) = await budcluster.json("operations", "logs", str(operation.id), "--step", "store_kubeconfig")
    assert (line["step"], line["text"]) == ("store_kubeconfig", "store_kubeconfig [was] begun")


async def test_an_operation_is_cancelled_and_retried(budcluster: CommandLine, desk: Desk) -> None:
    operation = await desk.request()
    assert (await budcluster.json("operations", "cancel", str(operation.id)))["status"] == "CANCELLING"
    await desk.finish(operation.id, OperationStatus.CANCELLED)
    assert (await budcluster.json("operations", "retry", str(operation.id)))["attempt"] == 2
    assert (await budcluster("operations", "retry", str(operation.id))).exit_code == 4
    said = (await budcluster("operations", "cancel", str(operation.id))).stdout
    assert f"`budcluster operations watch {operation.id}`" in said
