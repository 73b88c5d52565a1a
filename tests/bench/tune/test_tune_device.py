"""What a device says of itself, and one choice made on a GPU, where there is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kerneldyno.bench.environment import DeviceError
from kerneldyno.bench.tune.card import card_of
from kerneldyno.kernels import _tuned
from kerneldyno.kernels._cards import Card
from kerneldyno.kernels.registry import Device

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
SHAPES = ["--set", "q_len=1000", "--set", "heads=16", "--set", "head_dim=64", "--dtype", "bf16", "--batch", "8"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA GPU")
def test_a_device_that_is_not_there_is_a_sentence() -> None:
    with pytest.raises(DeviceError, match=r"device cuda:0 does not say what it is .*: does torch.cuda work there\?"):
        card_of(Device("cuda"))


@pytest.mark.gpu
@needs_gpu
def test_a_device_says_what_it_is() -> None:
    assert card_of(Device("cuda")) == Card.of(torch.device("cuda:0"))


@pytest.mark.gpu
@pytest.mark.slow
@needs_gpu
def test_a_choice_is_made_and_taken(tmp_path: Path) -> None:
    environment = {**os.environ, _tuned.PLACE: str(tmp_path / "book")}

    def kerneldyno(*arguments: str) -> str:
        command = [sys.executable, "-m", "kerneldyno.bench", *arguments, "--kernels", "attention/fused", *SHAPES]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    kerneldyno("tune", "--processes", "3", "--out", "book")
    (path,) = (tmp_path / "book").glob("sm_*.json")
    (entry,) = _tuned.read(path).values()
    assert not entry.evidence.simulated
    assert entry.evidence.choice_s[0] <= entry.evidence.default_s[0]
    assert entry.evidence.pruned > 0
    kerneldyno("check", "--json", "found.json")
    (found,) = json.loads((tmp_path / "found.json").read_bytes())
    assert found["measurement"]["identity"].endswith(", tuned")
