"""The sentences of the page say what the tables hold."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kerneldyno.bench.entries import Extended, Measured
from kerneldyno.bench.journal import Run, read
from kerneldyno.bench.records import Energy, Measurement, Process
from kerneldyno.reports import answers, frame, method, summary


@pytest.fixture(scope="module")
def rows(rich: Run) -> list[dict[str, Any]]:
    return frame.rows(frame.results(rich))


def both(run: Run) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    return frame.rows(frame.results(run)), frame.rows(frame.winners(run))


def test_the_first_sentences(rich: Run) -> None:
    results, contests = both(rich)
    assert summary.subject(rich, results) == (
        "21 of 24 kernels on 18 shapes of attention, feed-forward and encoder layer, "
        "measured on AMD EPYC 9R14 (CPU, 2 threads) on 23 November 2026."
    )
    said = answers.headline(results, contests)
    assert said.startswith("Fastest: sdpa for attention (8 of 8 shapes), ")
    assert said.endswith("; 4 cases without a valid result, 22 skipped and 1 missing.")
    assert [answer.winner for answer in answers.answers(results, contests)] == ["attention/sdpa", "feedforward/onnxrt", "layer/onnxrt"]


def test_coverage_counts_every_case_once(rich: Run, rows: list[dict[str, Any]]) -> None:
    counted = {status: number for status, _, _, number in summary.coverage(rows)}
    assert sum(counted.values()) == len(rich.manifest.cases) == 150
    assert (counted["ok"], counted["wrong"], counted["skipped"], counted["missing"]) == (123, 1, 22, 1)


def test_approximate_kernels_never_win_the_sentence(rich: Run) -> None:
    results, contests = both(rich)
    said = answers.headline(results, contests)
    assert "int8" not in said
    assert "pruned" not in said


def test_nothing_measured_is_said_plainly(made: SimpleNamespace, tmp_path: Path) -> None:
    case = made.case("attention", "fused", made.attention[0])
    run = read(made.run(tmp_path / "run", [case], [Measurement(case=case.id, status="skipped", reason="needs a GPU")]))
    results, contests = both(run)
    assert answers.headline(results, contests) == "No exact kernel has a number; 1 skipped."
    assert summary.energy(results) == "Not measured: it was switched off, or nothing was measured."
    assert summary.share(results).startswith("Not known")
    assert summary.accuracy(results).startswith("No kernel has a measured error.")


def test_errors_are_told_kernel_by_kernel_or_as_a_range(rows: list[dict[str, Any]]) -> None:
    few = summary.accuracy(rows)
    assert "of the approximate ones int8 is off by up to 1.3 % and pruned is off by up to 70 %." in few
    loose = [row for row in rows if row["kernel"] == "attention/pruned" and row["status"] == "ok"][:1]
    more = [row | {"kernel": f"attention/sparse_{number}", "distance_rms": number / 4} for row in loose for number in range(1, 6)]
    assert "the 7 approximate ones are off by up to 1.3 % (int8) to 125 % (sparse_5). Above 100 %, an answer of zeros" in summary.accuracy(
        [*rows, *more]
    )


def test_an_interrupted_run_says_how_far_it_came(made: SimpleNamespace, tmp_path: Path) -> None:
    cases = [made.case("attention", name, made.attention[0]) for name in ("sdpa", "eager", "compiled")]
    run = read(made.run(tmp_path / "run", cases, [made.measured(cases[0], 1.0, 1)], ended="interrupted"))
    assert summary.notes(run, both(run)[0])[0] == "1 of 3 cases: the run was interrupted"


def test_a_baseline_without_a_number_is_named(made: SimpleNamespace, tmp_path: Path) -> None:
    base, other = (made.case("attention", name, made.attention[0]) for name in ("sdpa", "eager"))
    run = read(
        made.run(tmp_path / "run", [base, other], [Measurement(case=base.id, status="failed", reason="no"), made.measured(other, 2.0, 1)])
    )
    assert "no speedup in 1 shape, where the baseline (attention/sdpa) has no usable number" in summary.notes(run, both(run)[0])


def test_energy_is_measured_or_has_a_reason(rows: list[dict[str, Any]], made: SimpleNamespace, tmp_path: Path) -> None:
    assert summary.energy(rows) == "Not measured: this machine exposes no energy counter (RAPL)."
    as_the_meter_says_it = rows[0] | {"energy_reason": "not measured: this machine exposes no energy counter (RAPL)"}
    assert summary.energy([as_the_meter_says_it]) == summary.energy(rows)
    case = made.case("attention", "sdpa", made.attention[0])
    measurement = made.measured(case, 1.0, 1)
    measurement.energy = Energy(power_w=310.0, energy_j=0.02, source="nvml total energy")
    run = read(made.run(tmp_path / "run", [case], [measurement]))
    assert summary.energy(both(run)[0]) == "Joules for 1 case, power for 1 case; source: nvml total energy."


def test_joules_that_are_not_valid_are_neither_ranked_nor_called_measured(made: SimpleNamespace, tmp_path: Path) -> None:
    cases = [made.case("attention", name, made.attention[0]) for name in ("sdpa", "eager", "compiled")]
    measurements = [made.measured(case, 1.0, 1) for case in cases]
    for measurement, joules, valid in zip(measurements, (0.02, 0.001, None), (True, False, None), strict=True):
        measurement.energy = Energy(
            power_w=310.0, energy_j=joules, valid=valid, reason=None if valid else "why", source="nvml total energy"
        )
    results = both(read(made.run(tmp_path / "run", cases, measurements)))[0]
    said = summary.energy(results)
    assert (
        said
        == "Joules for 2 cases, not valid for 1 of them, which are neither drawn nor ranked, power for 3 cases; source: nvml total energy."
    )
    assert summary.extreme(results, "energy_j")["attention"].startswith("At 1×8×512×64 fp32, sdpa needs 20.0 mJ")


def test_power_alone_is_called_power(made: SimpleNamespace, tmp_path: Path) -> None:
    case = made.case("attention", "sdpa", made.attention[0])
    measurement = made.measured(case, 1.0, 1)
    measurement.energy = Energy(power_w=310.0, source="nvml power_instant (indicative)", reason="no joules: time")
    run = read(made.run(tmp_path / "run", [case], [measurement]))
    assert summary.energy(both(run)[0]) == "Power for 1 case; source: nvml power_instant (indicative)."


def test_a_sentence_about_memory_names_best_and_worst(rows: list[dict[str, Any]]) -> None:
    said = summary.extreme(rows, "peak_bytes")["attention"]
    assert said.startswith("At 1×8×2048×64 fp32, sdpa needs 4.00 MiB; ")
    assert said.endswith("132 MiB, 33.0× as much.")


def test_the_sentence_about_latency_agrees_with_the_winners(rows: list[dict[str, Any]]) -> None:
    """On a drifting machine the lowest median and the largest paired speedup may belong to different kernels."""
    measured = [row for row in rows if row["label"] == "1×8×2048×64 fp32" and row["status"] == "ok"]
    drifted = [row | {"latency_s": row["latency_s"] * (2 if row["kernel"] == "attention/sdpa" else 1)} for row in measured]
    assert summary.extreme(drifted, "latency_s")["attention"].startswith("At 1×8×2048×64 fp32, sdpa needs ")


def test_more_than_the_limit_is_explained(rows: list[dict[str, Any]]) -> None:
    assert "slower" not in summary.share(rows)
    [best] = [row for row in rows if row["kernel"] == "attention/sdpa"][:1]
    assert "Above 100 %, the machine was slower" in summary.share([best | {"status": "ok", "share_of_limit": 1.15}])


def test_method_states_the_protocol_and_the_ceilings_with_units(rich: Run, rows: list[dict[str, Any]]) -> None:
    said = dict(method.described(rich, rows))
    assert "at least 20 samples" in said["stopping rule"]
    assert "± 1.5%" in said["stopping rule"]
    assert "matmul float32 150 GFLOP/s" in said["ceilings"]
    assert "copy 22.0 GB/s" in said["ceilings"]
    assert "memray" in said["peak memory"]
    facts = dict(method.machine(rich))
    assert facts["memory"] == "24.0 GiB"
    assert "commit 0123abc-dirty" in facts["kerneldyno"]
    assert "GPU" not in facts


def test_a_speedup_that_contradicts_its_latencies_is_pointed_out(made: SimpleNamespace, tmp_path: Path) -> None:
    """The baseline was slow in some rounds only, so its median is, but round by round the other was the slower."""
    base, other = (made.case("attention", name, made.attention[0]) for name in ("sdpa", "eager"))
    jumping = Process(samples_s=[1e-3] * 9 + [8e-3] * 11, rounds=list(range(20)))
    steady = Process(samples_s=[2e-3] * 9, rounds=list(range(9)))
    measurements = [Measurement(case=case.id, status="ok", processes=[process]) for case, process in ((base, jumping), (other, steady))]
    run = read(made.run(tmp_path / "run", [base, other], measurements))
    results, _ = both(run)
    assert [row["kernel"] for row in summary.contradicting(results)] == ["attention/eager"]
    assert any(note.startswith("in 1 row the speedup from paired rounds is far from") for note in summary.notes(run, results))


def test_ordinary_rows_contradict_nothing(rows: list[dict[str, Any]]) -> None:
    assert summary.contradicting(rows) == []


def test_a_shape_that_nobody_won_is_told_apart(made: SimpleNamespace, tmp_path: Path) -> None:
    cases = [made.case("attention", "sdpa", problem) for problem in made.attention[:2]]
    measurements = [made.measured(cases[0], 1.0, 1), Measurement(case=cases[1].id, status="failed", reason="no")]
    results, contests = both(read(made.run(tmp_path / "run", cases, measurements)))
    assert "sdpa for attention (1 of 1 shape)" in answers.headline(results, contests)
    assert answers.answers(results, contests)[0].lines == ["fastest in 1 of 1 shape; 1 more without a number"]


def test_lengths_that_were_added_have_no_winner_and_do_not_count(made: SimpleNamespace, tmp_path: Path) -> None:
    names, speeds = ("sdpa", "eager", "int8"), {"sdpa": 1.0, "eager": 2.0, "int8": 0.5}
    cases = [made.case("attention", name, problem) for problem in made.attention[:2] for name in names]
    added = [
        made.case("attention", name, made.attention[0] | dict.fromkeys(("q_len", "kv_len"), n)) for n in (192, 256, 320) for name in names
    ]
    run = read(made.run(tmp_path / "run", cases, [made.measured(case, speeds[case.family], n) for n, case in enumerate(cases)]))
    run.note(Extended(added))
    for number, case in enumerate(added):
        run.note(Measured(made.measured(case, speeds[case.family], 10 + number)))
    results, contests = both(run)
    assert len({row["group"] for row in results}) == 5
    assert answers.headline(results, contests) == "Fastest: sdpa for attention (2 of 2 shapes); all 15 cases measured."
    assert answers.answers(results, contests)[0].lines[0] == "fastest in 2 of 2 shapes"


def test_a_shape_with_approximate_numbers_alone_has_no_winner(made: SimpleNamespace, tmp_path: Path) -> None:
    cases = [made.case("attention", name, problem) for problem in made.attention[:2] for name in ("sdpa", "int8")]
    measurements = [made.measured(case, 1.0, number) for number, case in enumerate(cases)]
    measurements[0] = Measurement(case=cases[0].id, status="failed", reason="no")
    results, contests = both(read(made.run(tmp_path / "run", cases, measurements)))
    assert answers.answers(results, contests)[0].lines[0] == "fastest in 1 of 1 shape; 1 more without a number"


def test_the_answer_says_how_much_is_gained_and_what_an_error_would_buy(rich: Run) -> None:
    attention, network, _ = answers.answers(*both(rich))
    assert attention.lines[0].startswith("fastest in ")
    assert not any("the speed of" in line for line in attention.lines)  # it is the baseline itself
    assert attention.lines[-1].startswith("approximate, ranked apart: ")
    assert re.fullmatch(r"\d\.\d\d× the speed of compiled \(median; \d\.\d\d× to \d\.\d\d×\)", network.lines[1])
    assert re.fullmatch(r"approximate, ranked apart: int8 \d\.\d\d×, off by 1\.3 %", network.lines[-1])


def test_an_approximation_far_off_is_named_with_its_error(rich: Run) -> None:
    results, contests = both(rich)
    far = [row | {"distance_rms": 0.7} if row["approximate"] else row for row in results]
    assert "first in" in answers.answers(far, contests)[1].lines[-1]
    assert answers.answers(far, contests)[1].lines[-1].endswith(", off by up to 70 %")


def test_trust_counts_what_was_checked(rich: Run, rows: list[dict[str, Any]]) -> None:
    said = summary.trust(rows)
    assert re.fullmatch(
        r"All 123 numbers passed the gate before and after timing: float64 as the reference, no exact kernel more than "
        r"\d\.\d+ × the naive formula's error in any of them\. Half of the 95 % intervals are within ± \d\.\d% \(within one process\)\.",
        said,
    )
    probed = summary.trust([row | {"probes": 7, "probe_max_ratio": 5.6} for row in rows if row["status"] == "ok"])
    assert "float64 as the reference, 861 probes, no exact kernel more than 5.6 × the naive" in probed
    assert summary.trust([row for row in rows if row["status"] != "ok"]) == ""


def contest(kernel: str, rival: str, group: str, *, tie: bool = False) -> dict[str, Any]:
    return {
        "operator": "attention",
        "division": "exact",
        "kernel": f"attention/{kernel}",
        "runner_up": f"attention/{rival}",
        "tie": tie,
        "group": group,
    }


def measured_at(kernel: str, group: str) -> dict[str, Any]:
    return {
        "kernel": f"attention/{kernel}", "operator": "attention", "group": group, "status": "ok", "approximate": False, "speedup": None,
        "baseline": "attention/sdpa",
    }  # fmt: skip


def test_a_tie_is_nobodys_win() -> None:
    results = [measured_at(kernel, group) for group in "abcd" for kernel in ("a", "b", "c")]
    contests = [contest("a", "b", "a"), contest("a", "b", "b", tie=True), contest("b", "c", "c", tie=True), contest("b", "a", "d")]
    found = answers.standing(results, contests, "attention")
    assert found is not None
    assert (found.leader, found.wins, found.tied, found.between_others, found.shapes, found.without) == ("attention/b", 1, 2, 0, 4, 0)
    [answer] = answers.answers(results, contests)
    assert answer.lines[0] == "fastest in 1 of 4 shapes, level with another in 2; elsewhere a 1"
    level = [contest("a", "b", group, tie=True) for group in "abc"] + [contest("b", "c", "d", tie=True)]
    assert answers.headline(results, level) == "Too close to call: attention; all 12 cases measured."
    [answer] = answers.answers(results, level)
    assert answer.tied
    assert answer.lines[0] == "one of the two fastest in 4 of 4 shapes, too close to call"


def test_a_leader_that_was_not_measured_everywhere_is_pointed_out() -> None:
    results = [measured_at("a", group) for group in "abcd"] + [measured_at("b", group) for group in "ab"]
    contests = [contest("b", "a", "a"), contest("b", "a", "b", tie=True), contest("a", "", "c"), contest("a", "", "d")]
    assert summary.rivals(results, contests) == ["attention/b is among the fastest where it was measured, at 2 of 4 shapes only"]
    assert summary.rivals(results[:4], contests[2:]) == []
