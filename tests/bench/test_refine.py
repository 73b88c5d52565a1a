"""Crossover lengths are closed in on by bisection, in the same run, for as long as that tells anything."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerneldyno.bench import launch, plan, refine
from kerneldyno.bench.crossings import crossings
from kerneldyno.bench.entries import Extended
from kerneldyno.bench.journal import Run, read
from kerneldyno.bench.manifest import PROTOCOLS, Environment, Manifest, Settings
from kerneldyno.bench.records import Measurement, Process
from kerneldyno.bench.terminal import Quiet
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.feedforward.problem import FeedForward
from kerneldyno.kernels.registry import Device, load
from kerneldyno.reports import frame
from kerneldyno.reports.winners import winners

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kerneldyno.bench.records import Case
    from kerneldyno.kernels.registry import Problem

    Law = Callable[[int], float | None]

PLUGIN = Path(__file__).with_name("crossing_kernels.py")
CPU = Device("cpu")
KERNELS = load(declarations_only=True)
MACHINE = Environment(
    device="cpu", device_name="Some CPU", os="Linux", python="3.11.7", versions={}, cpu_name="Some CPU", cpu_cores=2, cpu_features=(),
    memory_bytes=1 << 34, threads=2,
)  # fmt: skip


def power(exponent: float, seconds: float = 1e-3, length: int = 300) -> Law:
    """Seconds as a power of the length, which at `length` are `seconds`."""
    return lambda other: seconds * (other / length) ** exponent


class Simulation:
    """A run whose kernels take the times of their laws, extended and measured as a run in earnest is."""

    def __init__(self, laws: Mapping[str, Law], problems: Sequence[Problem], spread: float = 0.005) -> None:
        self.laws, self.spread, self.steps = laws, spread, []
        made = plan.make([KERNELS[name] for name in laws], problems, CPU, seed=0, every_kernel=KERNELS)
        settings = Settings(protocol=PROTOCOLS["smoke"], refine_crossovers=True)
        self.run = Run("run", Manifest(version="0", created="", settings=settings, environment=MACHINE, cases=made.cases))
        self.measure(made.cases)

    def measure(self, cases: Sequence[Case]) -> None:
        for case in cases:
            seconds = self.laws[case.kernel](case.seq_len)
            measurement = Measurement(case=case.id, status="failed", reason="it is")
            if seconds is not None:
                own = np.random.default_rng(int(case.id[:8], 16))
                taken = seconds * np.exp(self.spread * own.standard_normal(40))
                processes = [Process(worker=case.seq_len, samples_s=taken.tolist(), rounds=list(range(40)))]
                measurement = Measurement(case=case.id, status="ok", processes=processes)
            assert case.id not in self.run.measurements
            self.run.measurements[case.id] = measurement

    def refine(self) -> None:
        """Add and measure cases until nobody asks for more."""
        ask = refine.asked(self.run.manifest.settings, KERNELS, CPU)
        while cases := ask(self.run):
            self.run.note(Extended(list(cases)))
            self.measure(cases)
            self.steps.append({case.seq_len for case in cases})
            assert len(self.steps) < 50


def attention(*lengths: int, **fields: object) -> list[Attention]:
    return [Attention(q_len=length, **fields) for length in lengths]


def test_bisection_closes_in_on_a_planted_crossing() -> None:
    made = Simulation({"attention/sdpa": power(0), "attention/eager": power(2)}, attention(64, 1024))
    made.refine()
    assert made.steps == [{256}, {512}, {384}, {320}]  # 512 to 1024 first, then what encloses 300
    (found,) = crossings(made.run)
    assert (found.low, found.high) == (256, 320)
    assert found.length.low <= 300 <= found.length.high
    assert found.length.high / found.length.low < 1.02


@pytest.mark.parametrize("crossing", [20, 45, 70, 130, 275, 391, 700, 1500, 5000, 30_000])
def test_wherever_it_crosses_it_is_known_within_ten_percent_or_one_step(crossing: int) -> None:
    laws = {"attention/sdpa": power(0, length=crossing), "attention/eager": power(0.7, length=crossing)}
    made = Simulation(laws, attention(16, 128, 1024, 65_536))
    made.refine()
    (found,) = crossings(made.run)
    step = next(step for above, step in refine.STEPS if crossing > above)
    assert len(found.points) > 2 or found.high <= max(1.1 * found.low, found.low + step)
    assert found.low < crossing < found.high
    assert found.length.low / 1.01 <= crossing <= found.length.high * 1.01
    assert all(len(lengths) == 1 for lengths in made.steps)


def test_a_tie_in_the_middle_is_the_answer() -> None:
    made = Simulation({"attention/sdpa": power(0, length=256), "attention/eager": power(0.2, length=256)}, attention(64, 1024))
    made.refine()
    assert made.steps == [{256}]
    (found,) = crossings(made.run)
    assert [point.length for point in found.points] == [64, 256, 1024]
    assert found.length.low <= 256 <= found.length.high


def test_what_is_added_are_the_two_kernels_and_the_baseline() -> None:
    laws = {"attention/sdpa": power(0, 9e-3), "attention/eager": power(2), "attention/compiled": power(0), "attention/flex": power(1, 5e-3)}
    made = Simulation(laws, attention(64, 1024))
    made.refine()
    assert {case.kernel for case in made.run.added} == {"attention/sdpa", "attention/eager", "attention/compiled"}
    assert {case.baseline for case in made.run.added} == {"attention/sdpa"}
    without = Simulation({name: law for name, law in laws.items() if name != "attention/sdpa"}, attention(64, 1024))
    without.refine()
    assert {case.kernel for case in without.run.added} == {"attention/eager", "attention/compiled"}


def test_six_bisections_are_the_most_between_two_lengths_of_the_plan() -> None:
    made = Simulation({"attention/sdpa": power(0, length=9001), "attention/eager": power(1, length=9001)}, attention(1, 2**22))
    made.refine()
    assert len(made.steps) == refine.MOST_BISECTIONS
    made.refine()
    assert len(made.steps) == refine.MOST_BISECTIONS


def test_a_length_that_failed_is_not_tried_again() -> None:
    def fails(length: int) -> float | None:
        return None if 64 < length < 1024 else power(2)(length)

    made = Simulation({"attention/sdpa": power(0), "attention/eager": fails}, attention(64, 1024))
    made.refine()
    assert made.steps == [{256}]
    assert [(one.low, one.high) for one in crossings(made.run)] == [(64, 1024)]


def test_only_where_the_fastest_kernel_changes_is_anything_added() -> None:
    laws = {"attention/sdpa": power(0), "attention/eager": power(2), "attention/compiled": power(0, 1e-6)}
    made = Simulation(laws, attention(64, 1024))
    assert [(one.shorter, one.leads) for one in crossings(made.run)] == [("attention/eager", False)]
    made.refine()
    assert made.steps == []


def test_each_axis_is_refined_by_itself_and_all_at_once() -> None:
    laws = {"attention/sdpa": power(0), "attention/eager": power(2)}
    made = Simulation(laws, [*attention(64, 1024), *attention(64, 1024, batch=4), *attention(64, 1024, causal=True)])
    made.refine()
    assert len(made.steps) == 4
    assert {(case.batch, case.problem["causal"]) for case in made.run.added} == {(1, False), (4, False), (1, True)}
    assert len(crossings(made.run)) == 3


def test_of_a_decode_step_the_cache_grows_and_of_a_network_the_sequence() -> None:
    made = Simulation({"attention/sdpa": power(0), "attention/eager": power(2)}, [Attention(q_len=1, kv_len=n) for n in (64, 1024)])
    made.refine()
    assert {(case.problem["q_len"], case.problem["kv_len"]) for case in made.run.added} == {(1, 256), (1, 512), (1, 384), (1, 320)}
    made = Simulation({"feedforward/compiled": power(0), "feedforward/eager": power(2)}, [FeedForward(seq_len=n) for n in (64, 1024)])
    made.refine()
    assert {case.problem["seq_len"] for case in made.run.added} == {256, 512, 384, 320}
    assert {case.label for case in made.run.added} & {case.label for case in made.run.manifest.cases} == set()


def test_a_baseline_alone_at_an_added_length_leads_nothing() -> None:
    """Approximate kernels are refined beyond the tie that ends the search among exact ones: their baseline is there, its rivals are not."""
    laws = {"attention/sdpa": power(0, 9e-3), "attention/eager": power(2, 1e-3, 256), "attention/compiled": power(0, 1e-3, 256)}
    loose = {"attention/int8": power(0, 1e-3, 500), "attention/pruned": power(2, 1e-3, 500)}
    made = Simulation(laws | loose, attention(64, 1024))
    made.refine()
    assert made.steps[0] == {256}
    assert {case.kernel for case in made.run.added if case.seq_len != 256} == {"attention/sdpa", *loose}
    leading = [one for one in crossings(made.run) if one.leads]
    assert [(one.shorter, one.longer) for one in leading] == [
        ("attention/eager", "attention/compiled"),
        ("attention/pruned", "attention/int8"),
    ]
    assert [len(one.points) for one in leading] == [3, 2]
    contests = winners(made.run)
    assert set(contests["seq_len"]) == {64, 1024}  # at the others not all kernels take part


def test_nobody_who_did_not_ask_for_it_gets_more() -> None:
    made = Simulation({"attention/sdpa": power(0), "attention/eager": power(2)}, attention(64, 1024))
    assert refine.asked(Settings(protocol=PROTOCOLS["smoke"]), KERNELS, CPU)(made.run) == ()


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_the_middle_is_round_and_between(one: int, other: int) -> None:
    low, high = min(one, other), max(one, other) + 1
    length = refine.middle(low, high)
    centre = math.sqrt(low * high)
    step = 64 if centre > 256 else 16 if centre > 64 else 1
    if length is None:
        assert not any(multiple % step == 0 for multiple in range(low + 1, min(high, low + 2 * step)))
    else:
        assert low < length < high
        assert length % step == 0


# ---------------------------------------------------------------- a run in earnest


@pytest.mark.slow
def test_a_run_adds_lengths_of_its_own_and_a_resumed_one_goes_on(tmp_path: Path) -> None:
    """Two kernels that wait: one always as long, the other with the square of the length."""
    chosen = launch.Options(
        operators=("attention",), kernels=("steady", "growing"), load=(PLUGIN,), device="cpu", protocol="smoke", energy="off", threads=1,
        axes={"batch": [1], "seq_len": [192, 512], "heads": [1], "head_dim": [16]}, out=tmp_path / "run",
    )  # fmt: skip
    folder, ended = launch.launch(chosen, Quiet())
    assert ended == "finished"
    (before,) = crossings(read(folder))
    assert (before.low, before.high) == (192, 512)
    _, ended = launch.resume(folder, (PLUGIN,), 1e-3, Quiet(), refine_crossovers=True)
    assert ended == "budget"
    assert read(folder).added == []
    _, ended = launch.resume(folder, (PLUGIN,), None, Quiet(), refine_crossovers=True)
    assert ended == "finished"
    run = read(folder)
    (after,) = crossings(run)
    assert (after.low, after.high) != (192, 512) or len(after.points) > 2  # on a busy machine the middle may be a tie
    assert after.low <= 320
    assert after.high >= 256
    assert len(run.manifest.cases) == 4
    assert len(run.cases) == len(run.measurements) == len(frame.results(run)) == 4 + len(run.added)
    assert {case.kernel for case in run.added} == {"attention/steady", "attention/growing"}
    for point in after.points:  # both of a length were sampled by one worker
        assert len({process.worker for case in point.cases for process in run.measurements[case].processes}) == 1
