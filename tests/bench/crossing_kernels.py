"""Two right kernels whose times cross at a known length: one waits a constant time, the other with the square of the length."""

import time

import torch
import torch.nn.functional as F

from kerneldyno.kernels.attention.problem import Attention, AttentionInputs
from kerneldyno.kernels.registry import Run, Setup, kernel

CROSSING = 300
"""The length at which both wait equally long."""
WAIT_S = 3e-3


def waiting(seconds: float) -> Run:
    """Attention that takes at least so long; it sleeps, so that a busy machine is not in its way."""

    def run(inputs: AttentionInputs) -> torch.Tensor:
        until = time.perf_counter() + seconds
        output = F.scaled_dot_product_attention(inputs.q, inputs.k, inputs.v)
        time.sleep(max(until - time.perf_counter(), 0.0))
        return output

    return run


@kernel(Attention, devices=("cpu",), dtypes=("float32",))
def steady(problem: Attention, setup: Setup) -> Run:
    """Takes as long at every length."""
    return waiting(WAIT_S)


@kernel(Attention, devices=("cpu",), dtypes=("float32",))
def growing(problem: Attention, setup: Setup) -> Run:
    """Takes longer with the square of the length."""
    return waiting(WAIT_S * (problem.q_len / CROSSING) ** 2)
