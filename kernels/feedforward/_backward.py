"""Right gradients of the feed-forward network, and its tokens in another order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ..registry import Gradients

if TYPE_CHECKING:
    from .problem import FeedForward, FeedForwardInputs, FeedForwardWeights

BLOCK_HIDDEN = 2**23
"""Hidden activations of one block of tokens in float64: autograd keeps several of each."""


def gradients(problem: FeedForward, inputs: FeedForwardInputs, weights: FeedForwardWeights, *, naive: bool = False) -> Gradients:
    """Output and gradients of x and of every weight for `inputs.grad`, in float64 or, if `naive`, in the problem's own dtype.

    Torch's autograd of the formula: in blocks of tokens, whose gradients of the weights are added up, or, if `naive`, of all at once.
    Raises ValueError when the inputs hold no gradient of the output.
    """
    if inputs.grad is None:
        raise ValueError("the inputs hold no grad: draw them from a problem with direction backward")
    dtype = getattr(torch, problem.dtype) if naive else torch.float64
    given = weights.map(lambda tensor: tensor.detach().to(dtype).requires_grad_())
    x, grad = (problem.asked(tensor).reshape(-1, problem.dim) for tensor in (inputs.x, inputs.grad))
    step = len(x) if naive else max(1, BLOCK_HIDDEN // weights.w1.shape[0])
    found = {name: torch.zeros_like(tensor) for name, tensor in given.differentiated.items()}
    outputs, of_x = [], []
    for block, above in zip(torch.split(x, step), torch.split(grad, step), strict=True):
        with torch.enable_grad():
            leaf = block.detach().to(dtype).requires_grad_()
            output = problem.formula(leaf, given)
        mine, *theirs = torch.autograd.grad(output, [leaf, *given.differentiated.values()], above.to(dtype))
        outputs.append(output.detach())
        of_x.append(mine)
        for name, value in zip(found, theirs, strict=True):
            found[name] += value
    shape = problem.asked(inputs.x).shape
    return Gradients(torch.cat(outputs).view(shape), {"x": torch.cat(of_x).view(shape), **found})


KINK_ULPS = 32.0
"""Of float32: so near to 0 the sign of what a ReLU sees depends on the order of a sum."""


def decided(problem: FeedForward, inputs: FeedForwardInputs, weights: FeedForwardWeights) -> FeedForwardInputs:
    """The inputs with a gradient of 0 for tokens at which rounding decides whether a ReLU lets a gradient through.

    One neuron more or less is no rounding error of its gradients. In 16 bit it happens in many tokens and to the plain formula as well,
    so that it is within the yardstick; in float32 it happens in few, which are left out.
    """
    if problem.activation != "relu" or problem.dtype != "float32" or inputs.grad is None:
        return inputs
    wide = weights.map(torch.Tensor.double)
    first, bias = (wide.w1, wide.b1) if wide.w_gate is None else (wide.w_gate, wide.b_gate)
    near = []
    step = max(1, BLOCK_HIDDEN // len(first))
    for block in torch.split(problem.asked(inputs.x).reshape(-1, problem.dim), step):
        before = torch.nn.functional.linear(problem.normalize(block.double(), wide), first, bias)
        size = before.square().mean(-1, keepdim=True).sqrt()
        near.append((before.abs() < KINK_ULPS * torch.finfo(torch.float32).eps * size).any(-1))
    grad = inputs.grad.clone()
    rows = slice(None) if problem.rows is None else problem.rows
    chosen = grad[:, rows]
    grad[:, rows] = chosen.masked_fill(torch.cat(near).view(chosen.shape[:2])[..., None], 0.0)
    return inputs.replace(grad=grad)


def reordered(tensor: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """[batch, seq_len, dim] with the tokens of all batch rows in this order."""
    return tensor.reshape(-1, tensor.shape[-1])[order].view(tensor.shape)


def turned_back(answer: Any, back: torch.Tensor) -> Any:
    """The answer for tokens in another order, in their own; gradients of weights are sums over all tokens, whatever their order."""
    if not isinstance(answer, Gradients):
        return reordered(answer, back)
    return Gradients(reordered(answer.output, back), {**answer.by_name, "x": reordered(answer.by_name["x"], back)})
