# ruff: noqa: S608 - the statements are joined from constants of this module
"""The statements of the store. Each state change that matters is one statement, hence one transaction and one trip.

Parts of one statement see the data as it was before the statement, so "delete the old, insert the new" is safe in it.
"""

from typing import Final

_LEASED_COLUMNS: Final = """
    l.instance_id, l.execution_id, l.name, l.suspended, l.custom_status, l.history_events, l.deliveries, l.token,
    l.parent_id, l.parent_execution, l.parent_task"""

_INBOX: Final = """
    select array_agg(b.id order by b.id) as ids, array_agg(b.execution_id order by b.id) as executions,
           array_agg(b.event order by b.id) as events
    from wf_inbox b where b.instance_id = l.instance_id and b.visible_at <= now()"""

CREATE: Final = """
with made as (
    insert into wf_instances (instance_id, execution_id, name, version, status, input,
                              parent_id, parent_execution, parent_task, scheduled_at, owner, token, deliveries)
    values ($1, $2, $3, $4, 6, $5, $6, $7, $8, $9::timestamptz, $10::int, $11, case when $10 is null then 0 else 1 end)
    on conflict (instance_id) do update set
        execution_id = excluded.execution_id, name = excluded.name, version = excluded.version, status = 6,
        suspended = false, input = excluded.input, output = null, custom_status = null, failure = null,
        parent_id = excluded.parent_id, parent_execution = excluded.parent_execution,
        parent_task = excluded.parent_task, history_events = 0, deliveries = excluded.deliveries,
        owner = excluded.owner, token = excluded.token, scheduled_at = excluded.scheduled_at,
        created_at = now(), updated_at = now(), completed_at = null
    where wf_instances.completed_at is not null
    returning instance_id
), no_history as (
    delete from wf_history h using made where h.instance_id = made.instance_id
), no_tasks as (
    delete from wf_tasks t using made where t.instance_id = made.instance_id
), no_messages as (
    delete from wf_inbox b using made where b.instance_id = made.instance_id
), posted as (
    insert into wf_inbox (instance_id, execution_id, event, visible_at)
    select made.instance_id, $2, $12::bytea, coalesce($9::timestamptz, now()) from made
    returning id
)
select (select id from posted) as message, (select execution_id from wf_instances where instance_id = $1) as before
"""

LEASE_TURNS: Final = (
    """
with due as (
    select i.instance_id from wf_inbox b join wf_instances i on i.instance_id = b.instance_id
    where b.visible_at <= now() and i.owner is null and i.status <> 8 and i.completed_at is null
    order by b.visible_at limit cardinality($2::text[])
    for update of i skip locked
), numbered as (
    select instance_id, row_number() over () as n from (select distinct instance_id from due) d
), l as (
    update wf_instances i set owner = $1, token = t.token, deliveries = i.deliveries + 1
    from numbered join unnest($2::text[]) with ordinality t(token, n) using (n)
    where i.instance_id = numbered.instance_id
    returning i.*
)
select """
    + _LEASED_COLUMNS
    + ", inbox.* from l cross join lateral ("
    + _INBOX
    + ") inbox"
)

LEASE_TASKS: Final = """
with due as (
    select id from wf_tasks where owner is null order by id limit cardinality($2::text[]) for update skip locked
), numbered as (
    select id, row_number() over (order by id) as n from due
)
update wf_tasks k set owner = $1, token = t.token, deliveries = k.deliveries + 1
from numbered join unnest($2::text[]) with ordinality t(token, n) using (n)
where k.id = numbered.id
returning k.id, k.instance_id, k.execution_id, k.task_id, k.event, k.token, k.deliveries
"""

NEXT_DUE: Final = "select min(visible_at) - now() from wf_inbox where visible_at > now()"

