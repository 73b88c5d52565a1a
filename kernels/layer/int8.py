"""The layer with 8-bit projections and network; its attention stays in floating point.

As in the feed-forward network, a CPU works through one ONNX graph with a scale per tensor, a GPU through our Triton kernels
with a scale per token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .._identity import integer_products, triton_kernels
from .._int8 import Int8Weight, quantized, rounded_per_tensor, rounded_per_token
from ..attention import fused as attention
from ..feedforward import _int8_build as feedforward
from ..feedforward import _int8_device
from ..feedforward._int8_network import Matrices as NetworkMatrices
from ..feedforward._int8_network import stored_in
from ..feedforward.problem import FeedForwardInputs
from ..registry import Device, Run, Setup, Trace, holding, kernel
from ._compose import build_attention, part, refusal_of
from ._on_device import Parts, launched
from ._onnx import graph_run, projections
from .problem import EVERYTHING, Layer, LayerInputs, LayerWeights

if TYPE_CHECKING:
    from .._onnxgraph import Graph
    from ._on_device import Norm
    from ._onnx import Linear

ATTENTION, FEEDFORWARD = part("attention/fused"), part("feedforward/int8")
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
        return [
            Int8Weight(values, scales)
            for values, scales in zip(torch.split(qkv.values, sizes), torch.split(qkv.scales, sizes), strict=True)
        ]

    @property
    def network(self) -> NetworkMatrices:
        """Those of the feed-forward network."""
        return NetworkMatrices(self.by_name["w1"], self.by_name["w2"], self.by_name.get("w_gate"))

    def dequantized(self, weights: LayerWeights) -> LayerWeights:
        """Float64 weights with what these matrices stand for."""
        return weights.map(torch.Tensor.double).replace(**{name: matrix.dequantized() for name, matrix in self.by_name.items()})


def claim(problem: Layer, setup: Setup, inputs: LayerInputs) -> torch.Tensor:
    """The layer in float64 on rounded weights, with what meets a weight matrix rounded as the kernel does."""
    weights = Matrices.of(setup.weights, feedforward.levels(setup.device)).dequantized(setup.weights)
    if setup.device.type == "cpu":
        return problem.rounded_reference(inputs, weights, rounded_per_tensor)
    return claim_on_device(problem, weights, inputs)


def claim_on_device(problem: Layer, weights: LayerWeights, inputs: LayerInputs) -> torch.Tensor:
    """The same of our Triton kernels, which store what lies between them in the problem's dtype, but not what a quantizing one norms."""
    stored = stored_in(inputs.x.dtype, rounded_per_token)
    normed = rounded_per_token if problem.norm_first else stored
    steps = iter((normed, stored, normed, stored))  # before q, k and v, the output projection, W1, and W2

    def each(x: torch.Tensor) -> torch.Tensor:
        return next(steps)(x)

    return problem.rounded_reference(inputs, weights, each)


def refusal(problem: Layer, device: Device) -> str | None:
    """On a CPU its one graph takes everything; on a GPU its parts decide."""
    return None if device.kind == "cpu" else refusal_of(ATTENTION, FEEDFORWARD)(problem, device)


def ran(problem: Layer, setup: Setup, trace: Trace) -> str:
    """The judge of its identity: integer products, and on a GPU no others of torch beside them."""
    if setup.device.type == "cpu":
        return integer_products(6 + problem.gated)(problem, setup, trace)  # q, k and v are apart in the graph
    turned = ("rotate_kernel",) if problem.rope_theta else ()
    names = (*_int8_device.KERNELS, attention.device_kernel(problem.attention), *turned)
    return triton_kernels(*names, alone=True)(problem, setup, trace)


@kernel(
    Layer,
    accepts=EVERYTHING,
    requires=("cpu:onnx", "cpu:onnxruntime", "cuda:triton"),
    approximate=True,
    own_allocator=("cpu",),
    claim=claim,
    refuses=refusal,
    identified=ran,
)
def int8(problem: Layer, setup: Setup) -> Run:
    """8-bit weights and activations, multiplied as integers, in the projections and the network; attention in float."""
    weights, integers = setup.weights, Matrices.of(setup.weights, feedforward.levels(setup.device))
    if setup.device.type == "cpu":
        weights = wide = weights.map(torch.Tensor.float)
        run = graph_run(problem, setup, wide, lambda g: linears(problem, integers, wide, g), "float32")
    else:
        run = on_device(problem, setup, integers)
    others = [tensor for name, tensor in weights.tensors().items() if name not in IN_8_BIT]
    return holding(run, *(t for matrix in integers.by_name.values() for t in (matrix.values, matrix.scales)), *others)


def linears(problem: Layer, integers: Matrices, weights: LayerWeights, g: Graph) -> Linear:
    """The layer's matrices as nodes of integer products; q, k and v share what quantizing x gave."""
    biases = {which: bias for which, (_, bias) in projections(problem, weights).items()}
    biases |= {"w1": weights.b1, "w2": weights.b2, "w_gate": weights.b_gate}
    matrix = dict(zip("qkv", integers.apart(problem), strict=True)) | integers.by_name | {"out": integers.by_name["w_out"]}
    return lambda x, which: g.int8_linear(x, matrix[which], biases[which])


def on_device(problem: Layer, setup: Setup, integers: Matrices) -> Run:
    """The run on our Triton kernels; in Triton's interpreter on a CPU."""
    from ..feedforward._fused_triton import card_of
    from ..feedforward._int8_launch import linear_int8, padded, quantize_rows

    weights: LayerWeights = setup.weights.map(torch.Tensor.contiguous)
    w_qkv, w_out = (padded(integers.by_name[name]) for name in ("w_qkv", "w_out"))
    network, card = problem.feedforward, card_of(setup.device)
    fed = feedforward.launched(network, problem.network(weights), integers.network, card)

    def project_in(x: torch.Tensor, norm: Norm) -> torch.Tensor:
        weight, bias = norm or (None, None)
        rows = quantize_rows(x, norm_weight=weight, norm_bias=bias, epsilon=problem.norm_epsilon)
        return linear_int8(*rows, w_qkv, weights.b_qkv, out_dtype=x.dtype)

    def project_out(attended: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return linear_int8(*quantize_rows(attended), w_out, weights.b_out, residual=x, out_dtype=x.dtype)

    attend = build_attention(ATTENTION, problem.attention, setup)
    return launched(problem, setup, weights, Parts(project_in, attend, project_out, lambda z: fed(FeedForwardInputs(x=z))))
