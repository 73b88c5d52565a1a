"""A plugin whose kernels fail in every way that a kernel can, and one that is right. Loaded by test_run.py."""

import ctypes
import time

import torch
import torch.nn.functional as F

from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.registry import kernel


@kernel(Attention)
def good(problem, setup):
    """Right."""

    def run(inputs):
        return F.scaled_dot_product_attention(inputs.q, inputs.k, inputs.v, enable_gqa=problem.grouped)

    return run


@kernel(Attention)
def segfaults(problem, setup):
    """Reads address 0."""

    def run(inputs):
        return ctypes.string_at(0)

    return run


@kernel(Attention)
def hangs(problem, setup):
    """Never returns."""

    def run(inputs):
        while True:
            time.sleep(1)

    return run


@kernel(Attention)
def raises(problem, setup):
    """Raises."""

    def run(inputs):
        raise RuntimeError("this kernel has a sharp edge")

    return run


@kernel(Attention)
def exits(problem, setup):
    """Leaves, with a word that cannot be encoded."""

    def run(inputs):
        raise SystemExit("adieu \udce9")

    return run


@kernel(Attention)
def returns_list(problem, setup):
    """Returns a list."""

    def run(inputs):
        return [inputs.q]

    return run


@kernel(Attention)
def returns_nan(problem, setup):
    """Returns NaN."""

    def run(inputs):
        return torch.full_like(inputs.q, torch.nan)

    return run
