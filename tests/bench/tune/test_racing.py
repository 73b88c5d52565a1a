"""What tuning does when a race does not come to its end."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kerneldyno.bench.tune.command import Stalled, Stopped, _Tuning
from kerneldyno.bench.tune.contest import HEAT, Race

GOAL = cast("Any", SimpleNamespace(key="prefill_kernel sm_90"))
NAMES = ["default", "one", "two", "three"]


class Arena:
    """Ends its races after so many candidates each, as a run does whose workers crash too often."""

    def __init__(self, *counts: int, ended: str = "finished") -> None:
        self.counts = list(counts)
        self.ended = ended

    def race(self, folder: Path, goal: Any, names: list[str], stage: Any) -> Race:
        return Race(dict.fromkeys(names[: self.counts.pop(0)], cast("Any", None)), cast("Any", self.ended))


def raced(arena: Arena) -> list[str]:
    tuning = _Tuning(cast("Any", None), cast("Any", None), cast("Any", arena), Path("book"), cast("Any", None))
    return list(tuning._race(Path("heat"), GOAL, NAMES, HEAT))


def test_it_is_gone_on_with_while_something_comes() -> None:
    arena = Arena(2, 3, 4)
    assert raced(arena) == NAMES
    assert arena.counts == []


def test_where_nothing_more_comes_the_goal_is_left_open_with_a_reason() -> None:
    with pytest.raises(Stalled, match=r"prefill_kernel sm_90: 2 of 4 candidates crash their workers again and again: see heat"):
        raced(Arena(1, 2, 2))


def test_whoever_stops_it_stops_it() -> None:
    with pytest.raises(Stopped):
        raced(Arena(2, ended="interrupted"))
