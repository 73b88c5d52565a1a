"""Building networks of 8-bit integers, of whichever weights: what they claim, what they do not take, what they are seen to run.

On a CPU ONNX Runtime does it, with one scale per tensor: it fuses quantizing, product and scaling. On a GPU it is our Triton
kernels, with a scale per token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .._cards import Card
from .._identity import integer_products, triton_kernels
from .._int8 import rounded_per_tensor, rounded_per_token, weight_levels
from .._onnxgraph import Graph
from ..registry import Device, Run, Setup, Trace
from . import _int8_code, _int8_device, _int8_tuning
from ._int8_network import Matrices, claimed, keeping, matrices, stored_in
from ._onnx import finished, graph_run, network
from .problem import FeedForward, FeedForwardInputs, FeedForwardWeights

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._code import Configuration
    from .._onnxsession import Written


def levels(device: torch.device) -> int:
    """Of weights, with which the products of the device are exact."""
    return weight_levels(device) if device.type == "cpu" else _int8_device.levels(device)


def claim_for(problem: FeedForward, weights: FeedForwardWeights, inputs: FeedForwardInputs, device: torch.device) -> torch.Tensor:
    """The network in float64 on these weights, rounded, with activations rounded as the kernel does."""
    if device.type == "cpu":
        return claimed(problem, weights, inputs, levels(device), rounded_per_tensor)
    return claim_on_device(problem, weights, inputs, levels(device))


def claim_on_device(problem: FeedForward, weights: FeedForwardWeights, inputs: FeedForwardInputs, levels: int) -> torch.Tensor:
    """The same of our Triton kernels: hidden activations are stored in the problem's dtype before they are quantized."""
    return claimed(problem, weights, inputs, levels, rounded_per_token, stored_in(inputs.x.dtype, rounded_per_token))


def refusal(problem: FeedForward, device: Device) -> str | None:
    """On a GPU: what its kernels are not written for."""
    return _int8_device.refusal(problem, device) if device.kind == "cuda" else None


def ran(problem: FeedForward, setup: Setup, trace: Trace) -> str:
    """The judge of its identity; on a GPU it says which tiles it was built with and who chose them."""
    if setup.device.type == "cpu":
        return integer_products(3 if problem.gated else 2)(problem, setup, trace)
    found = triton_kernels(*_int8_device.KERNELS, alone=True)(problem, setup, trace)
    return f"{found} {form(problem, Card.of(setup.device))}" if trace.device_watched else found


def form(problem: FeedForward, card: Card) -> str:
    """How the products are cut on a card: "128×256×128 w8 s3, default" for W1, and for W2 if that is another."""
    return " and ".join(dict.fromkeys(str(chosen) for chosen in _int8_tuning.chosen(problem, card)))


def device_code(capability: tuple[int, int]) -> Iterator[Configuration]:
    """Every form in which its kernels may be launched on a card."""
    yield from _int8_code.configurations(capability)
    yield from _int8_tuning.stored(capability)


def build(problem: FeedForward, setup: Setup, weights: FeedForwardWeights) -> Run:
    """The kernel for these weights, which need not be the problem's own."""
    integers = matrices(weights, levels(setup.device))
    if setup.device.type == "cpu":
        weights = weights.map(torch.Tensor.float)
        return keeping(graph_run(problem, setup, graph(problem, weights, integers)), integers, weights)
    run = launched(problem, weights, integers, Card.of(setup.device))
    if setup.calibration is not None:
        run(setup.calibration)
    return run


def launched(problem: FeedForward, weights: FeedForwardWeights, integers: Matrices, card: Card) -> Run:
    """The run on our Triton kernels; in Triton's interpreter on a CPU."""
    from ._int8_launch import padded

    weights, integers = weights.map(torch.Tensor.contiguous), integers.map(padded)
    return keeping(_int8_device.launched(problem, weights, integers, card), integers, weights)


def graph(problem: FeedForward, weights: FeedForwardWeights, integers: Matrices) -> Written:
    """[tokens, dim] -> [tokens, dim]; everything that is not an integer is float32 inside."""
    g = Graph()
    wide = weights.map(torch.Tensor.float)
    biased = {"w1": (integers.w1, wide.b1), "w2": (integers.w2, wide.b2)}
    if integers.w_gate is not None:
        biased["w_gate"] = (integers.w_gate, wide.b_gate)
    x = "x" if problem.dtype == "float32" else g.cast("x", "float32")
    y = network(g, problem, wide, x, lambda x, which: g.int8_linear(x, *biased[which]))
    return finished(g, problem, y if problem.dtype == "float32" else g.cast(y, problem.dtype))
