"""Who goes on to the finals, and what has to be shown to replace the default."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from kerneldyno.bench.records import Measurement, Process
from kerneldyno.bench.tune import decide

PROCESSES, ROUNDS = 5, 15


def measured(
    rng: np.random.Generator, seconds: float, *, between: float = 0.02, within: float = 0.01, processes: int = PROCESSES
) -> Measurement:
    """Samples of a kernel whose true time is known, with noise between and within processes."""
    found = []
    for worker in range(processes):
        level = seconds * np.exp(rng.normal(0, between))
        samples = level * np.exp(rng.normal(0, within, ROUNDS))
        found.append(Process(worker=worker, samples_s=samples.tolist(), rounds=list(range(ROUNDS))))
    return Measurement(case="c", status="ok", processes=found)


def wrong() -> Measurement:
    return Measurement(case="c", status="wrong", reason="off")


def test_finalists_are_those_that_may_be_the_fastest() -> None:
    rng = np.random.default_rng(1)
    default = measured(rng, 1.0, between=0, processes=1)
    times = {"a": 0.90, "b": 0.905, "much slower": 0.99, "slower than the default": 1.2}
    others = {name: measured(rng, seconds, between=0, processes=1) for name, seconds in times.items()}
    assert sorted(decide.finalists(default, {**others, "wrong": wrong()})) == ["a", "b"]
    assert decide.finalists(default, {"slower than the default": others["slower than the default"]}) == []
    assert decide.finalists(default, {"wrong": wrong()}) == []
    alike = {f"{i}": measured(rng, 1.0, between=0, processes=1) for i in range(9)}
    assert len(decide.finalists(default, alike)) == decide.FINALISTS


def test_a_faster_candidate_replaces_the_default() -> None:
    rng = np.random.default_rng(2)
    default = measured(rng, 1.0, between=0.01)
    found = decide.verdict(
        default, {"fast": measured(rng, 0.8, between=0.01), "faster": measured(rng, 0.7, between=0.01), "wrong": wrong()}
    )
    assert found.winner == "faster"
    assert found.speedups["faster"].estimate == pytest.approx(1 / 0.7, rel=0.05)
    assert set(found.speedups) == {"fast", "faster"}
    assert "over 5 processes the interval of the ratio, at 0.95 for one of 2 finalists, lies above 1" in found.required


def test_without_finalists_the_default_stays() -> None:
    default = measured(np.random.default_rng(3), 1.0)
    assert decide.verdict(default, {}).winner is None
    assert decide.verdict(default, {}).required.startswith("no candidate came close enough")
    assert decide.verdict(default, {"wrong": wrong()}).winner is None


def test_what_was_not_measured_side_by_side_is_neither_left_out_nor_chosen() -> None:
    """A worker was lost in between: the default and the candidate come from different processes."""
    rng = np.random.default_rng(6)
    default, slow = measured(rng, 1.0, between=0), measured(rng, 2.0, between=0)
    apart = [msgspec.structs.replace(process, worker=process.worker + 100) for process in slow.processes]
    other = msgspec.structs.replace(slow, processes=apart)
    assert decide.finalists(default, {"other": other}) == ["other"]
    fast = measured(rng, 0.5, between=0)
    for processes in (2, 3):
        few = msgspec.structs.replace(fast, processes=[*fast.processes[:processes], *apart[processes:]])
        assert (decide.verdict(default, {"fast": few}).winner is not None) == (processes == 3)


def test_what_is_no_faster_hardly_ever_replaces_the_default() -> None:
    """Of 600 tunings in which four finalists are exactly as fast as the default, at most about ALPHA choose one of them."""
    rng = np.random.default_rng(4)
    chosen = 0
    for _ in range(600):
        default = measured(rng, 1.0)
        chosen += decide.verdict(default, {str(i): measured(rng, 1.0) for i in range(4)}).winner is not None
    assert chosen / 600 <= 1.5 * decide.ALPHA


def test_what_is_clearly_faster_hardly_ever_fails_to() -> None:
    rng = np.random.default_rng(5)
    chosen = 0
    for _ in range(200):
        others = {"fast": measured(rng, 0.90, between=0.01), "same": measured(rng, 1.0, between=0.01)}
        chosen += decide.verdict(measured(rng, 1.0, between=0.01), others).winner == "fast"
    assert chosen / 200 >= 0.95
