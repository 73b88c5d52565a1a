"""Gradients: what a kernel answers in direction "backward", and how torch.autograd finds them for one that does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from .contract import Inputs, Run, Weights


@dataclass(frozen=True)
class Gradients:
    """What a kernel returns in direction "backward": its output and the gradient of every differentiable input and weight."""

    output: torch.Tensor
    by_name: dict[str, torch.Tensor]


def leaves(weights: Weights) -> Weights:
    """The same weights in the same memory, for `run` to be built with where it is to be differentiated; None stays None."""
    return None if weights is None else weights.map(lambda tensor: tensor.detach().requires_grad_())


def differentiated(run: Run, weights: Weights = None) -> Run:
    """A forward and a backward pass through `run` by torch.autograd, for the gradient `inputs.grad` of its output.

    `weights`: the `leaves` that `run` was built with, whose gradients are wanted, too.
    """

    def forward_backward(inputs: Inputs) -> Gradients:
        import torch

        with torch.enable_grad():
            given = {name: tensor.detach().requires_grad_() for name, tensor in inputs.differentiated.items()}
            output = run(inputs.replace(**given))
            wanted = given | ({} if weights is None else weights.differentiated)
            found = torch.autograd.grad(output, list(wanted.values()), inputs.grad)
        # the gradient of what is only added may be the output's own, in the caller's memory
        theirs = inputs.grad.untyped_storage().data_ptr()
        own = [tensor.clone() if tensor.untyped_storage().data_ptr() == theirs else tensor for tensor in found]
        return Gradients(output.detach(), dict(zip(wanted, own, strict=True)))

    return forward_backward
