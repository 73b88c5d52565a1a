"""Putting a layer together from kernels of attention and of feed-forward networks, found by name."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch

from ..feedforward.problem import FeedForwardInputs
from ..registry import Kernel

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..registry import Device, Problem, Run, Setup
    from .problem import Layer, LayerInputs, LayerWeights


def part(name: str) -> Kernel:
    """The kernel of that name ("attention/sdpa"), from the module of its family."""
    operator, _, family = name.partition("/")
    module = import_module(f"...{operator}.{family}", __name__)
    return next(item for item in vars(module).values() if isinstance(item, Kernel) and item.name == name)


def refusal_of(attention: Kernel, feedforward: Kernel) -> Callable[[Layer, Device], str | None]:
    """A `refuses` that asks the parts."""

    def refuses(problem: Layer, device: Device) -> str | None:
        parts: tuple[tuple[Kernel, Problem], ...] = ((attention, problem.attention), (feedforward, problem.feedforward))
        for kernel, inner in parts:
            if sentence := kernel.why_not(inner, device):
                return f"its {kernel.name} {sentence}"
        return None

    return refuses


def build_attention(kernel: Kernel, problem: Problem, setup: Setup) -> Run:
    """The attention of a layer, built with calibration inputs of its own: those of the layer are not q, k and v."""
    calibration = problem.inputs(setup.seed, setup.device)
    return kernel.build(problem, replace(setup, weights=None, calibration=calibration))


def composed(
    problem: Layer, setup: Setup, attention: Kernel, feedforward: Kernel, weights: LayerWeights | None = None, **steps: Any
) -> Callable[[LayerInputs], torch.Tensor]:
    """The layer's run with these two inside; `weights` other than the setup's may have fewer heads and neurons.

    `steps`: others than the plain ones of `Layer.formula`.
    """
    own: LayerWeights = weights or setup.weights
    attend = build_attention(attention, problem.attention_of(own.w_out.shape[1] // problem.head_dim), setup)
    feed = build_network(feedforward, problem, setup, own)
    if problem.rope_theta:
        steps = {"rotation": problem.rotation(setup.device, getattr(torch, problem.dtype)), **steps}

    def run(inputs: LayerInputs) -> torch.Tensor:
        return problem.formula(inputs, own, attend=attend, feed=feed, **steps)

    return run


def build_network(kernel: Kernel, problem: Layer, setup: Setup, weights: LayerWeights) -> Callable[[torch.Tensor], torch.Tensor]:
    """The feed-forward network of a layer, with its residual, and with its norm where that comes first.

    Its calibration inputs are of its own: those of the layer are not what reaches it.
    """
    network = problem.feedforward_of(weights.w1.shape[0])
    calibration = network.inputs(setup.seed, setup.device)
    feed = kernel.build(network, replace(setup, weights=problem.network(weights), calibration=calibration))
    return lambda z: feed(FeedForwardInputs(x=z))
