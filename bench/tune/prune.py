"""Candidates that need not be measured: those that arithmetic leaves out, and those whose binary must not be offered. No torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..codegen import judge, pool
from ..codegen.cards import LIMITS
from .goals import Form, texts

if TYPE_CHECKING:
    from .goals import Goal


@dataclass(frozen=True)
class Sieved:
    """What is left of the candidates of one goal."""

    kept: list[str]
    """What people call them; the default is always kept, and first."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Others -> why, in a sentence."""


def by_arithmetic(goal: Goal) -> Sieved:
    """What numbers alone say."""
    reasons = {name: goal.task.why_not(tile) for name, tile in texts(goal).items() if tile != goal.task.default}
    left_out = {name: reason for name, reason in reasons.items() if reason}
    return Sieved([str(goal.task.default), *(name for name in reasons if name not in left_out)], left_out)


def sieve(
    goal: Goal,
    *,
    jobs: int | None = None,
    timeout_s: float = pool.TIMEOUT_S,
    stop: Callable[[], bool] = lambda: False,
    tick: Callable[[int, int], None] | None = None,
) -> Sieved | None:
    """What is left once all that arithmetic let pass was compiled for its card; None when it was stopped.

    `tick` hears how many of how many are compiled. A card that the rules do not know is judged by arithmetic alone.
    """
    sieved, tiles = by_arithmetic(goal), texts(goal)
    wanted: list[tuple[str, Form]] = [
        (name, form) for name in sieved.kept[1:] for form in goal.task.forms(tiles[name]) if form.capability in LIMITS
    ]
    names = {id(form): name for name, form in wanted}
    out: dict[str, str] = {}
    compiled = pool.compile_all([form for _, form in wanted], jobs=jobs, timeout_s=timeout_s, stop=stop)
    for count, done in enumerate(compiled, start=1):
        reasons = judge.faults(done.configuration, done.facts) if done.facts else [done.reason]
        if reasons:
            out.setdefault(names[id(done.configuration)], f"{reasons[0]} ({done.configuration.variant})")
        if tick:
            tick(count, len(wanted))
    if stop():
        return None
    return Sieved([name for name in sieved.kept if name not in out], {**sieved.left_out, **out})
