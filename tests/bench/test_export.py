"""What pytest-benchmark reads from an exported run is what the run holds, and what is left out is said."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_benchmark.stats import Stats

from kerneldyno.bench.entries import Measured, Session, SessionEnd
from kerneldyno.bench.export import export, statistics_of
from kerneldyno.bench.journal import Journal, RunFolderError
from kerneldyno.bench.manifest import PROTOCOLS, Environment, Manifest, Settings
from kerneldyno.bench.plan import UsageError
from kerneldyno.bench.records import Case, Energy, Errors, Measurement, Process, Warn

if TYPE_CHECKING:
    from pathlib import Path

MACHINE = Environment(
    device="cuda:0", device_name="Some GPU", os="Linux", python="3.11.7", versions={"torch": "2.13.0"}, cpu_name="Some CPU", cpu_cores=2,
    cpu_features=("avx2",), memory_bytes=1 << 34, threads=2, gpu={"driver": "580.1", "driver_major": "580", "cuda": "12.8"},
    commit="0123456789abcdef-dirty",
)  # fmt: skip
# sums and differences of these round: only what is passed on untouched comes back equal
SAMPLES = [0.1 + 1e-17, 1 / 3e5, 2.2250738585072014e-308, 1.0000000000000002e-5, 5e-324, 3.3e-5, 0.7]


def case(kernel: str, q_len: int = 128, **changes: object) -> Case:
    problem = {"batch": 1, "q_len": q_len, "dtype": "float32"}
    fields = {
        "kernel": f"attention/{kernel}", "family": kernel, "operator": "attention", "problem": problem, "label": f"1×8×{q_len}×64 fp32",
        "batch": 1, "seq_len": q_len, "tokens": q_len, "dtype": "float32", "direction": "forward", "device": "cuda:0", "seed": 0,
        "flops": 1000, "min_bytes": 100, "approximate": False, "baseline": "attention/sdpa", **changes,
    }  # fmt: skip
    return Case(**fields)  # type: ignore[arg-type]


def ok(of: Case, samples: list[float], processes: int = 1) -> Measurement:
    taken = [Process(worker=n, samples_s=samples, rounds=list(range(len(samples))), calls_per_sample=3 + n) for n in range(processes)]
    return Measurement(
        case=of.id, status="ok", processes=taken, peak_bytes=4096, leak_bytes=0, identity="flash", build_s=0.5,
        errors=Errors(max_ratio=1.5, rms_ratio=1.1, max_abs=1e-6, relative_rms=1e-7), energy=Energy(power_w=300.0),
        warnings=[Warn("unstable", "it did not settle")],
    )  # fmt: skip


def stored(folder: Path, cases: list[Case], measurements: list[Measurement]) -> Path:
    manifest = Manifest(
        version="0.1.0",
        created="2025-01-01T00:00:00+00:00",
        settings=Settings(protocol=PROTOCOLS["smoke"]),
        environment=MACHINE,
        cases=cases,
    )
    with Journal.create(folder, manifest) as journal:
        journal.append(Session("2025-01-01T00:00:00+00:00"))
        for measurement in measurements:
            journal.append(Measured(measurement))
        journal.append(SessionEnd(reason="finished", wall_s=1.0))
    return folder


@given(st.lists(st.floats(1e-9, 1e3) | st.sampled_from([1e-6, 2e-6, 3e-6]), min_size=1, max_size=60))
def test_statistics_are_those_of_pytest_benchmark(samples):
    theirs = Stats()
    for sample in samples:
        theirs.update(sample)
    assert statistics_of(samples) == {**theirs.as_dict(), "data": samples}


def test_statistics_of_nothing_do_not_exist():
    with pytest.raises(ValueError, match="no samples"):
        statistics_of([])


def test_everything_about_a_case_is_in_the_file(tmp_path):
    sdpa, wrong, none, unmeasured = case("sdpa"), case("wrong"), case("fused"), case("flex")
    folder = stored(
        tmp_path / "run",
        [sdpa, wrong, none, unmeasured],
        [
            ok(sdpa, SAMPLES, processes=3),
            Measurement(case=wrong.id, status="wrong", reason="off", processes=ok(wrong, SAMPLES).processes),
            Measurement(case=none.id, status="skipped", reason="runs elsewhere"),
        ],
    )
    done = export(folder)
    assert done.path == folder / "pytest-benchmark.json"
    assert done.notice == (
        "3 of 4 cases have no samples and are left out: attention/wrong 1×8×128×64 fp32 (wrong), "
        "attention/fused 1×8×128×64 fp32 (skipped), attention/flex 1×8×128×64 fp32 (not measured yet)"
    )
    content = json.loads(done.path.read_text())
    (bench,) = content["benchmarks"]
    assert bench["stats"]["data"] == SAMPLES * 3
    assert bench["stats"]["iterations"] == 3
    assert bench["name"] == "attention/sdpa[1×8×128×64 fp32]"
    assert bench["fullname"] == "kerneldyno::attention/sdpa[1×8×128×64 fp32]"
    assert bench["group"] == "attention 1×8×128×64 fp32"
    assert bench["params"] == {"kernel": "attention/sdpa", "batch": 1, "q_len": 128, "dtype": "float32"}
    info = bench["extra_info"]
    assert info["peak_bytes"] == 4096
    assert info["weight_bytes"] is None
    assert info["leak_bytes"] == 0
    assert info["errors"]["max_ratio"] == 1.5
    assert info["energy"]["power_w"] == 300.0
    assert info["warnings"] == [{"code": "unstable", "text": "it did not settle"}]
    assert info["calls_per_sample"] == [3, 4, 5]
    assert (info["interval_kind"], info["protocol"], info["processes"]) == ("over_processes", "smoke", 3)
    (machine,) = content["machine_info"]["kerneldyno"]
    assert machine["fingerprint"] == info["fingerprint"] == MACHINE.fingerprint
    assert machine["gpu"]["driver"] == "580.1"
    assert content["commit_info"]["id"] == "0123456789abcdef"
    assert content["commit_info"]["dirty"] is True


def test_one_sample_has_no_interval_and_the_file_is_still_json(tmp_path):
    folder = stored(tmp_path / "run", [case("sdpa")], [ok(case("sdpa"), [1e-5])])
    (bench,) = msgspec.json.decode(export(folder).path.read_bytes())["benchmarks"]
    assert bench["extra_info"]["latency_low_s"] is None
    assert bench["stats"]["stddev"] == 0
    assert export(folder).notice is None


def test_cases_that_are_called_alike_stay_apart(tmp_path):
    twins = [case("sdpa"), case("sdpa", seed=1)]
    sides = [case("sdpa", 64, side="base"), case("sdpa", 64, side="candidate")]
    folder = stored(tmp_path / "run", twins + sides, [ok(one, SAMPLES) for one in twins + sides])
    names = [bench["fullname"] for bench in json.loads(export(folder).path.read_text())["benchmarks"]]
    assert len(set(names)) == 4
    assert "kerneldyno::base:attention/sdpa[1×8×64×64 fp32]" in names


def test_the_installed_command_compares_two_runs(tmp_path):
    cases = [case(kernel, q_len) for kernel in ("sdpa", "eager") for q_len in (64, 128)]
    for name, factor in (("monday", 1.0), ("tuesday", 1.5)):
        folder = stored(tmp_path / name, cases, [ok(one, [factor * sample for sample in (1e-5, 1.1e-5, 1.3e-5)]) for one in cases])
        export(folder, tmp_path / f"{name}.json")
    command = [sys.executable, "-m", "pytest_benchmark", "compare", "monday.json", "tuesday.json"]
    done = subprocess.run([*command, "--csv=table.csv"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for kernel in ("sdpa", "eager"):
        for source in ("monday", "tuesday"):
            assert f"attention/{kernel}[1×8×64×64 fp32] ({source})" in done.stdout
    assert done.stdout.count("benchmark 'attention 1×8×64×64 fp32': 4 tests") == 1
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 1 + 8
    between = subprocess.run([*command, "--between=median"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert between.returncode == 0, between.stderr
    assert between.stdout.count("+50.0%") == 4


def test_mistakes_end_in_a_sentence(tmp_path):
    with pytest.raises(RunFolderError, match="holds no run"):
        export(tmp_path / "nowhere")
    folder = stored(tmp_path / "run", [case("sdpa")], [ok(case("sdpa"), SAMPLES)])
    with pytest.raises(UsageError, match=r"--format 'asv' is unknown: choose from pytest-benchmark"):
        export(folder, form="asv")
    with pytest.raises(UsageError, match=r"cannot be written \(No such file or directory\)"):
        export(folder, tmp_path / "no" / "folder.json")
    empty = stored(tmp_path / "empty", [case("sdpa")], [Measurement(case=case("sdpa").id, status="failed", reason="it fell")])
    with pytest.raises(UsageError, match=r"nothing to export: none of its 1 cases has samples \(attention/sdpa .* \(failed\)"):
        export(empty)
    assert not list(empty.glob("*benchmark*"))
