"""Intervals cover what they promise, pairs are paired, and sampling stops when it should."""

from __future__ import annotations

import math
import random
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerneldyno.bench import stats
from kerneldyno.bench.manifest import PROTOCOLS, Protocol
from kerneldyno.bench.records import Process
from kerneldyno.bench.stats import Interval
from kerneldyno.bench.stopping import StoppingRule, WarmUp

times = st.floats(min_value=1e-7, max_value=100.0)
many_times = st.lists(times, min_size=1, max_size=60)


def process(samples: list[float], rounds: list[int] | None = None, worker: int = 0) -> Process:
    return Process(samples_s=samples, rounds=list(range(len(samples))) if rounds is None else rounds, worker=worker)


def protocol(**changes: float) -> Protocol:
    fields = {
        "min_samples": 6, "target": 0.01, "min_total_s": 0.0, "cap_s": 10.0,
        "warmup_s": 0.2, "warmup_agreement": 0.02, "warmup_cap_s": 1.0,
    }  # fmt: skip
    return Protocol(name="test", **{**fields, **changes})


# ---------------------------------------------------------------- the median and its interval


@pytest.mark.parametrize(
    ("count", "low", "high"),
    [(6, 1, 6), (8, 1, 8), (9, 2, 8), (10, 2, 9), (20, 6, 15), (30, 10, 21), (100, 40, 61)],
)
def test_the_ends_are_the_order_statistics_of_the_textbook_tables(count: int, low: int, high: int) -> None:
    assert stats.median_interval(range(1, count + 1)) == Interval((count + 1) / 2, low, high)


def test_the_ends_are_the_closest_pair_that_still_covers_enough() -> None:
    for count in [*range(6, 100), 999, 2000]:
        ordered = list(range(1, count + 1))
        _, low, high = stats.median_interval(ordered)
        assert high == count + 1 - low
        assert missed(count, low) <= 0.05 < missed(count, low + 1)


def missed(count: int, k: int) -> float:
    """Probability that the median lies outside the k-th smallest and k-th largest of `count` samples, in whole numbers."""
    return 2 * sum(math.comb(count, heads) for heads in range(k)) / 2**count


def test_few_samples_get_an_interval_that_is_wider_than_they_are() -> None:
    two = stats.median_interval([1.0, 2.0])
    assert two.estimate == 1.5
    assert two.low == pytest.approx(1.5 - 12.7062 / 2, abs=1e-4)  # Student's t with one degree of freedom, times s / sqrt 2
    five = stats.median_interval([1.0, 1.0, 1.0, 1.0, 9.0])
    assert five.low < 1.0
    assert five.high >= 9.0


def test_one_sample_says_nothing_about_its_spread() -> None:
    interval = stats.median_interval([0.25])
    assert interval.estimate == 0.25
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)
    assert interval.half_width == math.inf


@pytest.mark.parametrize(
    "function",
    [stats.median_interval, stats.mean_interval, stats.latency, stats.geometric_mean, lambda nothing: stats.percentile(nothing, 5)],
)
def test_no_samples_are_refused_with_a_sentence(function) -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        function([])


@given(many_times)
def test_the_estimate_is_the_median_and_lies_inside(samples: list[float]) -> None:
    interval = stats.median_interval(samples)
    assert interval.estimate == pytest.approx(statistics.median(samples), rel=1e-12)
    if len(samples) > 1:
        assert interval.low <= interval.estimate <= interval.high


@given(many_times, st.randoms(use_true_random=False), st.integers(-8, 8))
def test_order_does_not_matter_and_scale_carries_over(samples: list[float], rng: random.Random, power: int) -> None:
    interval = stats.median_interval(samples)
    moved = [sample * 2.0**power for sample in samples]  # exact in binary
    rng.shuffle(moved)
    scaled = stats.median_interval(moved)
    assert scaled == pytest.approx(tuple(value * 2.0**power for value in interval), rel=1e-9, nan_ok=True)
    assert scaled.half_width == pytest.approx(interval.half_width, rel=1e-9)


