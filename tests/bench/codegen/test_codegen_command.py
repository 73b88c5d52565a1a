"""`kerneldyno codegen` as users meet it: real compiles, planted faults, files, mistakes."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from kerneldyno.bench.__main__ import main
from kerneldyno.bench.codegen import command, pool, rows
from kerneldyno.bench.plan import UsageError

PLANTED = Path(__file__).with_name("planted_kernels.py")
FAULTS = {
    "too large": "does not fit: 393216 bytes of shared memory, a program on sm_90 may have 232448",
    "spills": r"spills: \d+ stores and \d+ loads of local memory, none is allowed",
    "no tensor cores": "lacks HGMMA, the tensor-core instruction of sm_90: it has no product on tensor cores",
    "no warp groups": "lacks HGMMA, the tensor-core instruction of sm_90: it has HMMA instead",
    "impossible": "does not compile: CompilationError: arange's range must be a power of 2",
    "an argument too many": "does not compile: Mismatch: product_kernel has no argument p_z",
    "crashes": "its compiler ended without an answer, with exit code 7",
    "hangs": "did not compile within 30 s",
}


@pytest.fixture
def told(tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    """(exit code, output, errors) of `kerneldyno codegen` with the planted kernels, with a cache of its own."""
    pytest.importorskip("triton")

    def tell(*words: str) -> tuple[int, str, str]:
        # that it is set where a test of the interpreter ran must not matter
        variables = os.environ | {"TRITON_CACHE_DIR": str(tmp_path / "cache"), "TRITON_INTERPRET": "1"}
        done = subprocess.run(words_of(*words), capture_output=True, text=True, env=variables, check=False, timeout=300)
        return done.returncode, done.stdout, done.stderr

    return tell


def words_of(*words: str) -> list[str]:
    return [sys.executable, "-P", "-m", "kerneldyno.bench", "codegen", "--load", str(PLANTED), "--kernels", "planted", *words]


@pytest.mark.slow
def test_planted_faults_fail_with_their_sentence(told: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    code, out, errors = told("--arch", "90", "--timeout", "30", "--json", str(tmp_path / "a.json"), "--csv", str(tmp_path / "a.csv"))
    assert (code, errors) == (5, "")
    own = str(tmp_path / "cache")
    assert not [one for one in psutil.process_iter(["cmdline"]) if (one.info["cmdline"] or [""])[-1] == own], "what hung goes on"
    assert "Traceback" not in out
    found = {row["variant"]: row for row in json.loads((tmp_path / "a.json").read_bytes())["rows"]}
    assert set(found) == {"right", "few rows", "exact", *FAULTS}
    for variant, row in found.items():
        if variant in FAULTS:
            (fault,) = row["faults"]
            assert re.fullmatch(FAULTS[variant], fault), fault
            assert f"{variant}, {row['tile']}: {fault}" in out
        else:
            assert row["faults"] == []
    assert "11 of 11 compiled" in out
    assert "8 fail" in out
    with (tmp_path / "a.csv").open(encoding="utf-8") as file:
        table = {row["variant"]: row for row in csv.DictReader(file)}
    assert set(table) == set(found)
    assert table["right"]["tensor"] == "4 HGMMA"
    assert table["right"]["registers"] == str(found["right"]["facts"]["registers"])
    assert table["crashes"]["faults"] == FAULTS["crashes"]


@pytest.mark.slow
def test_what_is_right_passes_on_three_cards_and_a_baseline_says_what_changed(
    told: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    file = tmp_path / "before.json"
    code, out, errors = told("--few", "--json", str(file))
    assert (code, errors) == (0, "")
    report = rows.read_json(file)
    assert [(row.arch, row.variant) for row in report.rows] == [
        (arch, variant) for arch in ("sm_80", "sm_90", "sm_100") for variant in ("right", "few rows", "exact")
    ]
    tensor = {row.arch: row.facts.tensor for row in report.rows if row.variant == "right" and row.facts}
    assert [set(found) for found in tensor.values()] == [{"HMMA"}, {"HGMMA"}, {"UTCHMMA"}]
    shares = {row.arch: row.facts.prediction.flop for row in report.rows if row.variant == "right" and row.facts and row.facts.prediction}
    assert shares == dict.fromkeys(("sm_80", "sm_90", "sm_100"), 2 * 128 * 128 * 64)
    # every row of the table is one line, however narrow the log thinks it is
    assert sum("product" in line and "KB" not in line for line in out.splitlines()) == 9

    worse = json.loads(file.read_bytes())
    worse["rows"][0]["facts"]["registers"] += 8
    worse["rows"][1]["tile"] = "other"
    file.write_text(json.dumps(worse))
    code, out, _ = told("--few", "--baseline", str(file), "--arch", "sm_80")
    assert code == 0
    assert "3 changes" in out
    registers = worse["rows"][0]["facts"]["registers"]
    assert f"right, 128×128×64 w8 s3: {registers} registers, 0 spills, 64 KB, 64 HMMA → {registers - 8} registers" in out
    assert "few rows, 16×64×64 w4 s3: new: " in out
    assert "few rows, other: no longer offered: " in out


@pytest.mark.slow
def test_stopping_keeps_what_was_compiled(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    variables = os.environ | {"TRITON_CACHE_DIR": str(tmp_path / "cache")}
    words = words_of("--arch", "90", "--jobs", "1", "--json", str(tmp_path / "a.json"))
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables) as running:
        assert running.stdout
        for line in running.stdout:
            if line.startswith("fails"):  # the fourth of eleven
                break
        began = time.monotonic()
        running.send_signal(signal.SIGINT)
        out, errors = running.communicate(timeout=60)
    assert running.returncode == 130
    assert time.monotonic() - began < 20
    assert "of 11 compiled" in out
    assert errors.startswith("kerneldyno: stopping")
    assert "Traceback" not in errors
    assert 4 <= len(rows.read_json(tmp_path / "a.json").rows) < 11


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--arch", "sm_70"], "--arch 'sm_70' is unknown: choose from sm_80, sm_86, sm_89, sm_90, sm_100, sm_120"),
        (["--kernels", "attention/sdpa"], "matches no kernel with Triton code of its own: choose from attention/block_sparse_50, "),
        (["--kernels", "nothing*"], "matches no kernel with Triton code of its own"),
        (["--jobs", "0"], "--jobs 0 is impossible: give 1 or more"),
        (["--timeout", "0"], "--timeout 0 is impossible: give more than 0 seconds"),
        (["--timeout", "nan"], "--timeout nan is impossible: give more than 0 seconds"),
        (["--baseline", "absent.json"], "--baseline absent.json: cannot be read (No such file or directory)"),
        (["--json", "absent/a.json"], "--json absent/a.json: cannot be written: give a file in a folder that is there"),
        (["--csv", "."], "--csv .: cannot be written: give a file in a folder that is there"),
        (["--load", "absent.py"], "--load absent.py: there is no such file"),
    ],
)
def test_mistakes(words: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["kerneldyno", "codegen", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    errors = capsys.readouterr().err
    assert sentence in errors
    assert errors.count("\n") == 1


def test_without_triton_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    found = command.importlib.util.find_spec
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda name, *more: None if name == "triton" else found(name, *more))
    with pytest.raises(UsageError, match=r"needs the Python package triton, which is not installed: pip install 'kerneldyno\[run\]'"):
        command.codegen(Console(), command.Asked(few=True), lambda: False)


def test_choosing_needs_neither_torch_nor_triton() -> None:
    script = (
        "import pickle, sys\nfrom kerneldyno.bench.codegen import command\n"
        "found = command.choose(command.Asked(few=True))\n"
        "assert len(found) > 30\n"
        "assert not {'torch', 'triton'} & set(sys.modules)\n"
        "assert pickle.loads(pickle.dumps(found)) == found"  # they go to other processes
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_form_has_a_name_of_its_own_and_every_kernel_a_representative() -> None:
    everything = command.choose(command.Asked())
    names = [(one.name, one.capability, one.dtype, one.size, one.variant, one.tile) for one in everything]
    assert len(names) == len(set(names))
    few = {(one.name, one.capability) for one in command.choose(command.Asked(few=True))}
    assert few == {(one.name, one.capability) for one in everything}


FEEDFORWARD = {
    *("linear_kernel", "linear_split_kernel", "linear_sum_kernel", "norm_kernel"),
    *("activation_gradient_kernel", "norm_gradient_kernel"),
}


@pytest.mark.parametrize(
    ("globs", "wanted"),
    [
        (("split*",), {"split_kernel"}),
        (("attention/split*",), {"split_kernel"}),
        (("feedforward/fused",), FEEDFORWARD),
        (("linear_kernel", "combine_kernel"), {"linear_kernel", "combine_kernel"}),
    ],
)
def test_kernels_are_chosen_by_their_names_and_those_of_their_device_kernels(globs: tuple[str, ...], wanted: set[str]) -> None:
    assert {one.name for one in command.choose(command.Asked(kernels=globs, archs=("sm_90",)))} == wanted


def test_nothing_to_compile_is_no_process() -> None:
    assert list(pool.compile_all([])) == []


@pytest.mark.parametrize(
    "content", [b"", b"{}", b'{"triton": "3", "seconds": 1, "rows": 7}', b'{"triton": "3", "seconds": 1, "rows": [], "schema": 9}']
)
def test_other_files_are_no_baseline(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="--baseline"):
        rows.read_json(path)
