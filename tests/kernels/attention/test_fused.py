"""Our Triton kernel without a GPU: its results in the interpreter, and what its binaries contain."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kerneldyno.kernels.attention.fused import fused
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.registry import Device

pytest.importorskip("triton")

HERE = Path(__file__).parent
SHARED_BYTES = {(8, 0): 163 * 1024, (8, 6): 99 * 1024, (9, 0): 227 * 1024}


def told(script: str, *arguments: str, **environment: str) -> list[dict[str, Any]]:
    """What a script prints, line by line, run in a process of its own."""
    variables = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | environment
    done = subprocess.run([sys.executable, str(HERE / script), *arguments], capture_output=True, text=True, env=variables, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_right_in_the_interpreter(tmp_path: Path) -> None:
    found = told("interpret_fused.py", TRITON_INTERPRET="1", TRITON_CACHE_DIR=str(tmp_path), OMP_NUM_THREADS="1")
    assert len(found) == 26
    for case in found:
        # the interpreter rounds products of large heads more often than a GPU does
        limits = (2, 1.5) if "16" in case["label"].split()[-1] else (8, 3)
        assert case["finite"], case
        assert case["blind zero"], case
        assert case["unchanged"], case
        assert case["max"] <= limits[0], case
        assert case["rms"] <= limits[1], case


def assert_sound(found: list[dict[str, Any]]) -> None:
    for case in found:
        capability = tuple(case["capability"])
        assert case["shared_bytes"] <= SHARED_BYTES[capability], case
        assert case["spills"] <= 48, case
        if case["dtype"] != "fp32":
            assert case["tensor_core_instructions"] > 0, case
            if capability == (9, 0) and case["bt"] >= 64:
                assert case["wide_instructions"] > 0, case
        else:
            assert case["tensor_core_instructions"] == 0, case


def test_binaries_fit_the_cards_and_use_tensor_cores(tmp_path: Path) -> None:
    found = told("compile_fused.py", "few", TRITON_CACHE_DIR=str(tmp_path))
    assert len(found) == 5
    assert_sound(found)


@pytest.mark.slow
def test_all_offered_binaries_fit_the_cards(tmp_path: Path) -> None:
    assert_sound(told("compile_fused.py", "all", TRITON_CACHE_DIR=str(tmp_path)))


@pytest.mark.parametrize(
    ("changes", "device", "sentence"),
    [
        ({}, Device("cuda", capability=(9, 0)), None),
        ({"causal": True, "padding": True, "kv_heads": 2, "kv_len": 7}, Device("cuda", capability=(8, 6)), None),
        ({}, Device("cpu"), "runs on cuda only, not on cpu"),
        ({}, Device("cuda", capability=(7, 5)), "compute capability 8.0 and newer, not 7.5"),
        ({"head_dim": 8}, Device("cuda", capability=(9, 0)), "takes head_dim from 16 to 256, not 8"),
        ({"head_dim": 257}, Device("cuda", capability=(9, 0)), "takes head_dim from 16 to 256, not 257"),
        ({"bias": "additive"}, Device("cuda", capability=(9, 0)), "does not take bias"),
        ({"bias": "boolean"}, Device("cuda", capability=(9, 0)), "does not take mask"),
        ({"direction": "backward"}, Device("cuda", capability=(9, 0)), "has no backward direction"),
    ],
)
def test_refusals(changes: dict[str, Any], device: Device, sentence: str | None) -> None:
    found = fused.why_not(Attention(**{"q_len": 64, **changes}), device)
    assert found is None if sentence is None else sentence in (found or "")
