"""What a comparison comes to as a whole: words, exit codes one by one, warnings, the headline."""

from __future__ import annotations

import msgspec
import pytest

from kerneldyno.bench.compare.outcome import derive
from kerneldyno.bench.records import Measurement, Warn
from kerneldyno.bench.verdict import (
    EXIT_CASES,
    EXIT_FINE,
    EXIT_INTERRUPTED,
    EXIT_REGRESSED,
    EXIT_TOO_NOISY,
    Outcome,
)


def bad(status, reason="it is"):
    return lambda case: Measurement(case=case.id, status=status, reason=reason)


def words(outcome):
    return {one.kernel.partition("/")[2]: one.word for one in outcome.verdicts}


# ------------------------------------------------------------------ exit codes, one by one


def test_nothing_changed_is_exit_0(made):
    outcome = derive(made.cell("attention/one", 1.0, 1.0, copy=1.0).cell("attention/two", 1.0, 0.9).run())
    assert words(outcome) == {"one": "SAME", "two": "IMPROVED"}
    assert outcome.exit_code == EXIT_FINE
    assert [one.word for one in outcome.canaries] == ["SAME"]
    assert outcome.headline == "1 improved, 1 same of 2 cells"


def test_slower_is_exit_1(made):
    outcome = derive(made.cell("attention/one", 1.0, 1.06).cell("attention/two", 1.0, 1.0).run())
    assert words(outcome) == {"one": "REGRESSED", "two": "SAME"}
    assert outcome.exit_code == EXIT_REGRESSED
    assert "worst: attention/one +6." in outcome.headline
    first = outcome.verdicts[0]
    assert first.fails
    assert first.latency.low < 1.06 < first.latency.high
    assert first.latency.other_s / first.latency.base_s == pytest.approx(first.latency.ratio, rel=1e-3)


def test_a_canary_that_differs_is_exit_4_and_nothing_is_believed(made):
    outcome = derive(made.cell("attention/one", 1.0, 1.06, copy=1.05).run())
    assert outcome.exit_code == EXIT_TOO_NOISY
    assert outcome.canaries[0].word == "DIFFERS"
    assert "canary failed" in outcome.headline


def test_too_many_unclear_cells_are_exit_4(made):
    for name in ("one", "two", "three"):
        made.cell(f"attention/{name}", 1.0, 1.0)
    for number, name in enumerate(("four", "five")):
        made.cell(f"attention/{name}", 1.0, lambda case, n=number: scattered(case, n))
    outcome = derive(made.run())
    assert list(words(outcome).values()).count("INCONCLUSIVE") == 2
    assert outcome.exit_code == EXIT_TOO_NOISY


def scattered(case, number):
    from numpy.random import default_rng

    from kerneldyno.bench.records import Errors, Process

    rng = default_rng(number)
    processes = [Process(worker=1 + i, samples_s=[1e-3 * (1 + 0.1 * rng.standard_normal())] * 15, rounds=list(range(15))) for i in range(8)]
    return Measurement(
        case=case.id, status="ok", processes=processes, errors=Errors(max_ratio=0.5, rms_ratio=0.4, max_abs=0.0, relative_rms=0.0)
    )


def test_one_unclear_cell_of_many_is_exit_0(made):
    for name in ("one", "two", "three", "four"):
        made.cell(f"attention/{name}", 1.0, 1.0)
    outcome = derive(made.cell("attention/five", 1.0, lambda case: scattered(case, 0)).run())
    assert words(outcome)["five"] == "INCONCLUSIVE"
    assert outcome.exit_code == EXIT_FINE


@pytest.mark.parametrize("status", ["wrong", "failed", "timeout"])
def test_a_candidate_that_broke_is_exit_5(made, status):
    outcome = derive(made.cell("attention/one", 1.0, bad(status, "error ratio 52")).cell("attention/two", 1.0, 1.1).run())
    assert words(outcome) == {"one": "FAILED", "two": "REGRESSED"}
    assert outcome.exit_code == EXIT_CASES
    assert "error ratio 52" in outcome.verdicts[1].reason


def test_an_invalid_side_is_exit_5(made):
    for base, candidate in ((1.0, bad("invalid")), (bad("invalid"), 1.0), (bad("timeout"), 1.0)):
        outcome = derive(type(made)().cell("attention/one", base, candidate).run())
        assert words(outcome) == {"one": "INVALID"}
        assert outcome.exit_code == EXIT_CASES


def test_a_deleted_kernel_is_exit_5(made):
    outcome = derive(made.cell("attention/one", 1.0, None).run())
    assert words(outcome) == {"one": "MISSING"}
    assert "there is no attention/one" in outcome.verdicts[0].reason
    assert outcome.exit_code == EXIT_CASES


