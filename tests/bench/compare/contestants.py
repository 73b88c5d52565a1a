"""Kernels for whole comparisons: equal ones, a slower and hungrier one, a wrong one, one that crashes in a later process."""

import os
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from kerneldyno.kernels.attention.problem import Attention, AttentionInputs
from kerneldyno.kernels.registry import Run, Setup, kernel


def attend(inputs: AttentionInputs) -> torch.Tensor:
    return F.scaled_dot_product_attention(inputs.q, inputs.k, inputs.v)


def plain(problem: Attention, setup: Setup) -> Run:
    return attend


def slowed(problem: Attention, setup: Setup) -> Run:
    """By half, and it takes 4 MiB more."""

    def run(inputs: AttentionInputs) -> torch.Tensor:
        began = time.perf_counter_ns()
        torch.empty(1 << 20)
        answer = attend(inputs)
        end = time.perf_counter_ns()
        end += (end - began) // 2
        while time.perf_counter_ns() < end:
            pass
        return answer

    return run


def wrong(problem: Attention, setup: Setup) -> Run:
    return lambda inputs: attend(inputs) * 1.5


def crashing(problem: Attention, setup: Setup) -> Run:
    """In the third process that builds it."""
    marks = Path(os.environ["KERNELDYNO_TEST_MARKS"])
    mark = marks / f"{os.getpid()}"
    mark.touch()
    if len(list(marks.iterdir())) >= 3:
        os.kill(os.getpid(), 11)
    return attend


for name, build in {"old": plain, "new": plain, "slow": slowed, "bad": wrong, "crashing": crashing}.items():
    globals()[name] = kernel(Attention, name=f"cmp_{name}", family="test", devices=("cpu",))(build)
