"""The whole of `kerneldyno tune` without a GPU: a simulated device, the interpreter, real compilers; and who takes the choice."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from kerneldyno.kernels import _tuned

pytest.importorskip("triton")
pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
DEVICE = HERE / "simulated_device.py"
SHAPES = ["--set", "q_len=70", "--set", "heads=1", "--set", "head_dim=16", "--dtype", "fp16", "--batch", "1", "--set", "causal=false,true"]
PATIENCE_S = 600


class Tuned(NamedTuple):
    """A folder in which a tuning was interrupted and went on."""

    folder: Path
    first: tuple[int, str]
    """Exit code and output up to the interruption …"""
    second: tuple[int, str]
    """… and after it."""
    measured_before: set[str]
    """Lines of measurements that were there when it was interrupted."""

    @property
    def run(self) -> Path:
        (found,) = (self.folder / "runs").glob("*-tune")
        return found

    def choice(self, *, causal: bool) -> Any:
        found = _tuned.read(self.folder / "book" / "sm_90.json")
        (entry,) = (entry for key, entry in found.items() if key.causal == causal)
        return entry


def environment(folder: Path, **more: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name != _tuned.PLACE}
    return {**inherited, "TRITON_INTERPRET": "1", "TMPDIR": str(folder), "COLUMNS": "200", **more}


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "kerneldyno.bench", "tune", "--load", str(DEVICE), *arguments]
    return subprocess.Popen(command, cwd=folder, env=environment(folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def measured(folder: Path) -> set[str]:
    """The lines of journals that hold a measurement."""
    return {line for file in folder.glob("runs/*/*/*/journal.jsonl") for line in file.read_text().splitlines() if '"measured"' in line}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    """Interrupted when the first choice is made and the heat of the second has begun; then resumed."""
    folder = tmp_path_factory.mktemp("tune")
    began = start(
        folder,
        "--simulated",
        DEVICE.name,
        "--kernels",
        "attention/simulated",
        *SHAPES,
        "--processes",
        "3",
        "--threads",
        "1",
        "--out",
        "book",
    )
    until = time.monotonic() + PATIENCE_S
    while not list(folder.glob("runs/*/02-*/heat/journal.jsonl")) and began.poll() is None and time.monotonic() < until:
        time.sleep(0.1)
    before = measured(folder)
    began.send_signal(signal.SIGINT)
    said, _ = began.communicate(timeout=PATIENCE_S)
    (run,) = (folder / "runs").glob("*-tune")
    again = start(folder, "--resume", str(run.relative_to(folder)), "--out", "book")
    said_again, _ = again.communicate(timeout=PATIENCE_S)
    return Tuned(folder, (began.returncode, said), (again.returncode, said_again), before)


def test_an_interrupted_tuning_goes_on_where_it_was(tuned: Tuned) -> None:
    assert tuned.first[0] == 130, tuned.first[1]
    assert "1 choice not made: go on with kerneldyno tune --resume runs/" in tuned.first[1]
    assert f"--load {DEVICE} --out book\n" in tuned.first[1]
    assert tuned.second[0] == 0, tuned.second[1]
    assert tuned.measured_before
    assert tuned.measured_before <= measured(tuned.folder)
    assert "compiling" not in tuned.second[1]
    (first,) = tuned.run.glob("01-*")
    assert tuned.second[1].count("finalists:") == 1, "the first choice was made before"
    assert json.loads((first / "outcome.json").read_bytes())["text"] == "64×32 w4 s2"


def test_choices_that_were_made_are_stored_elsewhere_too(tuned: Tuned) -> None:
    before = measured(tuned.folder)
    again = start(tuned.folder, "--resume", str(tuned.run.relative_to(tuned.folder)), "--out", "elsewhere")
    said, _ = again.communicate(timeout=PATIENCE_S)
    assert again.returncode == 0, said
    assert measured(tuned.folder) == before
    assert (tuned.folder / "elsewhere" / "sm_90.json").read_bytes() == (tuned.folder / "book" / "sm_90.json").read_bytes()


def test_the_fastest_right_candidate_wins_and_is_stored_with_its_evidence(tuned: Tuned) -> None:
    entry = tuned.choice(causal=False)
    assert entry.choice == {"bt": 64, "bs": 32, "warps": 4, "stages": 2, "ahead": False, "persistent": 0, "l2_eighths": 4}
    evidence = entry.evidence
    assert evidence.speedup == pytest.approx((1.25, 1.25, 1.25), rel=1e-3)  # 50 ms against 40 ms on the simulated clock
    assert evidence.default_s[0] == pytest.approx(0.05)
    assert evidence.choice_s[0] == pytest.approx(0.04)
    assert (evidence.candidates, evidence.pruned, evidence.wrong, evidence.processes) == (8, 2, 3, 3)
    assert evidence.simulated
    assert "over 3 processes the interval of the ratio" in evidence.required
    assert "1.250 (1.250 to 1.250)" in tuned.first[1]


def test_what_is_wrong_or_crashes_never_wins_however_fast(tuned: Tuned) -> None:
    (first,) = tuned.run.glob("01-*")
    outcome = json.loads((first / "outcome.json").read_bytes())
    assert "wrong: the output is off from float64" in outcome["rejected"]["64×32 w4 s3"]  # a fifth of the default's time
    assert outcome["rejected"]["64×32 w4 s4"] == "failed: build: the worker was killed by SIGABRT"
    # right where it is measured, and wrong at lengths that fit no tile: the whole gate looks at finalists
    assert outcome["rejected"]["64×32 w4 s5"].startswith("wrong: awkward length")
    assert set(outcome["finalists"]) == {"64×32 w4 s2"}  # the slow one was left behind in the heat


def test_what_spills_or_does_not_pay_is_never_measured(tuned: Tuned) -> None:
    (first,) = tuned.run.glob("01-*")
    left = json.loads((first / "candidates.json").read_bytes())["left_out"]
    assert left["256×64 w8 s2"] == "half of its 256 queries are not there: the problem has 70"
    assert left["128×128 w4 s2"].startswith("spills: ")  # by the binary that a real compiler made of it
    assert "128×128" not in "".join(measured(tuned.folder))


def test_noise_is_no_reason_to_leave_the_default(tuned: Tuned) -> None:
    """On causal problems the candidate takes half the default's time in one process of three, and as long in the others."""
    entry = tuned.choice(causal=True)
    assert entry.choice["bs"] == 64
    assert entry.evidence.speedup == (1.0, 1.0, 1.0)
    estimate, low = (float(number) for number in re.findall(r" \(?(\d\.\d+)", entry.evidence.contested)[:2])
    assert low < 1 < estimate, entry.evidence.contested
    assert "the default stays" in tuned.second[1]


def test_the_kernel_takes_what_was_chosen_and_says_so(tuned: Tuned) -> None:
    def built(**variables: str) -> list[dict[str, Any]]:
        command = [sys.executable, str(HERE / "picks_up.py")]
        done = subprocess.run(command, env=environment(tuned.folder, **variables), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        found: list[dict[str, Any]] = json.loads(done.stdout)
        assert all(one["ratio"] < 2 for one in found), found
        return found

    usual = {"BT": 64, "BS": 64, "num_warps": 4, "num_stages": 3}
    plain, causal = built(**{_tuned.PLACE: str(tuned.folder / "book")})
    assert (plain["form"], plain["launched"]) == ("64×32 w4 s2, tuned", {"BT": 64, "BS": 32, "num_warps": 4, "num_stages": 2})
    assert (causal["form"], causal["launched"]) == ("64×64 w4 s3, tuned", usual)
    assert [(one["form"], one["launched"]) for one in built()] == 2 * [("64×64 w4 s3, default", usual)]
