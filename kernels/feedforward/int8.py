"""Weights in 8 bit ahead of time, activations quantized in every call, and integer products."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..registry import Run, Setup, kernel
from . import _int8_tuning
from ._int8_build import build, claim_for, device_code, ran, refusal
from .problem import EVERYTHING, FeedForward, FeedForwardInputs

if TYPE_CHECKING:
    import torch


def claim(problem: FeedForward, setup: Setup, inputs: FeedForwardInputs) -> torch.Tensor:
    """The network in float64 on rounded weights, with activations rounded as the kernel does."""
    return claim_for(problem, setup.weights, inputs, setup.device)


@kernel(
    FeedForward,
    accepts=EVERYTHING,
    requires=("cpu:onnx", "cpu:onnxruntime", "cuda:triton"),
    approximate=True,
    own_allocator=("cpu",),
    claim=claim,
    refuses=refusal,
    identified=ran,
    device_code=device_code,
    tuning=_int8_tuning.tasks,
)
def int8(problem: FeedForward, setup: Setup) -> Run:
    """8-bit weights (a scale per output channel) and activations (rounded in every call), multiplied as integers.

    Where a CPU has no 8-bit instructions and its products would saturate, weights have 7 bit. On a GPU Triton kernels, with a scale for
    each token, which compile on their first call: that belongs to the build.
    """
    return build(problem, setup, setup.weights)
