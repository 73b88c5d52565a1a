"""int8 on weights into which the outliers of activations were moved (SmoothQuant)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..registry import Run, Setup, kernel
from ._int8_build import build, claim_for, device_code, ran, refusal
from ._int8_smoothing import smoothed
from .problem import EVERYTHING, FeedForward, FeedForwardInputs

if TYPE_CHECKING:
    import torch

    from .problem import FeedForwardWeights


def smooth_weights(problem: FeedForward, setup: Setup) -> FeedForwardWeights:
    """float32 weights, smoothed for the calibration inputs."""
    given = problem.inputs(setup.seed, setup.device) if setup.calibration is None else setup.calibration
    return smoothed(problem, setup.weights, given)


def claim(problem: FeedForward, setup: Setup, inputs: FeedForwardInputs) -> torch.Tensor:
    """int8's claim for the smoothed weights."""
    return claim_for(problem, smooth_weights(problem, setup), inputs, setup.device)


@kernel(
    FeedForward,
    family="int8",
    accepts=EVERYTHING,
    requires=("cpu:onnx", "cpu:onnxruntime", "cuda:triton"),
    approximate=True,
    own_allocator=("cpu",),
    claim=claim,
    refuses=refusal,
    identified=ran,
    device_code=device_code,
)
def int8_smooth(problem: FeedForward, setup: Setup) -> Run:
    """int8 after SmoothQuant: channels that are large in calibration inputs are divided by a factor, their weights multiplied.

    Free in every call: the factors are part of the norm and of W1. Hidden channels are smoothed behind ReLU and gates alone.
    """
    return build(problem, setup, smooth_weights(problem, setup))
