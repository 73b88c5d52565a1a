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
from ._onnx import graph_run, projections
from .problem import EVERYTHING, Layer, LayerInputs, LayerWeights

if TYPE_CHECKING:
    from .._onnxgraph import Graph
    from ._onnx import Linear

ATTENTION, FEEDFORWARD = part("attention/sdpa"), part("feedforward/int8_mm")
IN_8_BIT = ("w_qkv", "w_out", "w1", "w2", "w_gate")


@dataclass(frozen=True)
class Matrices:
    """The layer's matrices in 8 bit, by the names of its weights."""

    by_name: dict[str, Int8Weight]

    @classmethod
    def of(cls, weights: LayerWeights, levels: int | None = None) -> Matrices:
        """Quantized to so many levels on either side of 0; None: to all there are."""
        return cls({name: quantized(matrix, levels) for name, matrix in weights.tensors().items() if name in IN_8_BIT})

    def apart(self, problem: Layer) -> list[Int8Weight]:
        """The projections to q, k and v."""
        qkv, sizes = self.by_name["w_qkv"], problem.widths
        return [Int8Weight(values, scales) for values, scales in zip(qkv.values.split(sizes), qkv.scales.split(sizes), strict=True)]

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
    accepts=EVERYTHING,
    requires=("cpu:onnx", "cpu:onnxruntime"),
    approximate=True,
    own_allocator=("cpu",),
    claim=claim,
    refuses=refusal,
    # q, k and v are apart in the graph and together on a GPU
    identified=integer_products(lambda problem: 6 + problem.gated, on_cuda=lambda problem: 4 + problem.gated),
)
def int8(problem: Layer, setup: Setup) -> Run:
    """8-bit weights and activations, multiplied as integers, in the projections and the network; attention in float."""
    weights, integers = setup.weights, Matrices.of(setup.weights, weight_levels(setup.device))
    if setup.device.type == "cpu":
        weights = wide = weights.map(torch.Tensor.float)
        run = graph_run(problem, setup, wide, lambda g: linears(problem, integers, wide, g), "float32")
    else:
        run = _on_gpu(problem, setup, integers)
    others = [tensor for name, tensor in weights.tensors().items() if name not in IN_8_BIT]
    return holding(run, *(t for matrix in integers.by_name.values() for t in (matrix.values, matrix.scales)), *others)


def linears(problem: Layer, integers: Matrices, weights: LayerWeights, g: Graph) -> Linear:
    """The layer's matrices as nodes of integer products; q, k and v share what quantizing x gave."""
    biases = {which: bias for which, (_, bias) in projections(problem, weights).items()}
    biases |= {"w1": weights.b1, "w2": weights.b2, "w_gate": weights.b_gate}
    matrix = dict(zip("qkv", integers.apart(problem), strict=True)) | integers.by_name | {"out": integers.by_name["w_out"]}
    return lambda x, which: g.int8_linear(x, matrix[which], biases[which])


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