@given(st.lists(times, min_size=6, max_size=60))
def test_more_confidence_never_narrows_the_interval(samples: list[float]) -> None:
    wide, narrow = stats.median_interval(samples, 0.95), stats.median_interval(samples, 0.8)
    assert wide.low <= narrow.low <= narrow.high <= wide.high


@pytest.mark.parametrize("count", [3, 6, 11, 30, 101])
@pytest.mark.parametrize("shape", ["normal", "lognormal", "spiky"])
def test_the_true_median_is_covered_as_often_as_promised(count: int, shape: str) -> None:
    rng = np.random.default_rng(count)
    draws = rng.normal(size=(600, count))
    if shape == "lognormal":
        draws = np.exp(draws)
    elif shape == "spiky":  # what timings look like: a floor, and rare samples far above
        draws = np.where(rng.random(draws.shape) < 0.1, 50, 1) * np.exp(0.02 * draws)
    truth = {"normal": 0.0, "lognormal": 1.0, "spiky": None}[shape]
    if truth is None:
        big = np.exp(0.02 * rng.normal(size=400_000)) * np.where(rng.random(400_000) < 0.1, 50, 1)
        truth = float(np.median(big))
    covered = np.mean([low <= truth <= high for _, low, high in map(stats.median_interval, draws.tolist())])
    assert covered >= 0.92  # 0.95 less 3.4 standard errors of 600 draws
    if count == 101 and shape == "normal":
        assert covered <= 0.985  # and not by being needlessly wide


def test_half_width_is_relative() -> None:
    assert Interval(2.0, 1.9, 2.3).half_width == pytest.approx(0.1)
    assert Interval(-2.0, -2.2, -1.8).half_width == pytest.approx(0.1)
    assert Interval(5.0, 5.0, 5.0).half_width == 0.0
    assert Interval(0.0, -1.0, 1.0).half_width == math.inf


@given(many_times, st.floats(0, 100))
def test_percentiles_are_numpys(samples: list[float], percent: float) -> None:
    assert stats.percentile(samples, percent) == np.percentile(samples, percent)


@given(st.lists(times, min_size=2, max_size=20))
def test_a_longer_list_of_the_same_mean_interval_is_known_better(values: list[float]) -> None:
    once, often = stats.mean_interval(values), stats.mean_interval(values * 4)
    assert often.estimate == pytest.approx(once.estimate)
    assert often.high - often.low <= (once.high - once.low) * 1.0001


# ---------------------------------------------------------------- latency over processes


def test_the_latency_of_one_process_is_its_own_interval() -> None:
    samples = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 2.9]
    assert stats.latency([process(samples)]) == pytest.approx(tuple(stats.median_interval(samples)))


def test_two_processes_are_pooled() -> None:
    a, b = [1.0 + i / 100 for i in range(10)], [2.0 + i / 100 for i in range(10)]
    assert stats.latency([process(a), process(b)]) == pytest.approx(tuple(stats.median_interval(a + b)))


def test_three_processes_or_more_get_an_interval_over_processes() -> None:
    medians = [1.0, 1.1, 1.2, 1.05]
    processes = [process([m * f for f in (0.99, 1.0, 1.01)] * 50) for m in medians]
    found = stats.latency(processes)
    logs = [math.log(m) for m in medians]
    reach = 3.182446 * statistics.stdev(logs) / 2  # Student's t, 3 degrees of freedom
    assert found == pytest.approx([math.exp(statistics.mean(logs) + shift) for shift in (0, -reach, reach)], rel=1e-6)


def test_between_processes_nothing_is_won_by_sampling_longer() -> None:
    rng = np.random.default_rng(3)
    short, long = (
        [process((level * np.exp(0.01 * rng.normal(size=count))).tolist()) for level in (1.0, 1.07, 0.94, 1.02)] for count in (20, 2000)
    )
    assert stats.latency(long).half_width > 0.5 * stats.latency(short).half_width


