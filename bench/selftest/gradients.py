"""Attention whose output is right and whose gradients are not: the backward pass written out, one step replaced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from kerneldyno.kernels.registry import Gradients

from .attention_places import LAST_ROWS, SHORT, in_both
from .attention_steps import TILE, softmax, spread
from .plants import Plant, planted

if TYPE_CHECKING:
    from kerneldyno.kernels.attention.problem import Attention, AttentionInputs
    from kerneldyno.kernels.registry import Run, Setup

Change = Callable[["Attention", torch.Tensor], torch.Tensor]
Pair = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def same(_: Attention, tensor: torch.Tensor) -> torch.Tensor:
    """Nothing is changed."""
    return tensor


def gathered(problem: Attention, gradient: torch.Tensor) -> torch.Tensor:
    """[batch, heads, …] -> [batch, kv_heads, …]: a shared key gets the sum of its heads' gradients."""
    return gradient.view(gradient.shape[0], problem.kv_heads, problem.group, *gradient.shape[2:]).sum(2)


def softmax_gradient(weights: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """From the gradient of the weights to that of the scores."""
    return weights * (gradient - (weights * gradient).sum(-1, keepdim=True))


@dataclass(frozen=True)
class Backward:
    """The steps of the backward pass; all of them right unless replaced."""

    seen: Change = same
    """The output's gradient, as it is read."""
    weights: Change = same
    """The softmax's weights, as they are computed again."""
    softmax_gradient: Pair = softmax_gradient
    scores: Change = same
    """The gradient of the scores, on its way to q and k."""
    gathered: Change = gathered
    finished: dict[str, Change] = field(default_factory=dict)
    """Changes of whole gradients, by the name of the input."""

    def build(self, problem: Attention, setup: Setup) -> Run:  # noqa: ARG002
        """What a kernel's build function does."""
        dtype = getattr(torch, problem.dtype)

        def run(inputs: AttentionInputs) -> Gradients:
            q, k, v = inputs.q.float(), spread(problem, inputs.k.float()), spread(problem, inputs.v.float())
            right = softmax((q @ k.mT) * problem.scale, problem.visible(inputs))
            weights, grad = self.weights(problem, right), self.seen(problem, inputs.grad.float())  # type: ignore[union-attr]
            scores = self.scores(problem, self.softmax_gradient(weights, grad @ v.mT) * problem.scale)
            found = {
                "q": scores @ k,
                "k": self.gathered(problem, scores.mT @ q),
                "v": self.gathered(problem, weights.mT @ grad),
            }
            by_name = {name: self.finished.get(name, same)(problem, value).to(dtype) for name, value in found.items()}
            return Gradients((right @ v).to(dtype), by_name)

        return run


def without_tile(_: Attention, gradient: torch.Tensor) -> torch.Tensor:
    """The first tile of keys gets nothing, and gives nothing."""
    return gradient * (torch.arange(gradient.shape[-1], device=gradient.device) >= TILE)


def last_rows_zero(_: Attention, gradient: torch.Tensor) -> torch.Tensor:
    """Rows after the last whole tile are not written."""
    whole = gradient.shape[-2] - gradient.shape[-2] % TILE
    return gradient * (torch.arange(gradient.shape[-2], device=gradient.device) < whole)[:, None]


def first_of_group(problem: Attention, gradient: torch.Tensor) -> torch.Tensor:
    """A shared key gets the gradient of the last head that wrote, not the sum."""
    return gradient.view(gradient.shape[0], problem.kv_heads, problem.group, *gradient.shape[2:])[:, :, -1]


def places(*, grouped: bool = False) -> list[Attention]:
    """Short ones, and the last rows of a long context."""
    short = [replace(p, causal=causal, direction="backward") for causal in (False, True) for p in in_both(SHORT)]
    if grouped:
        return [replace(p, heads=8, kv_heads=2) for p in short]
    long = replace(LAST_ROWS, kv_len=8192, causal=True, direction="backward")
    return [*short, *in_both(long)]


def off(name: str, change: Change) -> Backward:
    """One gradient is changed after all is computed."""
    return Backward(finished={name: change})


def plants() -> list[Plant]:
    """All of them, and the right backward pass at the same places."""
    unscaled = off("q", lambda p, g: g / p.scale)
    ones = Backward(seen=lambda _, g: torch.ones_like(g))
    no_sum = Backward(softmax_gradient=lambda weights, gradient: weights * gradient)
    made = {
        "gradient of q without the scale": unscaled,
        "gradient of k without the scale": off("k", lambda p, g: g / p.scale),
        "gradients of q and k miss a tile of keys": Backward(scores=without_tile),
        "gradient of v from the weights of the next row": Backward(weights=lambda _, w: w.roll(1, -2)),
        "softmax's own gradient without the sum": no_sum,
        "gradient of the output taken for ones": ones,
        "gradient of another row": Backward(seen=lambda _, g: g.roll(1, -2)),
        "gradients zero": Backward(seen=lambda _, g: torch.zeros_like(g)),
        "gradients × 1.05": Backward(seen=lambda _, g: g * 1.05),
        "gradient of k negative": off("k", lambda _, g: -g),
        "last tile of the gradient of q not written": off("q", last_rows_zero),
        "last tile of the gradient of v not written": off("v", last_rows_zero),
        "gradient of v in one batch row of the other": off("v", lambda _, g: g.roll(1, 0)),
        "gradient of k in bfloat16 steps": off("k", lambda _, g: g.to(torch.bfloat16).float()),
    }
    found = [planted("right, backward", Backward().build, [*places(), *places(grouped=True)], right=True, gradients="kernel")]
    for title, steps in made.items():
        at = [p for p in places() if p.batch > 1] if "batch row" in title else places()
        if "bfloat16" in title:
            at = [p for p in at if p.dtype == "float32"]
        found.append(planted(title, steps.build, at, gradients="kernel"))
    summed = Backward(gathered=first_of_group)
    found.append(planted("gradients of a group not summed", summed.build, places(grouped=True), gradients="kernel"))
    return found
