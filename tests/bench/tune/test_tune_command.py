"""The command line of `kerneldyno tune`: what it shows without a GPU, and the sentences for what cannot be done."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

DEVICE = Path(__file__).with_name("simulated_device.py")
SMALL = ("--load", str(DEVICE), "--kernels", "attention/simulated", "--set", "q_len=70", "--set", "head_dim=16", "--dtype", "fp16")


def tune(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kerneldyno.bench", "tune", *arguments]
    environment = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--device", "cpu"], 2, "tune needs a GPU ("),
        (["--device", "cpu"], 2, "what would be measured on one is shown by kerneldyno tune --compile-only --arch sm_90"),
        (["--compile-only", "--arch", "sm_75"], 2, "--arch 'sm_75' is unknown: choose from sm_80, "),
        (["--compile-only", "--kernels", "attention/eager"], 2, "no chosen kernel offers a choice: choose from attention/fused"),
        (["--compile-only", "--kernels", "nonsense"], 2, "--kernels 'nonsense' matches no kernel"),
        (["--arch", "sm_80"], 2, "--arch sm_80 goes with --compile-only alone"),
        (["--jobs", "0"], 2, "--jobs 0 is impossible: give 1 or more"),
        (["--processes", "2"], 2, "--processes 2 is too few: a choice rests on at least 3 fresh processes"),
        (["--budget", "0", "--simulated", DEVICE.name, *SMALL, "--out", "x"], 2, "--budget 0 is impossible"),
        (["--simulated", "other.py", *SMALL], 2, "--simulated other.py: name one of the files of --load"),
        (["--simulated", DEVICE.name, *SMALL], 2, "must not be stored with the package: give --out DIR"),
        (["--resume", "nowhere"], 2, "--resume nowhere holds no tuning"),
        (
            ["--resume", "nowhere", "--seed", "3"],
            2,
            "--seed does not go with --resume: a resumed run keeps its plan; only --load, --budget and",
        ),
    ],
)
def test_a_mistake_has_its_sentence(tmp_path: Path, arguments: list[str], code: int, sentence: str) -> None:
    done = tune(tmp_path, *arguments)
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == code


def test_a_damaged_book_is_a_sentence_before_anything_is_measured(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "sm_90.json").write_text("{")
    done = tune(tmp_path, "--simulated", DEVICE.name, *SMALL, "--out", "book")
    assert "sm_90.json: is damaged" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 2
    assert not (tmp_path / "runs").exists()


def test_candidates_are_shown_for_a_card_that_is_not_there(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    done = tune(tmp_path, "--compile-only", "--arch", "sm_90", *SMALL)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "6 to be measured: 64×64 w4 s3, 64×32 w4 s4, 64×32 w4 s3, 64×32 w4 s5, 64×32 w4 s2, 64×64 w4 s2" in done.stdout
    assert "2 of 8 left out" in done.stdout
    assert "spills: " in done.stdout
    assert "half of its 256 queries are not there" in done.stdout
    assert not (tmp_path / "runs").exists()


def test_help_says_what_it_exits_with(tmp_path: Path) -> None:
    done = tune(tmp_path, "--help")
    assert done.returncode == 0
    assert "130 interrupted" in done.stdout