def test_processes_that_died_without_a_sample_do_not_count() -> None:
    good = [process([1.0 + i / 100 for i in range(8)]), process([]), process([])]
    assert stats.latency(good) == stats.latency(good[:1])
    with pytest.raises(ValueError, match="nothing was measured"):
        stats.latency([process([])])


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan])
def test_a_time_that_is_none_is_refused_with_its_value(bad: float) -> None:
    with pytest.raises(ValueError, match=f"{bad} is not a time"):
        stats.latency([process([1.0, bad])])


# ---------------------------------------------------------------- paired speedups


def test_above_one_means_that_the_first_is_faster() -> None:
    fast, slow = process([1.0, 1.1, 0.9, 1.0, 1.2, 1.0]), process([2.0, 2.2, 1.8, 2.0, 2.4, 2.0])
    assert stats.paired_speedup([fast], [slow]) == pytest.approx((2.0, 2.0, 2.0))
    assert stats.paired_speedup([slow], [fast]) == pytest.approx((0.5, 0.5, 0.5))


def test_drift_that_hits_both_leaves_the_ratio_alone() -> None:
    rng = np.random.default_rng(7)
    drift = np.exp(np.cumsum(0.2 * rng.normal(size=40)))
    noise = np.exp(0.003 * rng.normal(size=(2, 40)))
    a, b = process((drift * noise[0]).tolist()), process((1.05 * drift * noise[1]).tolist())
    found = stats.paired_speedup([a], [b])
    assert found.low < 1.05 < found.high
    assert found.half_width < 0.005
    assert stats.latency([a]).half_width > 0.1  # while each alone is known badly