def test_a_file_that_does_not_load_any_more_failed(made):
    outcome = derive(made.cell("attention/one", 1.0, None, broken=True).run())
    assert words(outcome) == {"one": "FAILED"}
    assert outcome.exit_code == EXIT_CASES


def test_a_new_kernel_passes_and_a_new_broken_one_does_not(made):
    outcome = derive(made.cell("attention/one", None, 1.0).run())
    assert words(outcome) == {"one": "NEW"}
    assert outcome.exit_code == EXIT_FINE
    assert derive(type(made)().cell("attention/one", None, bad("wrong")).run()).exit_code == EXIT_CASES


def test_a_mended_kernel_passes(made):
    outcome = derive(made.cell("attention/one", bad("wrong", "NaN in the output"), 1.0).run())
    assert words(outcome) == {"one": "NEW"}
    assert "the base is wrong: NaN" in outcome.verdicts[0].reason
    assert outcome.exit_code == EXIT_FINE


def test_broken_on_both_sides_says_so(made):
    outcome = derive(made.cell("attention/one", bad("failed", "no memory"), bad("failed", "no memory")).run())
    assert "the base, too: no memory" in outcome.verdicts[0].reason
    assert outcome.exit_code == EXIT_CASES


def test_interrupted_is_exit_130_with_what_there_is(made):
    outcome = derive(made.cell("attention/one", 1.0, 1.2).cell("attention/two", 1.0, lambda _: None).run(ended="interrupted"))
    assert outcome.exit_code == EXIT_INTERRUPTED
    assert words(outcome) == {"one": "REGRESSED"}
    assert outcome.left_out == ["attention/two at 1×8×128×64"]


def test_cells_left_out_by_the_budget_never_fail(made):
    made.cell("attention/one", 1.0, 1.0).cell("attention/two", lambda _: None, lambda _: None)
    outcome = derive(made.run(budget_s=10.0))
    assert outcome.left_out == ["attention/two at 1×8×128×64"]
    assert outcome.exit_code == EXIT_FINE
    assert "left out" in outcome.headline
    without = derive(made.run())  # no budget: something is wrong
    assert without.exit_code == EXIT_CASES


def test_a_budget_that_left_nothing_to_say_is_not_fine(made):
    outcome = derive(made.cell("attention/one", lambda _: None, lambda _: None).run(budget_s=1.0))
    assert outcome.verdicts == []
    assert outcome.exit_code == EXIT_TOO_NOISY


def test_a_candidate_that_is_known_to_fail_is_never_left_out(made):
    outcome = derive(made.cell("attention/one", lambda _: None, bad("wrong", "NaN")).run(budget_s=1.0))
    assert words(outcome) == {"one": "FAILED"}
    assert outcome.exit_code == EXIT_CASES


def test_a_base_that_crashes_later_hides_no_regression(made, measuring):
    def late(case):
        found = measuring(case)
        found.status, found.reason = "failed", "in process 5: the worker was killed by SIGKILL"
        return found

    outcome = derive(made.cell("attention/one", late, 1.5).run())
    assert words(outcome) == {"one": "INVALID"}
    assert outcome.exit_code == EXIT_CASES
    apart = derive(type(made)().cell("attention/one", bad("failed", "start: it ended"), 1.0, adjacent="a custom operator").run())
    assert words(apart) == {"one": "INVALID"}


def test_a_copy_that_fails_beside_a_right_base_fails_the_canary(made):
    outcome = derive(made.cell("attention/one", 1.0, 1.0, copy=bad("wrong", "NaN")).run())
    assert outcome.canaries[0].word == "FAILED"
    assert outcome.exit_code == EXIT_TOO_NOISY


def test_where_times_do_not_count_neither_do_noise_and_canaries(made):
    made.cell("attention/one", 1.0, lambda case: scattered(case, 0), copy=1.05).cell("attention/two", 1.0, 1.06, unchanged=True)
    outcome = derive(made.run(gates=("memory", "errors")))
    assert outcome.exit_code == EXIT_FINE
    assert outcome.canaries[0].word == "DIFFERS"


def test_the_size_of_the_first_look_is_as_it_was_recorded(made):
    run = made.cell("attention/one", 1.0, lambda case: scattered(case, 3)).run()
    assert derive(run).verdicts[0].looks == 1
    run.first_looks = {"cell of attention/one": 4}
    assert derive(run).verdicts[0].looks == 2


# ------------------------------------------------------------------ what gates


