"""The tables of a run: known numbers from a known journal, every status, and files that can be rebuilt."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerneldyno.bench import stats
from kerneldyno.bench.journal import Run, read
from kerneldyno.bench.records import Ceilings, Distance, Energy, Errors, Measurement, Process, Warn
from kerneldyno.reports import columns, frame


@pytest.fixture
def duel(made: SimpleNamespace, tmp_path: Path) -> Run:
    """A baseline at 2 ms, a kernel at 1 ms, an approximate one at 0.5 ms, a wrong one that would have been the fastest."""
    problem = made.attention[0]
    base, fast, loose, wrong, absent = (made.case("attention", name, problem) for name in ("sdpa", "onnxrt", "int8", "compiled", "eager"))
    rounds = list(range(20))

    def process(seconds: float) -> Process:
        return Process(samples_s=[seconds * (1 + number / 100) for number in rounds], rounds=rounds, calls_per_sample=2)

    return read(
        made.run(
            tmp_path / "duel",
            [base, fast, loose, wrong, absent],
            [
                Measurement(case=base.id, status="ok", processes=[process(2e-3)], peak_bytes=1024, peak_source="memray", build_s=0.5),
                Measurement(
                    case=fast.id, status="ok", processes=[process(1e-3)],
                    warnings=[Warn("unstable", "not settled"), Warn("clocks", "unlocked")],
                    errors=Errors(max_ratio=0.5, rms_ratio=0.4, max_abs=1e-6, relative_rms=1e-7), energy=Energy(reason="no counter"),
                ),
                Measurement(
                    case=loose.id, status="ok", processes=[process(5e-4)], distance=Distance(relative_rms=0.01, cosine=0.999, max_abs=0.1)
                ),
                Measurement(case=wrong.id, status="wrong", reason="error ratio 9", processes=[process(1e-4)]),
            ],
            ceilings=Ceilings(matmul_flops_per_s={"float32": 1e12}, copy_bytes_per_s=1e11),
            ended="interrupted",
        )
    )  # fmt: skip


def row_of(results: pd.DataFrame, short: str) -> dict[str, object]:
    [row] = [row for row in frame.rows(results) if row["kernel"].endswith("/" + short)]
    return row


def test_known_numbers(duel: Run) -> None:
    row = row_of(frame.results(duel), "onnxrt")
    flops = 4 * 8 * 512 * 512 * 64
    assert row["latency_s"] == pytest.approx(1e-3 * 1.095)
    assert row["latency_p5_s"] == pytest.approx(1e-3 * (1 + 0.0095))
    assert row["latency_p95_s"] == pytest.approx(1e-3 * (1 + 0.1805))
    assert row["speedup"] == pytest.approx(2.0)
    assert row["speedup_low"] == pytest.approx(2.0)
    assert row["tflops"] == pytest.approx(flops / 1.095e-3 / 1e12)
    assert row["limit_s"] == pytest.approx(flops / 1e12)
    assert row["share_of_limit"] == pytest.approx(flops / 1e12 / 1.095e-3)
    assert (row["samples"], row["processes"], row["calls_per_sample"]) == (20, 1, 2)
    assert (row["interval_kind"], row["status"], row["baseline"]) == ("within_process", "ok", "attention/sdpa")
    assert row["warnings"] == "unstable: not settled; clocks: unlocked"
    assert (row["energy_j"], row["energy_reason"]) == (None, "no counter")
    assert (row["heads"], row["kv_len"], row["causal"]) == (8, 512, False)


def test_energy_columns(made: SimpleNamespace, tmp_path: Path) -> None:
    cases = [made.case("attention", name, made.attention[0]) for name in ("sdpa", "eager")]
    measured, only_power = (made.measured(case, 1.0, 1) for case in cases)
    measured.energy = Energy(
        power_w=300.0, energy_j=0.512, net_energy_j=0.4, idle_w=60.0, source="nvml total energy", reason="not valid: hot", valid=False,
        windows_j=[0.5, 0.52], updates=100, spread=0.04, edge_error=0.002, readings_ratio=1.01,
    )  # fmt: skip
    only_power.energy = Energy(power_w=200.0, source="nvml power_instant (indicative)", reason="no joules: time")
    results = frame.results(read(made.run(tmp_path / "run", cases, [measured, only_power])))
    row, bare = row_of(results, "sdpa"), row_of(results, "eager")
    assert (row["energy_j"], row["net_energy_j"], row["power_w"], row["idle_w"]) == (0.512, 0.4, 300.0, 60.0)
    assert row["energy_per_token_j"] == pytest.approx(0.001)
    names = ["valid", "windows", "updates", "spread", "edge_error", "readings_ratio", "source", "reason"]
    assert [row[f"energy_{name}"] for name in names] == [False, 2, 100, 0.04, 0.002, 1.01, "nvml total energy", "not valid: hot"]
    assert [bare[f"energy_{name}"] for name in names[:6]] == [None] * 6
    assert (bare["power_w"], bare["energy_j"], bare["energy_per_token_j"]) == (200.0, None, None)


def test_the_baseline_has_speedup_one(duel: Run) -> None:
    row = row_of(frame.results(duel), "sdpa")
    assert (row["speedup"], row["speedup_low"], row["speedup_high"]) == (1.0, 1.0, 1.0)
    assert (row["peak_bytes"], row["build_s"]) == (1024, 0.5)


def test_a_wrong_case_has_no_latency_though_samples_were_taken(duel: Run) -> None:
    row = row_of(frame.results(duel), "compiled")
    assert (row["status"], row["reason"]) == ("wrong", "error ratio 9")
    empty = ["latency_s", "latency_low_s", "latency_p5_s", "speedup", "tflops", "share_of_limit", "samples"]
    assert [row[name] for name in empty] == [None] * len(empty)


def test_counts_stay_whole_beside_rows_without_one(duel: Run) -> None:
    results = frame.results(duel)
    assert {str(results[name].dtype) for name in ("samples", "processes", "peak_bytes", "calls_per_sample")} == {"Int64"}
    assert [str(row["samples"]) for row in frame.rows(results)] == ["20", "20", "20", "None", "None"]


def test_a_case_that_was_never_measured_is_missing_with_a_reason(duel: Run) -> None:
    row = row_of(frame.results(duel), "eager")
    assert (row["status"], row["latency_s"]) == ("missing", None)
    assert "interrupted" in str(row["reason"])


def test_winners_keep_the_divisions_apart(duel: Run) -> None:
    contests = {contest["division"]: contest for contest in frame.rows(frame.winners(duel))}
    exact, approximate = contests["exact"], contests["approximate"]
    assert (exact["kernel"], exact["runner_up"], exact["tie"], exact["contestants"]) == ("attention/onnxrt", "attention/sdpa", False, 2)
    assert exact["lead"] == pytest.approx(2.0)
    assert exact["speedup"] == pytest.approx(2.0)
    assert (approximate["kernel"], approximate["runner_up"], approximate["contestants"]) == ("attention/int8", None, 1)
    assert approximate["speedup"] == pytest.approx(4.0)


def test_every_case_is_a_row_and_every_column_has_a_meaning(rich: Run) -> None:
    results = frame.results(rich)
    assert len(results) == len(rich.manifest.cases)
    assert set(results["status"]) == {"ok", "skipped", "wrong", "failed", "timeout", "invalid", "missing"}
    assert list(results.columns[: len(frame.COLUMNS)]) == list(frame.COLUMNS)
    assert all(columns.meaning(name) for name in results.columns)
    problem_columns = set(results.columns) - set(frame.COLUMNS)
    assert problem_columns <= set(columns.PROBLEM_COLUMNS)
    assert results.loc[results["status"] != "ok", "latency_s"].isna().all()
    assert results.loc[results["status"] == "ok", "latency_s"].notna().all()


def test_a_baseline_that_failed_leaves_no_speedup_and_says_so(made: SimpleNamespace, tmp_path: Path) -> None:
    base, other = (made.case("attention", name, made.attention[0]) for name in ("sdpa", "eager"))
    run = read(
        made.run(tmp_path / "run", [base, other], [Measurement(case=base.id, status="failed", reason="no"), made.measured(other, 2.0, 1)])
    )
    row = row_of(frame.results(run), "eager")
    assert (row["speedup"], row["speedup_reason"]) == (None, "the baseline attention/sdpa is failed")
    assert row["latency_s"] is not None
    [contest] = frame.rows(frame.winners(run))
    assert (contest["kernel"], contest["speedup"], contest["tie"]) == ("attention/eager", None, False)


def test_kernels_without_common_rounds_have_no_speedup_and_tie(made: SimpleNamespace, tmp_path: Path) -> None:
    base, other = (made.case("attention", name, made.attention[0]) for name in ("sdpa", "eager"))
    early = Process(samples_s=[1e-3] * 10, rounds=list(range(10)))
    late = Process(samples_s=[2e-3] * 10, rounds=list(range(10, 20)))
    measurements = [Measurement(case=case.id, status="ok", processes=[process]) for case, process in ((base, early), (other, late))]
    run = read(made.run(tmp_path / "run", [base, other], measurements))
    row = row_of(frame.results(run), "eager")
    assert row["speedup"] is None
    assert "not paired with the baseline attention/sdpa" in str(row["speedup_reason"])
    [contest] = frame.rows(frame.winners(run))
    assert (contest["kernel"], contest["lead"], contest["tie"]) == ("attention/sdpa", None, True)


def test_paired_rounds_overrule_the_medians(made: SimpleNamespace, tmp_path: Path) -> None:
    """One kernel missed the slow rounds, so its median is lower, but side by side it is the slower."""
    base, other = (made.case("attention", name, made.attention[0]) for name in ("sdpa", "eager"))
    slow = [1e-3] * 5 + [3e-3] * 15
    steady = Process(samples_s=slow, rounds=list(range(20)))
    lucky = Process(samples_s=[1.5e-3] * 8, rounds=[*list(range(5)), 30, 31, 32])
    measurements = [Measurement(case=case.id, status="ok", processes=[process]) for case, process in ((base, steady), (other, lucky))]
    [contest] = frame.rows(frame.winners(read(made.run(tmp_path / "run", [base, other], measurements))))
    assert (contest["kernel"], contest["runner_up"]) == ("attention/sdpa", "attention/eager")
    assert contest["lead"] == pytest.approx(1.5)


def drifting(made: SimpleNamespace, folder: Path, early: Process, late: Process) -> dict[str, Any]:
    """The contest on a machine that is three times as slow in its first ten rounds; the baseline takes 2 ms at full speed."""
    base, one, other = (made.case("attention", name, made.attention[0]) for name in ("sdpa", "onnxrt", "eager"))
    everywhere = sampled(2e-3, list(range(20)))
    processes = ((base, everywhere), (one, early), (other, late))
    measurements = [Measurement(case=case.id, status="ok", processes=[process]) for case, process in processes]
    [contest] = frame.rows(frame.winners(read(made.run(folder / "run", [base, one, other], measurements))))
    medians = [stats.latency([process]).estimate for process in (everywhere, early, late)]
    assert medians[2] == min(medians)  # who came late looks best
    return contest


def sampled(seconds: float, rounds: list[int]) -> Process:
    return Process(samples_s=[seconds * (3 if number < 10 else 1) for number in rounds], rounds=rounds)


def test_on_a_drifting_machine_the_winner_is_who_gains_most_in_paired_rounds(made: SimpleNamespace, tmp_path: Path) -> None:
    """One was sampled mostly while the machine was slow, the other mostly later: the ratio to the baseline decides."""
    early = sampled(1e-3, [number for number in range(20) for _ in range(5 if number < 10 else 1)])
    late = sampled(1.3e-3, [number for number in range(20) for _ in range(1 if number < 10 else 5)])
    contest = drifting(made, tmp_path, early, late)
    assert (contest["kernel"], contest["runner_up"], contest["contestants"]) == ("attention/onnxrt", "attention/eager", 3)
    assert contest["speedup"] == pytest.approx(2.0)
    assert (contest["lead"], contest["tie"]) == (pytest.approx(1.3), False)


def test_the_paired_ranking_needs_no_rounds_common_to_the_two(made: SimpleNamespace, tmp_path: Path) -> None:
    contest = drifting(made, tmp_path, sampled(1e-3, list(range(10))), sampled(1.3e-3, list(range(10, 20))))
    assert (contest["kernel"], contest["runner_up"]) == ("attention/onnxrt", "attention/eager")
    assert contest["speedup"] == pytest.approx(2.0)
    assert (contest["lead"], contest["tie"]) == (None, True)  # but by how much it leads is not known


def test_three_processes_give_intervals_over_processes(made: SimpleNamespace, tmp_path: Path) -> None:
    case = made.case("attention", "sdpa", made.attention[0])
    processes = [made.process(1e-3 * factor, seed) for seed, factor in enumerate((1.0, 1.05, 0.95))]
    run = read(made.run(tmp_path / "run", [case], [Measurement(case=case.id, status="ok", processes=processes)]))
    [row] = frame.rows(frame.results(run))
    assert (row["interval_kind"], row["processes"], row["samples"]) == ("over_processes", 3, 120)
    assert row["latency_s"] == stats.latency(processes).estimate


def test_without_ceilings_there_is_no_share_of_the_limit(made: SimpleNamespace, tmp_path: Path) -> None:
    case = made.case("attention", "sdpa", made.attention[0])
    run = read(made.run(tmp_path / "run", [case], [made.measured(case, 1.0, 1)], ceilings=None))
    [row] = frame.rows(frame.results(run))
    assert (row["limit_s"], row["share_of_limit"]) == (None, None)
    assert row["tflops"] is not None


def test_samples_keep_order_process_and_round(made: SimpleNamespace, tmp_path: Path) -> None:
    case = made.case("attention", "sdpa", made.attention[0], device="cuda:0")
    first = Process(samples_s=[3e-3, 1e-3], rounds=[4, 2], host_samples_s=[4e-3, 2e-3], warm_samples_s=[5e-4])
    second = Process(samples_s=[2e-3], rounds=[0])
    run = read(made.run(tmp_path / "run", [case], [Measurement(case=case.id, status="ok", processes=[first, second])]))
    samples = frame.samples(run)
    assert samples["latency_s"].tolist() == [3e-3, 1e-3, 2e-3]
    assert samples["round"].tolist() == [4, 2, 0]
    assert samples["process"].tolist() == [0, 0, 1]
    assert samples["position"].tolist() == [0, 1, 0]
    assert samples["host_s"].tolist()[:2] == [4e-3, 2e-3]
    assert math.isnan(samples["host_s"].iloc[2])
    assert samples["warm_s"].isna().tolist() == [False, True, True]
    [row] = frame.rows(frame.results(run))
    assert (row["host_latency_s"], row["warm_latency_s"]) == (pytest.approx(3e-3), pytest.approx(5e-4))
    assert (row["cache"], row["cold_latency_s"]) == ("cold", row["latency_s"])


def test_a_processor_is_sampled_warm_and_cold_besides(made: SimpleNamespace, tmp_path: Path) -> None:
    case = made.case("attention", "sdpa", made.attention[0])
    process = Process(samples_s=[1e-3, 2e-3, 3e-3], rounds=[0, 0, 1], cold_samples_s=[7e-3, 5e-3])
    run = read(made.run(tmp_path / "run", [case], [Measurement(case=case.id, status="ok", processes=[process])]))
    [row] = frame.rows(frame.results(run))
    assert (row["cache"], row["latency_s"], row["warm_latency_s"]) == ("warm", 2e-3, 2e-3)
    assert row["cold_latency_s"] == pytest.approx(6e-3)
    samples = frame.samples(run)
    assert samples["cold_s"].tolist()[:2] == [7e-3, 5e-3]
    assert samples["cold_s"].isna().tolist() == [False, False, True]
    assert samples["warm_s"].isna().all()


def test_a_run_in_which_nothing_was_measured(made: SimpleNamespace, tmp_path: Path) -> None:
    case = made.case("attention", "sdpa", made.attention[0])
    run = read(made.run(tmp_path / "run", [case], []))
    assert frame.results(run)["status"].tolist() == ["missing"]
    assert len(frame.samples(run)) == 0
    assert len(frame.winners(run)) == 0


def test_the_files_say_what_the_frames_say_and_can_be_rebuilt(rich_copy: Path) -> None:
    paths = frame.write_tables(rich_copy)
    assert [path.name for path in paths] == ["results.csv", "results.parquet", "samples.parquet"]
    frames = frame.load(rich_copy)
    stored, csv = pd.read_parquet(rich_copy / "results.parquet"), pd.read_csv(rich_copy / "results.csv")
    assert list(stored.columns) == list(csv.columns) == list(frames.results.columns)
    np.testing.assert_array_equal(stored["latency_s"], frames.results["latency_s"])
    np.testing.assert_allclose(csv["latency_s"], frames.results["latency_s"])
    assert stored["kernel"].tolist() == csv["kernel"].tolist() == frames.results["kernel"].tolist()
    assert len(pd.read_parquet(rich_copy / "samples.parquet")) == len(frames.samples) > 4000
    before = (rich_copy / "results.csv").read_bytes()
    (rich_copy / "results.csv").write_text("spoiled")
    frame.write_tables(rich_copy)
    assert (rich_copy / "results.csv").read_bytes() == before
    assert not list(rich_copy.glob(".*partial"))


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "results.csv"
    target.write_text("old")

    def full(path: Path) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        frame.replacing(target, full)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["results.csv"]


VALUES = st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False), st.text())


@settings(deadline=None)
@given(st.lists(VALUES, min_size=1))
def test_a_column_of_anything_keeps_what_is_missing(values: list[object]) -> None:
    """Fields of problems come from anybody's file: whatever types they mix, the column has one type and its gaps."""
    table = frame._tidy({"field": values})
    assert table["field"].isna().tolist() == [value is None for value in values]
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) == 1:
        assert [row["field"] for row in frame.rows(table)] == values


@pytest.mark.parametrize(
    ("values", "dtype", "kept"),
    [
        ([1, math.nan], "Int64", [1, None]),
        ([1, 0.5, None], "float64", [1.0, 0.5, None]),
        ([np.int64(3), None, pd.NA], "Int64", [3, None, None]),
        ([True, math.nan], "boolean", [True, None]),
        ([True, math.nan, 0.5], "string", ["True", None, "0.5"]),
        (["a", math.nan], "string", ["a", None]),
        ([None, math.nan], "float64", [None, None]),
    ],
)
def test_nothing_is_nothing_however_it_is_written(values: list[Any], dtype: str, kept: list[Any]) -> None:
    table = frame._tidy({"field": values})
    assert str(table["field"].dtype) == dtype
    assert [row["field"] for row in frame.rows(table)] == kept
