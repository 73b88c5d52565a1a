"""What distinguishes problems beside batch and sequence length. No torch, no kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .records import Case

LENGTHS = ("seq_len", "q_len", "kv_len")


@dataclass(frozen=True)
class Variant:
    """Problems of one operator on one device that differ in batch and sequence length only."""

    operator: str
    device: str
    dtype: str
    fields: tuple[tuple[str, Any], ...]
    """The other fields, those with a length that is not the sequence axis included."""


def variants(cases: Iterable[Case]) -> dict[str, Variant]:
    """The variant of each case, by case id; cases of one group, which have one problem, share the object."""
    found: dict[str, Variant] = {}
    return {case.id: found[case.group] if case.group in found else found.setdefault(case.group, variant(case)) for case in cases}


def variant(case: Case) -> Variant:
    """The variant that a case's problem belongs to."""
    leave = {"batch", "dtype", *lengths(case)}
    if case.problem.get("kv_heads") == case.problem.get("heads"):
        leave.add("kv_heads")
    fields = {"direction": case.direction} | {name: value for name, value in case.problem.items() if name not in leave}
    plain = tuple((name, value if isinstance(value, str | int | float | bool | None) else str(value)) for name, value in fields.items())
    return Variant(case.operator, case.device, case.dtype, plain)


def lengths(case: Case) -> tuple[str, ...]:
    """The fields of a case's problem that lie along the sequence axis: they change together."""
    return tuple(name for name in LENGTHS if case.problem.get(name) == case.seq_len)
