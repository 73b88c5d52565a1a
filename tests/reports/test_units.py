"""Numbers for people."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerneldyno.reports import units


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (1.2345e-3, "s", "1.23 ms"), (9.5e-7, "s", "950 ns"), (12.0, "s", "12.0 s"), (0.0, "s", "0 ns"), (None, "s", ""),
        (2**20, "B", "1.00 MiB"), (1023, "B", "1023 B"), (3 * 2**40, "B", "3.00 TiB"), (1.5e14, "FLOP/s", "150 TFLOP/s"),
        (0.4567, "share", "45.7 %"), (3.2e-5, "J", "32.0 µJ"), (71.2, "W", "71.2 W"), (2.2e10, "B/s", "22.0 GB/s"),
    ],
)  # fmt: skip
def test_quantities(value: float | None, unit: str, shown: str) -> None:
    assert units.quantity(value, unit) == shown


@pytest.mark.parametrize(("value", "shown"), [(1.0, "1.00×"), (0.314, "0.31×"), (12.34, "12.3×"), (250.4, "250×"), (None, "")])
def test_ratios(value: float | None, shown: str) -> None:
    assert units.times(value) == shown


@given(st.floats(1e-9, 1e6))
def test_what_is_shown_is_what_was_measured(seconds: float) -> None:
    number, unit = units.quantity(seconds, "s").split()
    factor = {name: divisor for divisor, name in units.SCALES["s"]}[unit]
    assert math.isclose(float(number) * factor, seconds, rel_tol=0.006)


def test_words() -> None:
    assert (units.count(1, "shape"), units.count(2, "shape")) == ("1 shape", "2 shapes")
    assert units.count(2, "process", "processes") == "2 processes"
    assert [units.listed(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (0.0, "0 %"), (3.2e-7, "3e-07"), (0.0012, "0.12 %"), (0.06, "6.0 %"), (0.314, "31 %"), (1.62, "162 %")]
)
def test_errors(value: float | None, text: str) -> None:
    assert units.error(value) == text
