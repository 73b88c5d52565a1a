"""Gradients: what a kernel answers in direction "backward", and how torch.autograd finds them for one that does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from .contract import Inputs, Run


@dataclass(frozen=True)
class Gradients:
    """What a kernel returns in direction "backward": its output and the gradient of every differentiable input."""

    output: torch.Tensor
    by_name: dict[str, torch.Tensor]


def differentiated(run: Run) -> Run:
    """A forward and a backward pass through `run` by torch.autograd, for the gradient `inputs.grad` of its output."""

    def forward_backward(inputs: Inputs) -> Gradients:
        import torch

        with torch.enable_grad():
            leaves = {name: getattr(inputs, name).detach().requires_grad_() for name in inputs.differentiable}
            output = run(inputs.replace(**leaves))
            found = torch.autograd.grad(output, list(leaves.values()), inputs.grad)
        return Gradients(output.detach(), dict(zip(leaves, found, strict=True)))

    return forward_backward
