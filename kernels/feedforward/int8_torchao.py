"""torchao's dynamic 8-bit quantization, compiled: what PyTorch's own quantization library makes of the network."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from .._compiling import compiled_once, no_compiler
from .._identity import integer_operator
from .._int8 import LEVELS, exact_levels, torch_product
from ..registry import Device, Run, Setup, holding, kernel
from .problem import EVERYTHING, FeedForward, FeedForwardInputs, FeedForwardWeights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LEAST = torch.finfo(torch.float32).eps
"""A scale is not smaller."""
MATRICES = ("w1", "w2", "w_gate")
FEWEST_ROWS = 17
"""torch._int_mm on CUDA takes no fewer, and torchao does not fill them up."""


def rounded(x: torch.Tensor) -> torch.Tensor:
    """x after torchao's symmetric quantization of each row, in x's own dtype: 127.5 steps, of which there are 128 down and 127 up.

    In float32, as it is done: whether a row's largest number comes to 127 or 128 steps is a matter of its last bit.
    """
    short = x.float()
    scales = (short.abs().amax(-1, keepdim=True) / 127.5).clamp_min(LEAST)
    return (short * (1 / scales)).round().clamp(-128, 127).to(x.dtype) * scales.to(x.dtype)


def claim(problem: FeedForward, setup: Setup, inputs: FeedForwardInputs) -> torch.Tensor:
    """The network in float64 on torchao's own integers, with a scale for each output channel and each token."""
    matrices = {name: tensor for name, tensor in quantized(setup.weights).tensors().items() if name in MATRICES}
    wide = {name: tensor.qdata.double() * tensor.scale.double().view(-1, 1) for name, tensor in matrices.items()}  # type: ignore[attr-defined]
    return problem.formula(inputs.x.double(), setup.weights.map(torch.Tensor.double).replace(**wide), rounded)


def refusal(problem: FeedForward, device: Device) -> str | None:
    """Where torch.compile or torch._int_mm cannot."""
    if device.kind == "cuda":
        if problem.tokens < FEWEST_ROWS:
            return f"integer products by torch need {FEWEST_ROWS} tokens on cuda, not {problem.tokens}"
        if problem.dim % 8 or problem.hidden_dim % 8:
            return (
                f"integer products by torch need sizes that are multiples of 8, not dim {problem.dim} and hidden_dim {problem.hidden_dim}"
            )
    return no_compiler(problem, device)


@kernel(
    FeedForward,
    family="compiled",
    accepts=EVERYTHING,
    requires=("torchao",),
    approximate=True,
    claim=claim,
    refuses=refusal,
    identified=integer_operator("aten::_int_mm", lambda problem: 3 if problem.gated else 2),
)
def int8_torchao(problem: FeedForward, setup: Setup) -> Run:
    """torchao's Int8DynamicActivationInt8WeightConfig under torch.compile: a scale per token and per output channel.

    The first call, on the calibration inputs, compiles it and belongs to the build.
    """
    exact_levels(lambda left, right: torch_product(left.to(setup.device), right.to(setup.device)).cpu(), (LEVELS,))
    weights = quantized(setup.weights)
    fast = compiled_once(_formula(problem, weights))

    def run(inputs: FeedForwardInputs) -> torch.Tensor:
        return fast(inputs.x)

    run(setup.calibration or problem.inputs(setup.seed, setup.device))
    return holding(run, *(part for tensor in weights.tensors().values() for part in _parts(tensor)))


def _formula(problem: FeedForward, weights: FeedForwardWeights) -> Callable[[torch.Tensor], torch.Tensor]:
    def formula(x: torch.Tensor) -> torch.Tensor:
        return problem.formula(x, weights)

    return formula


def quantized(weights: FeedForwardWeights) -> FeedForwardWeights:
    """The weights with torchao's tensors in place of the matrices."""
    with _quiet():
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    found = {}
    for name, tensor in weights.tensors().items():
        if name in MATRICES:
            layer = torch.nn.Linear(tensor.shape[1], tensor.shape[0], bias=False, device=tensor.device, dtype=tensor.dtype)
            layer.weight = torch.nn.Parameter(tensor, requires_grad=False)
            quantize_(layer, Int8DynamicActivationInt8WeightConfig())
            found[name] = layer.weight
    return weights.replace(**found)


@contextmanager
def _quiet() -> Iterator[None]:
    """On import it tells of extensions for other machines that do not load here, and of what newer versions of PyTorch do better."""
    loggers = [logging.getLogger(name) for name in ("torchao", "torch.utils._pytree")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _parts(tensor: torch.Tensor) -> list[torch.Tensor]:
    """What a tensor of torchao is made of; another one itself."""
    values = getattr(tensor, "qdata", None)
    return [tensor] if values is None else [values, tensor.scale]  # type: ignore[attr-defined]
