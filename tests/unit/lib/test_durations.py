"""Durations, quantities and masked values."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lateen.lib.durations import Duration, parse_duration, seconds
from lateen.lib.quantities import parse_quantity
from lateen.lib.secrets import MaskedText


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("0s", 0),
        ("5s", 5),
        ("0.5s", 0.5),
        (".5s", 0.5),
        ("1h2m3s4ms", 3723.004),
        ("1.5h", 5400),
        ("-1m", -60),
        ("100us", 0.0001),
        ("100\u00b5s", 0.0001),
        ("1ns", 1e-9),
    ],
)
def test_durations(text: str, expected: float) -> None:
    assert parse_duration(text).seconds == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "5", "s", "5 s", "5S", "1d", "1s ", "-", ".s", "1e3s", "\u0665s", "9999999h"])
def test_not_durations(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|longer"):
        parse_duration(text)


@given(st.integers(-(2**62), 2**62))
def test_durations_round_trip(nanoseconds: int) -> None:
    assert parse_duration(str(Duration(nanoseconds))).nanoseconds == nanoseconds


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (seconds(0), "0s"),
        (seconds(90), "1m30s"),
        (seconds(3600), "1h"),
        (seconds(0.25), "250ms"),
        (Duration(1500), "1.5us"),
        (Duration(7), "7ns"),
        (seconds(-1.5), "-1.5s"),
    ],
)
def test_durations_are_written_short(duration: Duration, text: str) -> None:
    assert str(duration) == text
    assert duration != text
    assert seconds(-10) < duration < seconds(3601)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("100m", "0.1"),
        ("1", "1"),
        (2, "2"),
        (0.5, "0.5"),
        ("1.5Gi", "1610612736"),
        ("1e3", "1000"),
        ("3k", "3000"),
        ("1E", "1e18"),
    ],
)
def test_quantities(written: str | float, value: str) -> None:
    assert parse_quantity(written).value == Decimal(value)


@pytest.mark.parametrize("written", ["", "m", "1 Mi", "1mi", "1Ki2", "0x1", "1e", "nan"])
def test_not_quantities(written: str) -> None:
    with pytest.raises(ValueError, match="quantity"):
        parse_quantity(written)


def test_equal_quantities_are_equal_however_written() -> None:
    assert parse_quantity("1000m") == parse_quantity(1)
    assert hash(parse_quantity("1000m")) == hash(parse_quantity(1))


def test_secrets_do_not_show() -> None:
    secret = MaskedText(b"hunter2")
    assert "hunter2" not in f"{secret!r} {secret}"
    assert secret.reveal() == b"hunter2"
    assert secret == MaskedText(b"hunter2") != MaskedText(b"x")