def test_memory_and_errors_gate_and_time_only_where_asked(made, measuring):
    from kerneldyno.bench.records import Errors

    worse = Errors(max_ratio=1.5, rms_ratio=1.2, max_abs=1e-5, relative_rms=1e-6)
    made.cell("attention/one", 1.0, lambda case: measuring(case, peak_bytes=2 * 10**7))
    made.cell("attention/two", 1.0, lambda case: measuring(case, errors=worse)).cell("attention/three", 1.0, 1.2)
    outcome = derive(made.run())
    assert set(words(outcome).values()) == {"REGRESSED"}
    assert {one.kernel[10:]: one.reason.partition(":")[0].split()[0] for one in outcome.verdicts} == {
        "one": "memory",
        "two": "errors",
        "three": "latency",
    }
    lenient = derive(made.run(gates=("latency",)))
    assert words(lenient) == {"one": "SAME", "two": "SAME", "three": "REGRESSED"}
    strict = derive(made.run(gates=("memory",)))
    assert words(strict)["three"] == "REGRESSED"
    assert [one.kernel for one in strict.verdicts if one.fails] == ["attention/one"]


def test_an_exact_kernel_that_becomes_approximate_regresses(made, measuring, far):
    outcome = derive(made.cell("attention/one", 1.0, lambda case: measuring(case, 0.7, distance=far)).run())
    assert words(outcome) == {"one": "REGRESSED"}
    assert "relative rms distance from the exact result 0.01; the base is exact" in outcome.verdicts[0].reason


def test_a_gate_that_could_not_be_compared_is_told(made, measuring):
    outcome = derive(made.cell("attention/one", 1.0, lambda case: measuring(case, seed=5, peak_bytes=None, peak_source="no memray")).run())
    assert words(outcome) == {"one": "SAME"}
    assert any("memory could not be compared in 1 of 1 cells" in text and "no memray" in text for text in outcome.warnings)


def test_less_memory_is_an_improvement(made, measuring):
    outcome = derive(made.cell("attention/one", 1.0, lambda case: measuring(case, seed=3, peak_bytes=5 * 10**6)).run())
    assert words(outcome) == {"one": "IMPROVED"}
    assert "-5,000,000 bytes" in outcome.verdicts[0].reason


def test_the_same_source_cannot_have_changed(made):
    outcome = derive(made.cell("attention/one", 1.0, 1.1, unchanged=True).run())
    assert words(outcome) == {"one": "INVALID"}
    assert "nothing of it was changed" in outcome.verdicts[0].reason
    assert outcome.exit_code == EXIT_TOO_NOISY  # no case failed: the machine did
    broken = derive(made.cell("attention/two", 1.0, bad("wrong")).run())
    assert broken.exit_code == EXIT_CASES


# ------------------------------------------------------------------ warnings, means, sensitivity


def test_means_count_only_cells_that_both_sides_have(made):
    outcome = derive(made.cell("attention/one", 1.0, 1.21).cell("attention/two", 1.0, 1.0).cell("attention/three", None, 1.0).run())
    (mean,) = outcome.means
    assert mean.cells == 2
    assert mean.ratio == pytest.approx(1.1, abs=0.01)


def test_cells_that_move_together_are_told(made):
    for name in ("one", "two", "three", "four", "five"):
        made.cell(f"attention/{name}", 1.0, 1.05)
    assert any("one common cause" in text for text in derive(made.run()).warnings)


def test_a_disturbed_machine_is_told(made, measuring):
    warned = [Warn("disturbed", "others took 20 % of the processors' time")]
    outcome = derive(made.cell("attention/one", 1.0, lambda case: measuring(case, warnings=warned)).run())
    assert any("other processes were at work" in text for text in outcome.warnings)
    assert any("no canary" in text for text in outcome.warnings)


def test_what_would_have_been_seen_is_said(made):
    outcome = derive(made.cell("attention/one", 1.0, 1.0).run())
    assert outcome.sensitivity.startswith("8 processes per cell: +5% would be seen with 100%")
    assert outcome.verdicts[0].power > 0.99


def test_a_process_that_failed_later_costs_the_cell(made, measuring):
    def late(case):
        found = measuring(case)
        found.status, found.reason = "failed", "in process 5: it crashed"
        return found

    assert words(derive(made.cell("attention/one", 1.0, late).run())) == {"one": "FAILED"}


def test_sides_in_adjacent_processes_are_paired_in_order(made, measuring):
    made.cell("attention/one", 1.0, lambda case: measuring(case, 1.06, worker=100), adjacent="a custom operator")
    (one,) = derive(made.run()).verdicts
    assert one.latency.processes == 8
    assert one.adjacent == "a custom operator"


def test_an_outcome_can_be_read_back(made):
    outcome = derive(made.cell("attention/one", 1.0, 1.06, copy=1.0).run())
    assert msgspec.json.decode(msgspec.json.encode(outcome), type=Outcome) == outcome


def test_a_sweep_is_no_comparison(made, manifesting, casing):
    from kerneldyno.bench.journal import Run

    with pytest.raises(ValueError, match="compares nothing"):
        derive(Run("a-run", manifesting([casing("attention/one")])))
