"""Orchestrators written with refs, driven by a script."""

import pytest
from pydantic import BaseModel

from budcluster.durable.context import Context, Steps
from budcluster.durable.errors import NonRetryableError
from budcluster.durable.refs import ActivityRef, StepFailed
from tests.driver import ScriptedFailure, assert_replays, drive


class Order(BaseModel):
    number: int


class Receipt(BaseModel):
    paid: int


RESERVE = ActivityRef("reserve", takes=Order)
PAY = ActivityRef("pay", takes=Order, gives=Receipt)
RELEASE = ActivityRef("release", takes=Order)
SHIP = ActivityRef("ship", takes=Order)


def buy(ctx: Context, order: Order) -> Steps[Receipt]:
    yield from RESERVE(ctx, order)
    try:
        receipt = yield from PAY(ctx, order)
    except StepFailed:
        yield from RELEASE(ctx, order)
        raise
    yield from SHIP(ctx, order)
    return receipt


def test_an_orchestrator_gets_typed_results() -> None:
    result, context = drive(buy, Order(number=1), [None, {"paid": 5}, None])
    assert result == Receipt(paid=5)
    assert [name for name, _ in context.calls] == ["reserve", "pay", "ship"]


def test_a_failed_step_names_its_cause_and_is_compensated() -> None:
    with pytest.raises(StepFailed, match="pay: card refused") as failure:
        drive(buy, Order(number=1), [None, ScriptedFailure("CardRefused", "card refused"), None])
    assert failure.value.step == "pay"
    assert failure.value.error_type == "CardRefused"


def test_an_orchestrator_replays_the_same_calls_for_every_prefix() -> None:
    assert_replays(buy, Order(number=1), [None, {"paid": 5}, None])


def test_a_result_that_does_not_fit_is_refused_without_echoing_it() -> None:
    with pytest.raises(NonRetryableError, match=r"payload of pay is not valid: paid: int_parsing") as refusal:
        drive(buy, Order(number=1), [None, {"paid": "a secret"}])
    assert "a secret" not in str(refusal.value)
