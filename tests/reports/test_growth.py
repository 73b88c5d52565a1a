"""The benchmark of reports: made-up runs are like real ones, costs are measured, and missed limits are told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from kerneldyno.bench.journal import Journal, RunFolderError, read
from kerneldyno.reports import frame
from kerneldyno.reports.growth import browser, costs, synthetic, telling
from kerneldyno.reports.growth.costs import Costs, exponent, missed
from kerneldyno.reports.growth.stages import StageError, in_fresh_process


def growth(*options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "kerneldyno.reports.growth", *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "200"})


def made_up(cases: int = 100, **changes: float) -> Costs:
    fields = dict.fromkeys(("journal_bytes", "frame_peak_bytes", "tables_peak_bytes"), 1)
    return Costs(
        **(
            {"cases": cases, "read_s": 1.0, "results_s": 2.0, "frame_processor_s": 2.9, "winners_s": 0.5, "samples_s": 0.5}
            | fields
            | changes
        )
    )


# ---------------------------------------------------------------- made-up runs


def test_a_made_up_run_is_one_that_can_be_read_and_resumed(tmp_path: Path) -> None:
    folder = synthetic.write(tmp_path / "run", 300)
    run = read(folder)
    assert len(run.manifest.cases) == len({case.id for case in run.manifest.cases}) == 300
    statuses = Counter(measurement.status for measurement in run.measurements.values())
    assert {"ok", "skipped", "wrong"} <= statuses.keys()
    assert statuses["ok"] > 220
    assert len(run.measurements) < 300  # some are missing
    assert run.ended is not None
    samples = [len(measurement.samples_s) for measurement in run.measurements.values() if measurement.status == "ok"]
    assert (min(samples) >= 20, max(samples) <= 60) == (True, True)
    assert len({(case.operator, case.dtype) for case in run.manifest.cases}) > 3
    Journal.resume(folder, run.manifest).close()
    frames = frame.load(folder)
    assert frames.results["speedup"].notna().sum() > 200
    assert set(frames.winners["division"]) == {"exact", "approximate"}


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    one, same, other = (synthetic.write(tmp_path / str(number), 30, seed) / "journal.jsonl" for number, seed in enumerate((1, 1, 2)))
    assert one.read_bytes() == same.read_bytes() != other.read_bytes()


def test_a_made_up_run_replaces_nothing(tmp_path: Path) -> None:
    synthetic.write(tmp_path / "run", 10)
    with pytest.raises(RunFolderError, match="holds a run already"):
        synthetic.write(tmp_path / "run", 10)


# ---------------------------------------------------------------- limits and growth


def test_a_limit_holds_for_every_smaller_run_and_for_no_larger_one() -> None:
    assert missed([made_up(100, page_bytes=3_000_000, page_s=9.9, interactive_s=1.0), made_up(100_000, page_bytes=10**9)]) == []
    found = missed([made_up(50, page_bytes=3_000_001), made_up(5_000, page_s=10.1), made_up(100_000, frame_peak_bytes=2**31 + 1)])
    assert [(one.cases, limit.cost) for one, limit in found] == [(50, "page_bytes"), (5_000, "page_s"), (100_000, "frame_peak_bytes")]
    assert missed([made_up(100_000, read_s=5.0, results_s=5.1)])[0][1].cost == "frame_s"


def test_the_exponent_is_the_slope_between_logarithms() -> None:
    assert exponent(made_up(10, read_s=2.0), made_up(1000, read_s=200.0), "read_s") == pytest.approx(1.0)
    assert exponent(made_up(10, read_s=2.0), made_up(20, read_s=8.0), "read_s") == pytest.approx(2.0)
    assert exponent(made_up(10), made_up(20), "page_s") is None


def test_missed_limits_are_told_with_both_numbers() -> None:
    lines = telling.verdicts([made_up(100, page_bytes=4_000_000)])
    assert lines[0] == "missed at 100 cases: size of the page 4.00 MB, at most 3.00 MB"
    assert telling.verdicts([made_up()])[0].startswith("every limit was kept")
    assert {limit.cost for limit in costs.LIMITS} <= costs.SHOWN.keys()


def test_a_machine_that_did_something_else_is_told_of() -> None:
    assert telling.notes([made_up(read_s=1.0, results_s=2.0)]) == []
    assert telling.notes([made_up(100, read_s=9.0), made_up(2000, read_s=9.0)]) == [
        "the machine did something else meanwhile (100, 2,000 cases)"
    ]


# ---------------------------------------------------------------- end to end


def test_small_sizes_are_measured_and_told(tmp_path: Path) -> None:
    done = growth("--sizes", "40,10", "--out", tmp_path, "--no-browser", "--page-up-to", 10)
    assert done.returncode == 0, done.stderr
    assert "40 cases" in done.stdout
    small, large = json.loads((tmp_path / "growth.json").read_bytes())["costs"]
    assert (small["cases"], large["cases"]) == (10, 40)
    assert large["journal_bytes"] > small["journal_bytes"] > 1000
    assert min(small["page_bytes"], small["page_peak_bytes"], small["frame_peak_bytes"]) > 1e6
    assert (large["page_s"], small["interactive_s"]) == (None, None)
    assert small["notes"] == ["the page was not opened: no browser was asked for"]
    assert large["notes"] == ["the page was not written: --page-up-to says for how many cases it is"]
    text = (tmp_path / "growth.md").read_text(encoding="utf-8")
    assert "|  | 10 cases | 40 cases | exponents |" in text
    assert "every limit was kept" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["growth.json", "growth.md"]  # the runs are gone


@pytest.mark.browser
@pytest.mark.skipif(browser.why_not() is not None and not os.environ.get("CI"), reason=str(browser.why_not()))
def test_a_page_is_opened_and_its_first_filter_operated(tmp_path: Path) -> None:
    done = growth("--sizes", 40, "--out", tmp_path)
    assert done.returncode in {0, 5}, done.stderr
    [found] = json.loads((tmp_path / "growth.json").read_bytes())["costs"]
    assert 0 < found["loaded_s"] < found["interactive_s"]
    assert (found["console_errors"], found["notes"]) == (0, [])


def test_errors_of_a_page_are_counted(tmp_path: Path) -> None:
    if reason := browser.why_not():
        pytest.skip(reason)
    (tmp_path / "bad.html").write_text("<main><script>undefined_name()</script></main>", encoding="utf-8")
    seen = browser.opened(tmp_path / "bad.html")
    assert seen["console_errors"] == 1
    assert seen["notes"][0] == "the page has no filter to operate"
    assert "undefined_name" in seen["notes"][1]


@pytest.mark.parametrize("sizes", ["", "0", "10,x", "-1", "1e3"])
def test_sizes_that_are_none_are_refused_in_a_sentence(sizes: str, tmp_path: Path) -> None:
    done = growth(f"--sizes={sizes}", "--out", tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"--sizes {sizes!r} are no sizes" in done.stderr


def test_a_step_that_fails_says_which(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"`tables` of the made-up run in .* ended with 1: .*holds no run"):
        in_fresh_process("tables", tmp_path)
