from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budcluster.kube.quantities import InvalidQuantity, parse

VALID = {
    "0": "0",
    "100m": "0.1",
    "1500m": "1.5",
    "0.1m": "0.0001",
    "3m": "0.003",
    "0.003": "0.003",
    "4u": "0.000004",
    "5n": "0.000000005",
    "0.9n": "0.000000001",
    "-0.9n": "-0.000000001",
    "1k": "1000",
    "1M": "1000000",
    "12E": "12000000000000000000",
    "1Ki": "1024",
    "7Mi": "7340032",
    "0.5Mi": "524288",
    "0.05Gi": "53687091.2",
    ".001Ki": "1.024",
    "1.5Gi": "1610612736",
    "1e3": "1000",
    "1E3": "1000",
    "1E-3": "0.001",
    "1.2e3": "1200",
    "129e6": "129000000",
    "128974848000m": "128974848",
    "-1Ki": "-1024",
    "+5": "5",
    ".5": "0.5",
    "1.": "1",
    "1.G": "1000000000",
    "100.035k": "100035",
    "1176213676Ki": "1204442804224",
    "1E": "1000000000000000000",
    ".000000000001Ki": "0.000000002",
    "9Ei": "9223372036854775807",
    "9223372036854775807Ki": "9223372036854775807",
    "-9Ei": "-9223372036854775807",
    "0e999999999": "0",
    "1e-999999999": "0.000000001",
    "1024Mi": "1073741824",
    "1000M": "1000000000",
}
INVALID = [
    "", "1.1.M", "1+1.0M", "0.1mi", "0.1am", "aoeu", ".5i", "1i", "-3.01i", "-3.01e-", " 1", "1 ", "1e", "1K", "1ki",
    "1e3Mi", "1mi", "0x10", "NaN", "Infinity", "-inf", "1_000", "  5", "5\n", "٣", "1e999999999", "1" * 65,
    ".", "+", "-", "Ki",
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), VALID.items())
def test_what_the_api_server_accepts_has_its_exact_value(text: str, value: str) -> None:
    assert parse(text) == Decimal(value)


@pytest.mark.parametrize(
    ("one", "other"), [("1024Mi", "1Gi"), ("1000M", "1G"), ("1.5", "1500m"), ("1.5Gi", "1536Mi"), (".001Ki", "1024m")]
)
def test_different_spellings_are_the_same_quantity(one: str, other: str) -> None:
    assert parse(one) == parse(other)


@pytest.mark.parametrize("text", INVALID)
def test_what_the_api_server_refuses_is_refused(text: str) -> None:
    with pytest.raises(InvalidQuantity):
        parse(text)


@pytest.mark.parametrize("value", [True, None, 1.5, [], 10**100])
def test_other_json_values_are_refused(value: object) -> None:
    with pytest.raises(InvalidQuantity):
        parse(value)  # type: ignore[arg-type]


def test_json_integers_are_taken() -> None:
    assert parse(8) == 8


@given(st.text(alphabet="0123456789.+-eEKMGTPinumk", max_size=70))
def test_any_text_is_either_a_number_or_refused(text: str) -> None:
    try:
        value = parse(text)
    except InvalidQuantity:
        return
    assert value.is_finite()


@given(st.integers(min_value=-(2**62), max_value=2**62))
def test_integers_are_exact(number: int) -> None:
    assert parse(str(number)) == number
    assert parse(f"{number}m") * 1000 == number
