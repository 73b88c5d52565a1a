"""The layer with 8-bit projections and network; its attention stays in floating point.

As in the feed-forward network, a CPU works through one ONNX graph with a scale per tensor, a GPU through torch._int_mm
with a scale per token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .._identity import integer_products
from .._int8 import Int8Weight, int8_linear, quantized, rounded_like, weight_levels
from ..registry import Device, Run, Setup, holding, kernel
from ._compose import composed, part, refusal_of
from ._onnx import graph_run
from .problem import ENCODER, Layer, LayerInputs, LayerWeights

if TYPE_CHECKING:
    from .._onnxgraph import Graph
    from ._onnx import Linear

ATTENTION, FEEDFORWARD = part("attention/sdpa"), part("feedforward/int8")
IN_8_BIT = ("w_qkv", "w_out", "w1", "w2")


@dataclass(frozen=True)
class Matrices:
    """The layer's matrices in 8 bit, by the names of its weights."""

    by_name: dict[str, Int8Weight]

    @classmethod
    def of(cls, weights: LayerWeights, levels: int | None = None) -> Matrices:
        """Quantized to so many levels on either side of 0; None: to all there are."""
        return cls({name: quantized(getattr(weights, name), levels) for name in IN_8_BIT})

    def thirds(self) -> list[Int8Weight]:
        """The projections to q, k and v."""
        qkv = self.by_name["w_qkv"]
        return [Int8Weight(values, scales) for values, scales in zip(qkv.values.chunk(3), qkv.scales.chunk(3), strict=True)]

    def dequantized(self, weights: LayerWeights) -> LayerWeights:
        """Float64 weights with what these matrices stand for."""
        return weights.map(torch.Tensor.double).replace(**{name: matrix.dequantized() for name, matrix in self.by_name.items()})


def claim(problem: Layer, setup: Setup, inputs: LayerInputs) -> torch.Tensor:
    """The layer in float64 on rounded weights, with what meets a weight matrix rounded as the kernel does."""
    weights = Matrices.of(setup.weights, weight_levels(setup.device)).dequantized(setup.weights)
    return problem.rounded_reference(inputs, weights, rounded_like(setup.device))


def refusal(problem: Layer, device: Device) -> str | None:
    """On a CPU its one graph takes everything; on a GPU its parts decide."""
    return None if device.kind == "cpu" else refusal_of(ATTENTION, FEEDFORWARD)(problem, device)


@kernel(
    Layer,
    accepts=ENCODER,
    requires=("cpu:onnx", "cpu:onnxruntime"),
    approximate=True,
    own_allocator=("cpu",),
    claim=claim,
    refuses=refusal,
    identified=integer_products(6, on_cuda=4),  # q, k and v are apart in the graph and together on a GPU
)
def int8(problem: Layer, setup: Setup) -> Run:
    """8-bit weights and activations, multiplied as integers, in the projections and the network; attention in float."""
    weights, integers = setup.weights, Matrices.of(setup.weights, weight_levels(setup.device))
    if setup.device.type == "cpu":
        weights = wide = weights.map(torch.Tensor.float)
        run = graph_run(problem, setup, wide, lambda g: linears(integers, wide, g), "float32")
    else:
        run = _on_gpu(problem, setup, integers)
    others = [tensor for name, tensor in weights.tensors().items() if name not in IN_8_BIT]
    return holding(run, *(t for matrix in integers.by_name.values() for t in (matrix.values, matrix.scales)), *others)


def linears(integers: Matrices, weights: LayerWeights, g: Graph) -> Linear:
    """The layer's matrices as nodes of integer products; q, k and v share what quantizing x gave."""
    matrix = integers.by_name
    pairs = dict(zip("qkv", zip(integers.thirds(), weights.b_qkv.chunk(3), strict=True), strict=True))
    pairs |= {"out": (matrix["w_out"], weights.b_out), "1": (matrix["w1"], weights.b1), "2": (matrix["w2"], weights.b2)}
    return lambda x, which: g.int8_linear(x, *pairs[which])


def _on_gpu(problem: Layer, setup: Setup, integers: Matrices) -> Run:
    weights, matrix = setup.weights, integers.by_name
    return composed(
        problem,
        setup,
        ATTENTION,
        FEEDFORWARD,
        project_in=lambda x: int8_linear(x, matrix["w_qkv"], weights.b_qkv),
        project_out=lambda x: int8_linear(x, matrix["w_out"], weights.b_out),
    )
