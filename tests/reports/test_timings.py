"""Latencies and speedups are those of the textbook formulas, written out here with numpy and scipy."""

from __future__ import annotations

import gc
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from kerneldyno.bench import stats
from kerneldyno.bench.journal import no_cycles, read
from kerneldyno.bench.records import Process
from kerneldyno.reports import frame
from kerneldyno.reports.timings import timings

PUBLISHED = Path(__file__).parents[2] / "reports" / "published"
RUNS = sorted(path.parent for path in PUBLISHED.rglob("journal.jsonl"))
Bounds = tuple[float, float, float]
EXACTLY = {"rel": 1e-12, "nan_ok": True}


def student(values: Sequence[float]) -> Bounds:
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return mean, math.nan, math.nan
    reach = scipy_stats.t.ppf(0.975, count - 1) * np.std(values, ddof=1) / math.sqrt(count)
    return mean, mean - reach, mean + reach


def around_median(values: Sequence[float]) -> Bounds:
    """Order statistics whose ranks a fair coin leaves out at most once in 40 times; of few values Student's, but no narrower than they."""
    ordered, count = np.sort(values), len(values)
    ranks = [k for k in range(1, count // 2 + 1) if scipy_stats.binom.cdf(k - 1, count, 0.5) <= 0.025]
    if ranks:
        return float(np.median(ordered)), ordered[ranks[-1] - 1], ordered[count - ranks[-1]]
    _, low, high = student(ordered)
    return float(np.median(ordered)), min(low, ordered[0]) if count > 1 else low, max(high, ordered[-1]) if count > 1 else high


def latency(processes: Sequence[Process]) -> Bounds:
    logs = [np.log(process.samples_s) for process in processes if process.samples_s]
    if len(logs) >= 3:
        return tuple(np.exp(student([float(np.median(values)) for values in logs])))
    _, low, high = np.exp(around_median(np.concatenate(logs)))
    return float(np.median([sample for process in processes for sample in process.samples_s])), low, high


def per_round(process: Process) -> pd.Series:  # type: ignore[type-arg]
    return pd.Series(np.log(process.samples_s)).groupby(np.array(process.rounds)).median()


def speedup(a: Sequence[Process], b: Sequence[Process]) -> Bounds:
    others = {process.worker: process for process in b}
    ratios = [(per_round(others[one.worker]) - per_round(one)).dropna().to_list() for one in a if one.worker in others]
    ratios = [values for values in ratios if values]
    if len(ratios) >= 3:
        return tuple(np.exp(student([float(np.median(values)) for values in ratios])))
    return tuple(np.exp(around_median(np.concatenate(ratios))))


@pytest.mark.parametrize("folder", RUNS, ids=lambda folder: str(folder.relative_to(PUBLISHED)))
def test_published_runs_say_what_the_formulas_say(folder: Path) -> None:
    run = read(folder)
    found = timings(run)
    bases = {(case.group, case.kernel): run.measurements.get(case.id) for case in run.manifest.cases}
    assert found
    for case in run.manifest.cases:
        measurement = run.measurements.get(case.id)
        assert (case.id in found) == (measurement is not None and measurement.status == "ok")
        if measurement is None or case.id not in found:
            continue
        timing, base = found[case.id], bases.get((case.group, case.baseline))
        assert timing.latency == pytest.approx(latency(measurement.processes), **EXACTLY)
        assert (timing.p5_s, timing.p95_s) == tuple(np.percentile(measurement.samples_s, [5, 95]))
        if case.kernel == case.baseline:
            assert timing.speedup == (1.0, 1.0, 1.0)
        elif timing.speedup is not None:
            assert base is not None
            assert timing.speedup == pytest.approx(speedup(measurement.processes, base.processes), **EXACTLY)
        else:
            assert base is None or base.status != "ok"


def test_the_published_table_comes_out_again() -> None:
    """The numbers of the file were written before they were worked out in this way."""
    folder = PUBLISHED / "2026-11-23-cpu-default"
    stored, results = pd.read_csv(folder / "results.csv"), frame.load(folder).results
    assert stored["case"].tolist() == results["case"].tolist()
    numbers = [name for name in stored if name in results and stored[name].dtype.kind == results[name].dtype.kind == "f"]
    numbers.remove("warm_latency_s")  # was empty then where latency_s is warm
    assert {"latency_s", "latency_low_s", "latency_high_s", "latency_p5_s", "speedup", "speedup_low", "speedup_high"} <= set(numbers)
    for name in numbers:
        np.testing.assert_allclose(stored[name], results[name], rtol=1e-12, err_msg=name)


times = st.floats(min_value=1e-7, max_value=100.0)
samples = st.lists(st.tuples(st.integers(0, 9), times), min_size=1, max_size=40)


def process(taken: list[tuple[int, float]], worker: int) -> Process:
    return Process(worker=worker, rounds=[number for number, _ in taken], samples_s=[seconds for _, seconds in taken])


@settings(deadline=None)  # scipy is imported meanwhile
@given(st.lists(samples, min_size=1, max_size=5))
def test_any_latency_is_that_of_the_formula(taken: list[list[tuple[int, float]]]) -> None:
    processes = [process(one, worker) for worker, one in enumerate(taken)]
    with np.errstate(over="ignore"):
        assert stats.latency(processes) == pytest.approx(latency(processes), rel=1e-9, nan_ok=True)


@settings(deadline=None)  # scipy is imported meanwhile
@given(st.lists(st.tuples(samples, samples), min_size=1, max_size=5))
def test_any_speedup_is_that_of_the_formula(taken: list[tuple[list[tuple[int, float]], list[tuple[int, float]]]]) -> None:
    a, b = ([process(pair[side], worker) for worker, pair in enumerate(taken)] for side in (0, 1))
    if not any({number for number, _ in one} & {number for number, _ in other} for one, other in taken):
        with pytest.raises(ValueError, match="no common rounds"):
            stats.paired_speedup(a, b)
        return
    with np.errstate(over="ignore"):
        assert stats.paired_speedup(a, b) == pytest.approx(speedup(a, b), rel=1e-9, nan_ok=True)


def test_garbage_is_looked_for_again_afterwards() -> None:
    @no_cycles()
    def failing() -> None:
        assert not gc.isenabled()
        with no_cycles():
            pass
        assert not gc.isenabled()
        raise KeyError

    assert gc.isenabled()
    with pytest.raises(KeyError):
        failing()
    assert gc.isenabled()