@given(st.lists(st.tuples(times, times), min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_rounds_are_paired_by_number_not_by_position(pairs: list[tuple[float, float]], rng: random.Random) -> None:
    rounds = list(range(len(pairs)))
    a = process([one for one, _ in pairs], rounds)
    shuffled = list(zip([other for _, other in pairs], rounds, strict=True))
    rng.shuffle(shuffled)
    in_order = stats.paired_speedup([a], [process([other for _, other in pairs], rounds)])
    assert stats.paired_speedup([a], [process([t for t, _ in shuffled], [r for _, r in shuffled])]) == pytest.approx(in_order, nan_ok=True)


@given(st.lists(st.tuples(times, times), min_size=1, max_size=40))
def test_turning_the_question_round_inverts_the_answer(pairs: list[tuple[float, float]]) -> None:
    a, b = [process([one for one, _ in pairs])], [process([other for _, other in pairs])]
    there, back = stats.paired_speedup(a, b), stats.paired_speedup(b, a)
    with np.errstate(divide="ignore"):  # the interval of two wild pairs reaches from 0 to infinity
        inverted = [float(np.float64(1) / value) for value in (back.estimate, back.high, back.low)]
    assert there == pytest.approx(inverted, rel=1e-9, nan_ok=True)


def test_rounds_that_only_one_of_them_has_are_left_out() -> None:
    a = process([1.0, 1.0, 1.0, 50.0], [0, 1, 2, 3])
    b = process([90.0, 2.0, 2.0, 2.0], [9, 0, 1, 2])
    assert stats.paired_speedup([a], [b]).estimate == pytest.approx(2.0)


def test_several_samples_of_a_round_count_as_their_median() -> None:
    a = process([1.0, 1.0, 7.0, 1.0], [0, 0, 0, 1])
    b = process([3.0, 3.0], [0, 1])
    assert stats.paired_speedup([a], [b]).estimate == pytest.approx(3.0)


def test_equal_rounds_of_different_processes_are_not_pairs() -> None:
    a = [process([1.0] * 6), process([10.0] * 6)]
    b = [process([2.0] * 6), process([20.0] * 6)]
    assert stats.paired_speedup(a, b) == pytest.approx((2.0, 2.0, 2.0))


def test_samples_of_different_workers_are_not_pairs_even_where_rounds_are_equal() -> None:
    a = [process([1.0] * 6, worker=3), process([9.0] * 6, worker=4)]  # the kernel of b crashed its worker 3
    b = [process([3.0] * 6, worker=4), process([7.0] * 6, worker=5)]
    assert stats.paired_speedup(a, b).estimate == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="no common rounds"):
        stats.paired_speedup(a[:1], b)


def test_nothing_in_common_is_said_in_a_sentence() -> None:
    with pytest.raises(ValueError, match="no common rounds: the two were not sampled side by side"):
        stats.paired_speedup([process([1.0], [0])], [process([1.0], [5])])
    with pytest.raises(ValueError, match="no common rounds"):
        stats.paired_speedup([], [process([1.0])])


def test_three_processes_or_more_are_judged_by_how_much_they_differ() -> None:
    ratios = [1.02, 1.10, 1.06]
    a = [process([1.0] * 30) for _ in ratios]
    found = stats.paired_speedup(a, [process([ratio] * 30) for ratio in ratios])
    logs = [math.log(ratio) for ratio in ratios]
    reach = 4.302653 * statistics.stdev(logs) / math.sqrt(3)
    assert found == pytest.approx([math.exp(statistics.mean(logs) + shift) for shift in (0, -reach, reach)], rel=1e-6)
    assert stats.paired_speedup(a[:2], [process([ratio] * 30) for ratio in ratios[:2]]).high == pytest.approx(1.10)


def test_identical_code_is_seldom_called_different() -> None:
    """5 processes whose own ratios scatter by 1 %: an interval over processes excludes 1 about once in 20 times."""
    rng = np.random.default_rng(11)
    wrong = ties = 0
    for _ in range(400):
        a = [process([1.0] * 5) for _ in range(5)]
        b = [process((np.exp(0.01 * rng.normal()) * np.exp(0.002 * rng.normal(size=5))).tolist()) for _ in range(5)]
        found = stats.paired_speedup(a, b)
        wrong += not found.low <= 1 <= found.high
        ties += stats.is_tie(found)
    assert 0.02 <= wrong / 400 <= 0.085
    assert ties / 400 >= 0.99


# ---------------------------------------------------------------- ties and means


@pytest.mark.parametrize(
    ("low", "high", "tie"),
    [(1.03, 1.2, False), (1.0, 1.2, True), (1.015, 1.2, True), (0.5, 0.97, False), (0.5, 0.985, True), (0.5, 2.0, True), (1.0, 1.0, True)],
)
def test_a_tie_is_an_interval_that_reaches_into_the_margin(low: float, high: float, tie: bool) -> None:
    assert stats.is_tie(Interval((low + high) / 2, low, high)) is tie
    assert stats.is_tie(Interval(1.0, 1 / high, 1 / low)) is tie  # seen from the other side


def test_an_unknown_interval_names_no_winner() -> None:
    assert stats.is_tie(stats.paired_speedup([process([1.0])], [process([9.0])]))


@given(st.lists(times, min_size=1, max_size=20))
def test_the_geometric_mean_is_pythons(values: list[float]) -> None:
    assert stats.geometric_mean(iter(values)) == pytest.approx(statistics.geometric_mean(values))


def test_a_ratio_and_its_inverse_cancel_in_the_geometric_mean() -> None:
    assert stats.geometric_mean([4.0, 0.25]) == pytest.approx(1.0)
    with pytest.raises(ValueError, match=r"0\.0 is not a time or ratio above 0"):
        stats.geometric_mean([1.0, 0.0])


# ---------------------------------------------------------------- when to stop


def test_sampling_stops_when_the_median_is_known_well_enough() -> None:
    rule = StoppingRule(protocol(min_samples=6, target=0.01))
    for count in range(1, 7):
        assert not rule.is_finished
        assert rule.reason is None
        rule.add(1.0 + count / 1000, 0.01)
    assert rule.is_finished
    assert rule.reason == "target reached"
    assert rule.reached == pytest.approx(0.0025 / 1.0035)
    assert rule.busy_s == pytest.approx(0.06)


def test_agreement_by_chance_is_not_enough() -> None:
    rule = StoppingRule(protocol(min_samples=10, min_total_s=0.5))
    for _ in range(9):
        rule.add(1.0, 0.01)
    assert not rule.is_finished
    for _ in range(40):
        rule.add(1.0, 0.01)
    assert not rule.is_finished  # 0.49 s of the 0.5 s
    rule.add(1.0, 0.02)
    assert rule.reason == "target reached"


def test_the_cap_ends_what_does_not_settle_and_what_was_reached_is_known() -> None:
    rule = StoppingRule(protocol(target=0.001, cap_s=1.0))
    while not rule.is_finished:
        rule.add(random.Random(rule.busy_s).uniform(1.0, 2.0), 0.125)
    assert rule.reason == "cap"
    assert 0.001 < rule.reached < 1
    assert rule.busy_s == 1.0


def test_a_call_longer_than_the_cap_ends_it_at_once() -> None:
    rule = StoppingRule(protocol(cap_s=1.0))
    assert not rule.is_finished
    assert rule.reached == math.inf
    rule.add(7.0, 7.0)
    assert rule.reason == "cap"
    assert rule.reached == math.inf


def test_a_sample_that_does_not_count_is_taken_back_but_its_time_was_spent() -> None:
    rule = StoppingRule(protocol(min_samples=3, min_total_s=0.0, target=0.01, cap_s=10.0))
    for sample in (1.0, 5.0, 1.0, 1.0):
        rule.add(sample, 1.0)
    assert not rule.is_finished
    rule.forget(5.0)
    assert rule.reason == "target reached"
    assert rule.busy_s == 4.0
    with pytest.raises(ValueError, match="none of the 3 samples"):
        rule.forget(5.0)


def test_when_nothing_counts_the_cap_still_ends_it() -> None:
    rule = StoppingRule(protocol(cap_s=1.0))
    assert not rule.is_finished
    while not rule.is_finished:
        rule.add(1.0, 0.25)
        rule.forget(1.0)
    assert rule.reason == "cap"
    assert rule.busy_s == 1.0
    assert rule.reached == math.inf


@given(many_times, st.sampled_from(sorted(PROTOCOLS)))
def test_what_the_rule_reached_is_the_interval_of_its_samples(samples: list[float], name: str) -> None:
    rule = StoppingRule(PROTOCOLS[name])
    for sample in samples:
        rule.add(sample, 0.001)
    assert rule.reached == stats.median_interval(samples).half_width


# ---------------------------------------------------------------- when it is warm


def test_warm_means_long_enough_and_steady() -> None:
    warm_up = WarmUp(protocol())
    for window in (3.0, 1.5, 1.0, 1.01):
        warm_up.add(window, 0.1)
        assert not warm_up.is_finished  # 0.4 s are enough, but the windows disagree
    warm_up.add(1.005, 0.1)
    assert warm_up.stable
    assert warm_up.is_finished


def test_steady_at_once_is_not_warm_yet() -> None:
    warm_up = WarmUp(protocol(warmup_s=0.2))
    for _ in range(3):
        warm_up.add(1.0, 0.05)
    assert warm_up.stable
    assert not warm_up.is_finished
    warm_up.add(1.0, 0.05)
    assert warm_up.is_finished


def test_two_windows_cannot_agree_on_anything() -> None:
    warm_up = WarmUp(protocol(warmup_s=0.0))
    warm_up.add(1.0, 0.1)
    warm_up.add(1.0, 0.1)
    assert not warm_up.stable
    assert not warm_up.is_finished


def test_the_warm_up_gives_up_at_its_cap_and_says_so() -> None:
    warm_up = WarmUp(protocol(warmup_cap_s=1.0))
    for count in range(8):
        assert not warm_up.is_finished
        warm_up.add(1.0 + count % 2, 0.125)
    assert warm_up.is_finished
    assert not warm_up.stable
