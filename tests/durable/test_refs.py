"""Orchestrators written with refs, driven by a script."""

from datetime import timedelta

import pytest
from pydantic import BaseModel

from budcluster.durable.context import Context, Steps, sleep, wait_for_all, wait_for_event
from budcluster.durable.errors import NonRetryableError
from budcluster.durable.refs import ActivityRef, StepFailed, WorkflowRef
from tests.driver import ScriptedFailure, assert_replays, drive


class Order(BaseModel):
    number: int


class Receipt(BaseModel):
    paid: int


RESERVE = ActivityRef("reserve", takes=Order)
PAY = ActivityRef("pay", takes=Order, gives=Receipt)
RELEASE = ActivityRef("release", takes=Order)
SHIP = WorkflowRef("ship", takes=Order, gives=Receipt)


def buy(ctx: Context, order: Order) -> Steps[Receipt]:
    yield from RESERVE(ctx, order)
    try:
        receipt = yield from PAY(ctx, order)
    except StepFailed:
        yield from RELEASE(ctx, order)
        raise
    yield from sleep(ctx, timedelta(minutes=1))
    return receipt


def test_an_orchestrator_gets_typed_results() -> None:
    result, context = drive(buy, Order(number=1), [None, {"paid": 5}, None])
    assert result == Receipt(paid=5)
    assert [call[:2] for call in context.calls] == [
        ("call_activity", "reserve"),
        ("call_activity", "pay"),
        ("create_timer", timedelta(minutes=1)),
    ]


def test_a_failed_step_names_its_cause_and_is_compensated() -> None:
    with pytest.raises(StepFailed, match="pay: card refused") as failure:
        drive(buy, Order(number=1), [None, ScriptedFailure("CardRefused", "card refused"), None])
    assert failure.value.step == "pay"
    assert failure.value.error_type == "CardRefused"


def test_an_orchestrator_replays_the_same_calls_for_every_prefix() -> None:
    assert_replays(buy, Order(number=1), [None, {"paid": 5}, None])


def test_several_steps_wait_for_all_of_them() -> None:
    def both(ctx: Context, order: Order) -> Steps[list[Receipt]]:
        return (yield from wait_for_all(ctx, [PAY.begin(ctx, order), SHIP.begin(ctx, order)]))

    result, _ = drive(both, Order(number=1), [[{"paid": 1}, {"paid": 2}]])
    assert result == [Receipt(paid=1), Receipt(paid=2)]


def test_an_event_is_validated_and_its_absence_is_a_timeout() -> None:
    def approved(ctx: Context, _: Order) -> Steps[int]:
        try:
            return (yield from wait_for_event(ctx, "approve", takes=Receipt, timeout=timedelta(hours=1))).paid
        except TimeoutError:
            return 0

    assert drive(approved, Order(number=1), [{"paid": 7}])[0] == 7
    assert drive(approved, Order(number=1), [TimeoutError()])[0] == 0


def test_a_result_that_does_not_fit_is_refused_without_echoing_it() -> None:
    with pytest.raises(NonRetryableError, match=r"payload of pay is not valid: paid: int_parsing") as refusal:
        drive(buy, Order(number=1), [None, {"paid": "a secret"}])
    assert "a secret" not in str(refusal.value)
