"""The schema's way from nothing to today and back."""

import asyncio

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool
from structlog.testing import capture_logs

from alembic import command
from budcluster.migrations import alembic_config, head, migrate

_DEPLOYMENTS_AT_0009 = """
with cluster as (
    insert into clusters (id, name, provider, origin, status, labels, settings, node_count, gpu_count, health,
        health_reasons, version)
    values (gen_random_uuid(), 'lab', 'ON_PREMISES', 'ADOPTED', 'READY', '{}', '{}', 1, 0, 'HEALTHY', '[]', 1)
    returning id
)
insert into deployments (id, cluster_id, name, model, runtime, config, labels, status, namespace, helm_release,
    revision, replicas_desired, replicas_ready, servable, endpoints, error, version)
select gen_random_uuid(), cluster.id, name, 'org/model', 'VLLM', '{}', '{}', status, 'models', name, 1, 1, 0, false,
    endpoints, error, 1
from cluster, (values
    ('going', 'DELETING', '[{}]'::jsonb, null::jsonb),
    ('half', 'FAILED', '[]', '{"kind": "delete_deployment"}'),
    ('never-up', 'FAILED', '[]', '{"kind": "deploy_model"}'),
    ('whole', 'RUNNING', '[{}]', '{"kind": "delete_deployment"}')
) as seen (name, status, endpoints, error)
"""


@pytest.fixture
def url(empty_database_url: str) -> URL:
    return make_url(empty_database_url).set(drivername="postgresql+asyncpg")


async def _run(url: URL, work: object) -> None:
    engine = create_async_engine(url, poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(work)  # type: ignore[arg-type]
    await engine.dispose()


async def _revision(url: URL) -> str | None:
    engine = create_async_engine(url, poolclass=NullPool)
    async with engine.connect() as connection:
        value = (await connection.execute(text("select version_num from alembic_version"))).scalar()
    await engine.dispose()
    return value


async def test_the_schema_goes_up_matches_the_models_goes_down_and_up_again(url: URL) -> None:
    def check_and_go_down(connection: Connection) -> None:
        command.check(alembic_config(connection))
        command.downgrade(alembic_config(connection), "base")

    await migrate(url)
    await _run(url, check_and_go_down)
    assert await _revision(url) is None
    await migrate(url)
    assert await _revision(url) == head()


def test_the_last_file_is_the_last_revision() -> None:
    assert ScriptDirectory.from_config(alembic_config()).get_current_head() == head()


async def test_a_current_schema_is_left_alone(url: URL) -> None:
    await migrate(url)
    with capture_logs() as lines:
        await migrate(url)
    assert [line["event"] for line in lines] == ["database.current"]


async def test_two_replicas_that_migrate_at_once_both_succeed(url: URL) -> None:
    await asyncio.gather(migrate(url), migrate(url), migrate(url))
    assert await _revision(url) == head()


async def test_a_migration_that_was_cut_off_half_way_is_done_again_whole(url: URL) -> None:
    def half(connection: Connection) -> None:
        connection.execute(text("create table clusters (id int)"))
        connection.rollback()

    await _run(url, half)
    await migrate(url)
    assert await _revision(url) == head()


async def test_a_deletion_from_before_its_mark_counts_as_begun(url: URL) -> None:
    def go_up_to_0009(connection: Connection) -> None:
        command.upgrade(alembic_config(connection), "0009")
        connection.execute(text(_DEPLOYMENTS_AT_0009))
        connection.commit()

    await _run(url, go_up_to_0009)
    await migrate(url)
    engine = create_async_engine(url, poolclass=NullPool)
    async with engine.connect() as connection:
        marked = await connection.scalars(text("select name from deployments where half_removed order by name"))
        assert marked.all() == ["going", "half"]
    await engine.dispose()
