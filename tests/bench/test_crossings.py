"""Where one kernel overtakes another: planted laws of time are found again, ties stay ties, arithmetic keeps its bounds."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kerneldyno.bench.crossings import crossing_length, crossings
from kerneldyno.bench.journal import Run
from kerneldyno.bench.manifest import PROTOCOLS, Environment, Manifest, Settings
from kerneldyno.bench.records import Case, Measurement, Process
from kerneldyno.bench.stats import Interval

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Law = Callable[[int], float]

MACHINE = Environment(
    device="cpu", device_name="Some CPU", os="Linux", python="3.11.7", versions={}, cpu_name="Some CPU", cpu_cores=2, cpu_features=(),
    memory_bytes=1 << 34, threads=2,
)  # fmt: skip


def law(power: float, seconds: float = 1e-3, length: int = 300) -> Law:
    """Seconds as a power of the length, which at `length` are `seconds`."""
    return lambda other: seconds * (other / length) ** power


CONSTANT, LINE, SQUARE = law(0), law(1), law(2)  # they meet at a length of 300


def case(kernel: str, length: int, *, approximate: bool = False, baseline: str = "sdpa", **fields: object) -> Case:
    problem = {"batch": 1, "q_len": length, "kv_len": length, "heads": 8, **fields}
    return Case(
        kernel=f"attention/{kernel}", family=kernel, operator="attention", problem=problem, label=f"1×{length}", batch=1,
        seq_len=max(problem["q_len"], problem["kv_len"]), tokens=length, dtype="float32", direction="forward", device="cpu", seed=0,
        flops=1000, min_bytes=100, approximate=approximate, baseline=f"attention/{baseline}",
    )  # fmt: skip


def process(median_s: float, seed: int, spread: float = 0.01, worker: int = 1) -> Process:
    """Forty rounds, with a drift that all kernels of the worker share."""
    own, drift = np.random.default_rng(seed), np.random.default_rng(worker)
    taken = median_s * np.exp(0.05 * drift.standard_normal(40) + spread * own.standard_normal(40))
    return Process(worker=worker, samples_s=taken.tolist(), rounds=list(range(40)))


def make_run(laws: Mapping[str, Law], lengths: Sequence[int], *, spread: float = 0.01, approximate: Sequence[str] = (), **fields) -> Run:
    """A run in which every kernel takes the time of its law."""
    cases = [case(kernel, length, approximate=kernel in approximate, **fields) for length in lengths for kernel in laws]
    manifest = Manifest(version="0", created="", settings=Settings(protocol=PROTOCOLS["smoke"]), environment=MACHINE, cases=cases)
    run = Run("run", manifest)
    for number, one in enumerate(cases):
        seconds = laws[one.kernel.partition("/")[2]](one.seq_len)
        measurement = Measurement(case=one.id, status="ok", processes=[process(seconds, number, spread, one.seq_len)])
        run.measurements[one.id] = measurement
    return run


def told(run: Run) -> list[tuple[str, str, int, int]]:
    return [(one.shorter.partition("/")[2], one.longer.partition("/")[2], one.low, one.high) for one in crossings(run)]


def test_a_planted_crossing_lies_between_adjacent_lengths_and_inside_its_interval() -> None:
    run = make_run({"steady": CONSTANT, "growing": SQUARE}, [64, 256, 320, 1024])
    (found,) = crossings(run)
    assert (found.shorter, found.longer, found.low, found.high) == ("attention/growing", "attention/steady", 256, 320)
    assert found.leads
    assert not found.approximate
    estimate, low, high = found.length
    assert 256 <= low < estimate < high <= 320
    assert low <= 300 <= high
    assert high / low < 1.05


def test_ties_between_belong_to_the_crossing_and_widen_its_interval() -> None:
    run = make_run({"steady": CONSTANT, "growing": SQUARE}, [64, 299, 302, 1024], spread=0.02)
    (found,) = crossings(run)
    assert [point.length for point in found.points] == [64, 299, 302, 1024]
    assert found.length.low <= 300 <= found.length.high


def test_what_is_not_decided_on_both_sides_is_no_crossing() -> None:
    assert told(make_run({"steady": CONSTANT, "growing": SQUARE}, [128, 300])) == []
    assert told(make_run({"steady": CONSTANT, "same": CONSTANT}, [64, 128, 256])) == []


def test_a_pair_may_cross_several_times() -> None:
    waves = {64: 0.7e-3, 128: 1.5e-3, 256: 0.7e-3, 512: 1.5e-3}
    assert told(make_run({"steady": CONSTANT, "waves": waves.__getitem__}, list(waves))) == [
        ("waves", "steady", 64, 128),
        ("steady", "waves", 128, 256),
        ("waves", "steady", 256, 512),
    ]


def test_kernels_that_are_never_fastest_are_compared_with_the_baseline_only() -> None:
    laws = {"sdpa": CONSTANT, "fast": law(0, 0.5e-3), "begins": law(0.25, 1.2e-3, 128), "ends": law(-0.25, 2e-3, 128)}
    assert told(make_run(laws, [128, 1024])) == []
    found = crossings(make_run(laws | {"sdpa": law(0, 1.5e-3)}, [128, 1024]))
    assert {(one.shorter.partition("/")[2], one.longer.partition("/")[2]) for one in found} == {("sdpa", "ends"), ("begins", "sdpa")}
    assert not any(one.leads for one in found)


def test_approximate_kernels_have_an_envelope_of_their_own() -> None:
    laws = {"sdpa": LINE, "int8": CONSTANT, "pruned": SQUARE}
    found = {(one.shorter, one.longer): one for one in crossings(make_run(laws, [128, 1024], approximate=("int8", "pruned")))}
    assert found.keys() == {
        ("attention/pruned", "attention/int8"), ("attention/sdpa", "attention/int8"), ("attention/pruned", "attention/sdpa"),
    }  # fmt: skip
    assert [sorted(one.approximate) for one in found.values()] == [sorted({*pair} - {"attention/sdpa"}) for pair in found]
    assert [one.leads for one in found.values()].count(True) == 1
    assert found["attention/pruned", "attention/int8"].leads


def test_three_that_take_over_from_each_other_have_two_leading_crossings() -> None:
    laws = {"late": law(0.1, 2e-2, 1000), "early": law(1.5, 1e-6, 1), "middle": law(0.6, 1e-4, 1)}
    run = make_run(laws, [2**n for n in range(5, 17)])
    found = [one for one in crossings(run) if one.leads]
    assert [(one.shorter.partition("/")[2], one.longer.partition("/")[2]) for one in found] == [("early", "middle"), ("middle", "late")]
    assert found[0].length.low <= 100 ** (1 / 0.9) <= found[0].length.high
    assert found[1].length.low <= (2e2 / 1000**0.1) ** 2 <= found[1].length.high


def table(times: Mapping[str, Sequence[float]], lengths: Sequence[int], *, spread: float = 0.002) -> Run:
    """A run in which every kernel takes the times of its row, in milliseconds."""
    laws = {kernel: (lambda length, row=row: 1e-3 * row[lengths.index(length)]) for kernel, row in times.items()}
    return make_run(laws, lengths, spread=spread)


def leading(run: Run) -> list[tuple[str, str, int, int]]:
    return [(one.shorter.partition("/")[2], one.longer.partition("/")[2], one.low, one.high) for one in crossings(run) if one.leads]


def test_a_third_that_ties_between_them_leaves_the_lead_to_the_two() -> None:
    times = {"eager": (1, 1.01, 1.5), "compiled": (1.005, 1, 1.01), "sdpa": (1.5, 1.01, 1)}
    assert leading(table(times, [64, 256, 1024])) == [("eager", "sdpa", 64, 1024)]


def test_a_third_that_is_faster_than_both_between_them_takes_the_lead() -> None:
    times = {"eager": (1, 1.2, 1.5), "compiled": (1.2, 1, 1.2), "sdpa": (1.5, 1.2, 1)}
    assert leading(table(times, [64, 256, 1024])) == [("eager", "compiled", 64, 256), ("compiled", "sdpa", 256, 1024)]


def test_a_tie_at_an_end_hides_no_change_when_no_kernel_is_among_the_fastest_at_both() -> None:
    """First `eager` and `compiled` tie, then `compiled` and `sdpa`, which overtook `eager` meanwhile."""
    times = {"eager": (1, 1.3, 1.5), "compiled": (1.005, 1, 1.5), "sdpa": (1.5, 1.01, 1)}
    assert leading(table(times, [64, 256, 1024])) == [("eager", "sdpa", 64, 256)]


def test_one_change_is_told_once() -> None:
    """Where the fastest two tie all along, one of them changes places with the third."""
    times = {"eager": (1, 1, 1, 1.5), "compiled": (1.003, 1.003, 0.998, 1.5), "sdpa": (1.5, 1.3, 1.2, 1)}
    assert len(leading(table(times, [64, 128, 256, 1024]))) == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.sampled_from([1.0, 1.004, 1.01, 1.05, 1.5]), min_size=3, max_size=3), min_size=3, max_size=4))
def test_somebody_leads_where_no_kernel_is_among_the_fastest_everywhere(rows: list[list[float]]) -> None:
    lengths = [64 * 4**n for n in range(len(rows))]
    names = ["one", "two", "three"]
    run = table(dict(zip(names, zip(*rows, strict=True), strict=True)), lengths, spread=0.0)
    found = leading(run)
    fastest = [{name for name, time in zip(names, row, strict=True) if time <= 1.015 * min(row)} for row in rows]
    if not set.intersection(*fastest):
        assert found
    for (_, _, _, high), (_, _, low, _) in pairwise(sorted(found, key=lambda one: one[2])):
        assert high <= low


def test_variants_and_samples_of_other_processes_are_kept_apart() -> None:
    plain = make_run({"steady": CONSTANT, "growing": SQUARE}, [128], causal=False)
    causal = make_run({"steady": CONSTANT, "growing": SQUARE}, [1024], causal=True)
    both = Run("run", plain.manifest, plain.measurements | causal.measurements, added=causal.manifest.cases)
    assert told(both) == []
    apart = make_run({"steady": CONSTANT, "growing": SQUARE}, [128, 1024])
    for number, one in enumerate(apart.cases):
        apart.measurements[one.id].processes = [process(1e-3, number, worker=number)]
    assert told(apart) == []


def test_a_decode_step_is_laid_out_along_its_cache() -> None:
    run = make_run({"steady": CONSTANT, "growing": SQUARE}, [1], kv_len=128)
    more = make_run({"steady": CONSTANT, "growing": SQUARE}, [1], kv_len=1024)
    both = Run("run", run.manifest, run.measurements | more.measurements, added=more.manifest.cases)
    assert told(both) == [("growing", "steady", 128, 1024)]


def test_more_processes_give_the_interval_over_them() -> None:
    run = make_run({"steady": CONSTANT, "growing": SQUARE}, [256, 320])
    for number, one in enumerate(run.cases):
        seconds = (SQUARE if "growing" in one.kernel else CONSTANT)(one.seq_len)
        off = [1.0, 1.02, 0.98]
        run.measurements[one.id].processes = [process(seconds * off[i], number * 3 + i, worker=i) for i in range(3)]
    (found,) = crossings(run)
    assert found.length.low <= 300 <= found.length.high


# ---------------------------------------------------------------- arithmetic

RATIOS = st.floats(-3, 3).map(math.exp)


@st.composite
def bands(draw: st.DrawFn) -> list[tuple[int, Interval]]:
    """Ratios with intervals that begin above 1, end below it and do anything between."""
    lengths = sorted(draw(st.lists(st.integers(1, 100_000), min_size=2, max_size=6, unique=True)))
    points = []
    for number, length in enumerate(lengths):
        low, estimate, high = sorted(draw(st.tuples(RATIOS, RATIOS, RATIOS)))
        if number == 0:
            low, estimate, high = (1.03 + value for value in (low, estimate, high))
        elif number == len(lengths) - 1:
            low, estimate, high = (0.97 * value / (1 + value) for value in (low, estimate, high))
        elif draw(st.booleans()):
            low = high = math.nan
        points.append((length, Interval(estimate, low, high)))
    return points


@given(bands())
def test_the_interval_holds_the_estimate_and_stays_between_the_lengths(points: list[tuple[int, Interval]]) -> None:
    estimate, low, high = crossing_length(points)
    assert points[0][0] <= low <= estimate <= high <= points[-1][0]


@given(
    st.integers(2, 5000), st.integers(2, 5000), st.floats(0.2, 4), st.floats(0.01, 0.99), st.floats(0.0, 0.5),
)  # fmt: skip
def test_a_power_law_is_found_again_exactly(low: int, factor: int, slope: float, place: float, noise: float) -> None:
    """On logarithmic axes it is a straight line, and an interval of constant width is one of lengths around it."""
    high = low * factor
    crossing = math.exp(math.log(low) + place * math.log(factor))
    ratio = {length: (crossing / length) ** slope for length in (low, high)}
    assume(ratio[low] > math.exp(noise))
    assume(ratio[high] < math.exp(-noise))
    band = [(length, Interval(value, value * math.exp(-noise), value * math.exp(noise))) for length, value in ratio.items()]
    estimate, least, most = crossing_length(band)
    assert estimate == pytest.approx(crossing)
    assert least == pytest.approx(crossing * math.exp(-noise / slope))
    assert most == pytest.approx(crossing * math.exp(noise / slope))


def test_of_several_crossings_among_ties_the_middle_one_counts() -> None:
    heights = [1.2, 0.99, 1.01, 0.8]
    estimate, low, high = crossing_length([(10**n, Interval(height, height - 0.05, height + 0.05)) for n, height in enumerate(heights, 1)])
    assert 10**2 < estimate < 10**3
    assert low < 10**2
    assert high > 10**3
