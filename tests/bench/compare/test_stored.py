"""Two stored runs: advice, refused across machines, protocols and, where it is to gate, days."""

from __future__ import annotations

import msgspec
import pytest

from kerneldyno.bench.compare import stored
from kerneldyno.bench.comparison import GATES
from kerneldyno.bench.entries import Measured, Session, SessionEnd
from kerneldyno.bench.journal import Journal, JournalError, MismatchError


@pytest.fixture
def write(tmp_path, manifesting, measuring, casing):
    def write(name, ratios, *, processes=8, scatter=0.003, **changes):
        cases = [casing(kernel) for kernel in ratios]
        manifest = manifesting(cases)
        environment = msgspec.structs.replace(manifest.environment, **changes.pop("environment", {}))
        manifest = msgspec.structs.replace(manifest, environment=environment, **changes)
        with Journal.create(tmp_path / name, manifest) as journal:
            journal.append(Session(manifest.created))
            for seed, case in enumerate(cases):
                made = measuring(case, ratios[case.kernel], processes=processes, scatter=scatter, seed=seed + 10 * len(name))
                journal.append(Measured(made))
            journal.append(SessionEnd(reason="finished", wall_s=1.0))
        return tmp_path / name

    return write


def words(outcome):
    return {one.kernel.partition("/")[2]: one.word for one in outcome.verdicts}


def test_advice_never_fails(write):
    old = write("old", {"attention/one": 1.0, "attention/two": 1.0, "attention/three": 1.0})
    new = write("newer", {"attention/one": 1.5, "attention/two": 0.6, "attention/four": 1.0})
    outcome = stored.compare(old, new, GATES)
    assert words(outcome) == {"one": "REGRESSED", "two": "IMPROVED", "three": "MISSING", "four": "NEW"}
    assert outcome.exit_code == 0
    assert outcome.advisory
    assert not any(one.fails for one in outcome.verdicts)
    assert "advice only" in outcome.warnings[0]
    assert outcome.verdicts[0].latency.differences == []


def test_strict_runs_of_one_day_gate(write):
    old, new = write("old", {"attention/one": 1.0}), write("newer", {"attention/one": 1.5})
    assert stored.compare(old, new, GATES, strict=True).exit_code == 1
    assert stored.compare(old, old, GATES, strict=True).exit_code in (0, 4)


def test_one_process_says_nothing(write):
    outcome = stored.compare(write("old", {"attention/one": 1.0}, processes=1), write("newer", {"attention/one": 1.5}), GATES)
    assert words(outcome) == {"one": "INCONCLUSIVE"}
    assert "--processes 3" in outcome.verdicts[0].reason


def test_the_scatter_of_processes_decides(write):
    old, new = write("old", {"attention/one": 1.0}, scatter=0.2), write("newer", {"attention/one": 1.1}, scatter=0.2)
    assert words(stored.compare(old, new, GATES)) == {"one": "INCONCLUSIVE"}


def test_other_machines_are_refused(write):
    old = write("old", {"attention/one": 1.0})
    new = write("newer", {"attention/one": 1.0}, environment={"cpu_name": "another processor", "device_name": "another processor"})
    with pytest.raises(MismatchError, match="cpu_name: a processor there, another processor here") as caught:
        stored.compare(old, new, GATES)
    assert caught.value.exit_code == 3


def test_other_days_are_refused_where_it_is_to_gate(write):
    old = write("old", {"attention/one": 1.0})
    new = write("newer", {"attention/one": 1.0}, created="2026-12-01T00:00:00+00:00")
    assert stored.compare(old, new, GATES).exit_code == 0
    with pytest.raises(MismatchError, match="2026-11-25 and 2026-12-01"):
        stored.compare(old, new, GATES, strict=True)


def test_other_inputs_are_refused(write, manifesting):
    old, settings = write("old", {"attention/one": 1.0}), manifesting([]).settings
    new = write("newer", {"attention/one": 1.0}, settings=msgspec.structs.replace(settings, seed=7))
    with pytest.raises(MismatchError, match="--seed 0 and 7"):
        stored.compare(old, new, GATES)


def test_a_comparison_is_no_run(made, write, tmp_path):
    made.cell("attention/one", 1.0, 1.0).write(tmp_path / "comparison")
    with pytest.raises(JournalError, match="is a comparison itself"):
        stored.compare(tmp_path / "comparison", write("old", {"attention/one": 1.0}), GATES)


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(JournalError):
        stored.compare(tmp_path / "nothing", tmp_path, GATES)