# Leases the instance in the same trip where nobody has it: the turn can go to the worker at once.
FINISH_TASK: Final = (
    """
with done as (
    delete from wf_tasks where token = $1 and owner = $2 and id = $3 returning instance_id, execution_id
), posted as (
    insert into wf_inbox (instance_id, execution_id, event, visible_at)
    select instance_id, execution_id, $4::bytea, now() from done returning id, execution_id
), l as (
    update wf_instances i set owner = $2, token = $5, deliveries = i.deliveries + 1
    from done
    where $5::text is not null and i.instance_id = done.instance_id and i.execution_id = done.execution_id
      and i.owner is null and i.completed_at is null and i.status <> 8
    returning i.*
)
select done.instance_id as finished, posted.id as message, """
    + _LEASED_COLUMNS
    + """, inbox.*
from done cross join posted left join l on true left join lateral ("""
    + _INBOX
    + ") inbox on l.token is not null"
)

COMMIT_TURN: Final = """
with leased as (
    update wf_instances set
        status = $4, suspended = $5, custom_status = $6, output = $7, failure = $8, updated_at = now(),
        completed_at = case when $9 then now() end, history_events = history_events + cardinality($10::bytea[]),
        owner = null, token = null, deliveries = 0
    where instance_id = $1 and token = $2 and owner = $3
    returning instance_id, execution_id, history_events
), written as (
    insert into wf_history (instance_id, first_event, events)
    select instance_id, history_events - cardinality($10::bytea[]), $10::bytea[] from leased
    where cardinality($10::bytea[]) > 0
), consumed as (
    delete from wf_inbox b using leased l
    where b.instance_id = l.instance_id and ($9 or b.id = any($11::bigint[]))
), dropped as (
    -- Skipping what is locked: a result on its way locks its task first and the instance second.
    delete from wf_tasks where $9 and id in (
        select t.id from wf_tasks t join leased l on t.instance_id = l.instance_id for update of t skip locked)
), scheduled as (
    insert into wf_tasks (instance_id, execution_id, task_id, event, owner, token, deliveries)
    select l.instance_id, l.execution_id, t.task_id, t.event, t.owner, t.token,
           case when t.owner is null then 0 else 1 end
    from leased l, unnest($12::int[], $13::bytea[], $14::int[], $15::text[]) t(task_id, event, owner, token)
    returning id, task_id
), sent as (
    insert into wf_inbox (instance_id, execution_id, event, visible_at)
    select m.instance_id, m.execution_id, m.event, m.visible_at
    from leased l, unnest($16::text[], $17::text[], $18::bytea[], $19::timestamptz[])
                   m(instance_id, execution_id, event, visible_at)
    where m.instance_id = l.instance_id or exists (
        select from wf_instances i where i.instance_id = m.instance_id and i.completed_at is null)
), ended as (
    insert into wf_inbox (instance_id, event, visible_at)
    select c.instance_id, $20::bytea, now() from leased l join wf_instances c on c.parent_id = l.instance_id
    where $20::bytea is not null and c.completed_at is null
)
select history_events, array(select id from scheduled order by task_id) as task_ids from leased
"""

START_GENERATION: Final = """
with next as (
    update wf_instances set execution_id = $2, status = 0, suspended = false, input = $3, history_events = 0
    where instance_id = $1 returning instance_id
), no_history as (
    delete from wf_history h using next where h.instance_id = next.instance_id
), no_tasks as (
    delete from wf_tasks t using next where t.instance_id = next.instance_id
), no_messages as (
    delete from wf_inbox b using next where b.instance_id = next.instance_id and b.execution_id is not null
)
insert into wf_inbox (instance_id, execution_id, event, visible_at)
select next.instance_id, $2, e.event, now() from next, unnest($4::bytea[]) with ordinality e(event, n) order by e.n
"""

