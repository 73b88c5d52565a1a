"""Weights in 8 bit ahead of time, activations quantized in every call, and integer products.

On a CPU ONNX Runtime does it, with one scale per tensor: it fuses quantizing, product and scaling, and took 13 ms where
torch._int_mm with a scale per token took 16 (2048 tokens, 512→2048→512, two cores), at almost the same error. On a GPU it
is torch._int_mm with a scale per token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .._identity import integer_products
from .._int8 import Int8Weight, int8_linear, quantized, rounded_like, weight_levels
from .._onnxgraph import Graph
from ..registry import Device, Run, Setup, holding, kernel
from ._onnx import finished, graph_run, network
from .problem import EVERYTHING, FeedForward, FeedForwardInputs, FeedForwardWeights, activate

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Matrices:
    """The network's matrices in 8 bit."""

    w1: Int8Weight
    w2: Int8Weight
    w_gate: Int8Weight | None

    def dequantized(self, weights: FeedForwardWeights) -> FeedForwardWeights:
        """Float64 weights with what these matrices stand for."""
        gate = None if self.w_gate is None else self.w_gate.dequantized()
        return weights.map(torch.Tensor.double).replace(w1=self.w1.dequantized(), w2=self.w2.dequantized(), w_gate=gate)

    def tensors(self) -> list[torch.Tensor]:
        """All that is kept of them."""
        return [tensor for m in (self.w1, self.w2, self.w_gate) if m is not None for tensor in (m.values, m.scales)]


def matrices(weights: FeedForwardWeights, levels: int | None = None) -> Matrices:
    """The network's matrices, quantized to so many levels on either side of 0; None: to all there are."""
    gate = None if weights.w_gate is None else quantized(weights.w_gate, levels)
    return Matrices(quantized(weights.w1, levels), quantized(weights.w2, levels), gate)


def claim(problem: FeedForward, setup: Setup, inputs: FeedForwardInputs) -> torch.Tensor:
    """The network in float64 on rounded weights, with activations rounded as the kernel does."""
    weights = matrices(setup.weights, weight_levels(setup.device)).dequantized(setup.weights)
    return problem.formula(inputs.x.double(), weights, rounded=rounded_like(setup.device))


def refusal(problem: FeedForward, device: Device) -> str | None:
    """torch._int_mm on CUDA takes multiples of 8."""
    if device.kind == "cuda" and (problem.dim % 8 or problem.hidden_dim % 8):
        return f"integer products on a GPU need sizes that are multiples of 8, not dim {problem.dim} and hidden_dim {problem.hidden_dim}"
    return None


@kernel(
    FeedForward,
    accepts=EVERYTHING,
    requires=("cpu:onnx", "cpu:onnxruntime"),
    approximate=True,
    own_allocator=("cpu",),
    claim=claim,
    refuses=refusal,
    identified=integer_products(lambda problem: 3 if problem.gated else 2),
)
def int8(problem: FeedForward, setup: Setup) -> Run:
    """8-bit weights (a scale per output channel) and activations (rounded in every call), multiplied as integers.

    Where a CPU has no 8-bit instructions and its products would saturate, weights have 7 bit.
    """
    weights, integers = setup.weights, matrices(setup.weights, weight_levels(setup.device))
    on_cpu = setup.device.type == "cpu"
    run = (_on_cpu if on_cpu else _on_gpu)(problem, setup, integers)
    others = [tensor for name, tensor in weights.tensors().items() if name not in ("w1", "w2", "w_gate")]
    return holding(run, *integers.tensors(), *(tensor.float() if on_cpu else tensor for tensor in others))


def _on_cpu(problem: FeedForward, setup: Setup, integers: Matrices) -> Run:
    return graph_run(problem, setup, graph(problem, setup.weights, integers))


def _on_gpu(problem: FeedForward, setup: Setup, integers: Matrices) -> Run:
    weights = setup.weights

    def run(inputs: FeedForwardInputs) -> torch.Tensor:
        h = problem.normalize(inputs.x, weights)
        up = int8_linear(h, integers.w1, weights.b1)
        if integers.w_gate is None:
            a = activate(problem.activation, up)
        else:
            a = activate(problem.activation, int8_linear(h, integers.w_gate, weights.b_gate)) * up
        y = int8_linear(a, integers.w2, weights.b2)
        return inputs.x + y if problem.residual else y

    return run


def graph(problem: FeedForward, weights: FeedForwardWeights, integers: Matrices) -> onnx.ModelProto:
    """[tokens, dim] -> [tokens, dim]; everything that is not an integer is float32 inside."""
    g = Graph()
    wide = weights.map(torch.Tensor.float)
    biased = {"w1": (integers.w1, wide.b1), "w2": (integers.w2, wide.b2)}
    if integers.w_gate is not None:
        biased["w_gate"] = (integers.w_gate, wide.b_gate)
    x = "x" if problem.dtype == "float32" else g.cast("x", "float32")
    y = network(g, problem, wide, x, lambda x, which: g.int8_linear(x, *biased[which]))
    return finished(g, problem, y if problem.dtype == "float32" else g.cast(y, problem.dtype))