# What is raised before a scheduled start is seen with the start; a termination is seen at once.
POST: Final = """
with target as (
    select instance_id, status, completed_at, scheduled_at from wf_instances where instance_id = $1
), posted as (
    insert into wf_inbox (instance_id, event, visible_at)
    select instance_id, $2::bytea,
           case when not $3 and status = 6 then greatest(now(), scheduled_at) else now() end
    from target where completed_at is null
), woken as (
    update wf_instances i set status = 0 from target
    where $3 and i.instance_id = target.instance_id and i.status = 8
)
select completed_at is not null as is_final from target
"""

SEND_TO_PARENT_OF_DUPLICATE: Final = """
insert into wf_inbox (instance_id, execution_id, event, visible_at) values ($1, $2, $3, now())
"""

RERUN: Final = """
with made as (
    insert into wf_instances (instance_id, execution_id, name, version, status, input, history_events)
    values ($1, $2, $3, $4, 0, $5, cardinality($6::bytea[]))
    on conflict (instance_id) do nothing
    returning instance_id
), written as (
    insert into wf_history (instance_id, first_event, events) select instance_id, 0, $6::bytea[] from made
), scheduled as (
    insert into wf_tasks (instance_id, execution_id, task_id, event)
    select made.instance_id, $2, t.task_id, t.event from made, unnest($7::int[], $8::bytea[]) t(task_id, event)
), timers as (
    insert into wf_inbox (instance_id, execution_id, event, visible_at)
    select made.instance_id, $2, m.event, m.visible_at
    from made, unnest($9::bytea[], $10::timestamptz[]) m(event, visible_at)
)
select count(*) from made
"""

READ: Final = """
select instance_id, execution_id, name, version, status, input, output, custom_status, failure, parent_id,
       scheduled_at, created_at, updated_at, completed_at
from wf_instances where instance_id = $1
"""

TOUCH: Final = "update wf_instances set updated_at = now() where instance_id = $1"

HISTORY: Final = "select events from wf_history where instance_id = $1 order by first_event"

LIST: Final = "select instance_id from wf_instances where instance_id > $1 order by instance_id limit $2"

FAMILY: Final = """
with recursive family as (
    select instance_id, completed_at, 0 as depth from wf_instances where instance_id = $1
    union all
    select c.instance_id, c.completed_at, f.depth + 1 from wf_instances c join family f on c.parent_id = f.instance_id
    where $2 and f.depth < 100
)
select instance_id, completed_at is not null as is_final from family
"""

DELETE_FINISHED: Final = """
with gone as (
    delete from wf_instances where instance_id = any($1::text[]) and completed_at is not null returning instance_id
), no_history as (
    delete from wf_history where instance_id in (select instance_id from gone)
), no_tasks as (
    delete from wf_tasks where instance_id in (select instance_id from gone)
), no_messages as (
    delete from wf_inbox where instance_id in (select instance_id from gone)
)
select count(*) from gone
"""

FINISHED_BEFORE: Final = """
select array(select instance_id from wf_instances where completed_at < now() - $1::interval
             order by completed_at limit $2)
"""

DROP_UNREADABLE: Final = """
delete from wf_inbox b where b.visible_at <= now() and not exists (
    select from wf_instances i where i.instance_id = b.instance_id and i.completed_at is null)
"""

UNSTALL: Final = """
update wf_instances set status = case when suspended then 7 else 0 end, deliveries = 0 where status = 8
"""

RELEASE_TURNS: Final = """
update wf_instances set owner = null, token = null, deliveries = deliveries - $3::int
where owner = $1 and token = any($2::text[])
"""

RELEASE_TASKS: Final = """
update wf_tasks set owner = null, token = null, deliveries = deliveries - $3::int
where owner = $1 and token = any($2::text[])
"""

HELD_TOKENS: Final = """
select token from wf_instances where owner = $1 union all select token from wf_tasks where owner = $1
"""

NOTIFY: Final = "select pg_notify('wf_wake', $1)"

COUNTS: Final = """
select (select count(*) from wf_inbox where visible_at <= now()) as messages_due,
       (select count(*) from wf_tasks where owner is null) as tasks_free,
       (select count(*) from wf_owners) as owners
"""
