"""Feed-forward networks whose output is right and whose gradients are not: the backward pass written out, one step replaced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812

from kerneldyno.kernels.feedforward.problem import FeedForward, activate
from kerneldyno.kernels.registry import Gradients

from .attention_masks import there
from .feedforward_steps import normalized
from .plants import Plant, in_dtypes, planted

if TYPE_CHECKING:
    from kerneldyno.kernels.feedforward.problem import FeedForwardInputs, FeedForwardWeights
    from kerneldyno.kernels.registry import Run, Setup

Change = Callable[[torch.Tensor], torch.Tensor]
TILE = 64
SHORT = FeedForward(batch=2, seq_len=150, dim=96, hidden_dim=208, residual=True, direction="backward")
GATED = replace(SHORT, activation="silu", norm="rmsnorm", gated=True)
LONG = replace(GATED, batch=1, seq_len=4096, dim=128, hidden_dim=256, dtype="bfloat16")


def same(tensor: torch.Tensor) -> torch.Tensor:
    """Nothing is changed."""
    return tensor


def slope(problem: FeedForward, x: torch.Tensor) -> torch.Tensor:
    """The activation's derivative."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        (found,) = torch.autograd.grad(activate(problem.activation, leaf).sum(), leaf)
    return found


def through_norm(problem: FeedForward, x: torch.Tensor, weights: FeedForwardWeights, grad: torch.Tensor) -> dict[str, torch.Tensor]:
    """Gradients of x and of the norm's weights from that of what the norm gives."""
    if problem.norm == "none":
        return {"x": grad}
    with torch.enable_grad():
        names = [name for name in ("norm_weight", "norm_bias") if getattr(weights, name) is not None]
        leaves = [tensor.detach().requires_grad_() for tensor in (x, *(getattr(weights, name) for name in names))]
        h = normalized(problem, leaves[0], weights.replace(**dict(zip(names, leaves[1:], strict=True))))
    return dict(zip(["x", *names], torch.autograd.grad(h, leaves, grad), strict=True))


@dataclass(frozen=True)
class Backward:
    """The steps of the backward pass; all of them right unless replaced."""

    seen: Change = same
    """The output's gradient [tokens, dim], as it is read."""
    slope: Callable[[FeedForward, torch.Tensor], torch.Tensor] = slope
    of_gate: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = torch.mul
    """(gradient of the activated hidden neurons, W1's product) -> the gradient of what the gate lets through."""
    of_up: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = torch.mul
    """(the same, the activated gate) -> the gradient of W1's product."""
    back: Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor] = lambda up, gate: up if gate is None else up + gate
    """What comes back to the norm, from W1 and from the gate."""
    through_norm: Callable[[FeedForward, torch.Tensor, FeedForwardWeights, torch.Tensor], dict[str, torch.Tensor]] = through_norm
    residual: Change = same
    """What the residual adds to the gradient of x."""
    tokens: Change = same
    """Rows [tokens, …] that gradients of matrices and biases are summed over, in what comes from above."""
    finished: dict[str, Change] = field(default_factory=dict)
    """Changes of whole gradients, by name."""

    def build(self, problem: FeedForward, setup: Setup) -> Run:
        """What a kernel's build function does."""
        dtype = getattr(torch, problem.dtype)

        def run(inputs: FeedForwardInputs) -> Gradients:
            weights = setup.weights.map(torch.Tensor.float)
            x = inputs.x.reshape(-1, problem.dim).float()
            grad = self.seen(inputs.grad.reshape(-1, problem.dim).float())  # type: ignore[union-attr]
            output, found = self._passes(problem, weights, x, grad)
            found = {name: self.finished.get(name, same)(value).to(dtype) for name, value in found.items()}
            found["x"] = found["x"].view(inputs.x.shape)
            return Gradients(output.to(dtype).view(inputs.x.shape), found)

        return run

    def _passes(
        self, problem: FeedForward, weights: FeedForwardWeights, x: torch.Tensor, grad: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        h = normalized(problem, x, weights)
        up = F.linear(h, weights.w1, weights.b1)
        gate = None if weights.w_gate is None else F.linear(h, weights.w_gate, weights.b_gate)
        a = activate(problem.activation, up) if gate is None else activate(problem.activation, gate) * up
        y = F.linear(a, weights.w2, weights.b2)
        of_a, of_gate = grad @ weights.w2, None
        if gate is None or weights.w_gate is None:
            of_up = of_a * self.slope(problem, up)
        else:
            of_gate = self.of_gate(of_a, up) * self.slope(problem, gate)
            of_up = self.of_up(of_a, activate(problem.activation, gate))
        found = _of_matrix("w2", "b2", weights, self.tokens(grad), a) | _of_matrix("w1", "b1", weights, self.tokens(of_up), h)
        if of_gate is not None:
            found |= _of_matrix("w_gate", "b_gate", weights, self.tokens(of_gate), h)
        of_h = self.back(of_up @ weights.w1, None if of_gate is None else of_gate @ weights.w_gate)  # type: ignore[operator]
        found |= self.through_norm(problem, x, weights, of_h)
        if problem.residual:
            y, found["x"] = x + y, found["x"] + self.residual(grad)
        return y, found


def _of_matrix(matrix: str, bias: str, weights: FeedForwardWeights, grad: torch.Tensor, given: torch.Tensor) -> dict[str, torch.Tensor]:
    found = {matrix: grad.mT @ given}
    return found if getattr(weights, bias) is None else found | {bias: grad.sum(0)}


def no_last_tile(grad: torch.Tensor) -> torch.Tensor:
    """Tokens after the last whole tile are left out of sums."""
    return grad * (torch.arange(len(grad), device=grad.device) < len(grad) // TILE * TILE)[:, None]


def without_statistics(problem: FeedForward, x: torch.Tensor, weights: FeedForwardWeights, grad: torch.Tensor) -> dict[str, torch.Tensor]:
    """The norm's mean and variance are taken for constants."""
    found = through_norm(problem, x, weights, grad)
    mean = x.mean(-1, keepdim=True) if problem.norm == "layernorm" else torch.zeros_like(x[:, :1])
    scale = torch.rsqrt((x - mean).square().mean(-1, keepdim=True) + problem.norm_epsilon)
    return {**found, "x": grad * there(weights.norm_weight) * scale}


def off(name: str, change: Change) -> Backward:
    """One gradient is changed after all is computed."""
    return Backward(finished={name: change})


def zero(grad: torch.Tensor) -> torch.Tensor:
    """Nothing is left of it."""
    return torch.zeros_like(grad)


def places(*, gated: bool = False) -> list[FeedForward]:
    """A short problem in two precisions, and a long one."""
    return [*in_dtypes(GATED if gated else SHORT, "float32", "bfloat16"), LONG]


def _made() -> dict[str, tuple[Backward, Sequence[FeedForward]]]:
    square = in_dtypes(replace(SHORT, dim=128, hidden_dim=128), "float32", "bfloat16")
    either, gated, single = places(), places(gated=True), in_dtypes(SHORT, "float32")
    return {
        "gradient of the first bias forgotten": (off("b1", zero), either),
        "gradient of the second bias forgotten": (off("b2", zero), either),
        "gradient of the gate's bias forgotten": (off("b_gate", zero), gated),
        "gradient of the first matrix transposed": (off("w1", lambda g: g.mT.contiguous()), square),
        "gradient of the second matrix negative": (off("w2", torch.neg), either),
        "gradient of the first matrix × 1.05": (off("w1", lambda g: g * 1.05), either),
        "gradient of the first matrix in bfloat16 steps": (off("w1", lambda g: g.bfloat16().float()), single),
        "gradient of the norm's weight forgotten": (off("norm_weight", zero), either),
        "gradient of the norm's bias forgotten": (off("norm_bias", zero), in_dtypes(SHORT, "float32", "bfloat16")),
        "gradient of the activation forgotten": (Backward(slope=lambda _, x: torch.ones_like(x)), either),
        "gradient of the gate's activation forgotten": (Backward(slope=lambda _, x: torch.ones_like(x)), gated),
        "gradient of the gate without the other product": (Backward(of_gate=lambda of_a, _: of_a), gated),
        "gradient of the first matrix without the gate": (Backward(of_up=lambda of_a, _: of_a), gated),
        "gradient of x without what comes through the gate": (Backward(back=lambda up, _: up), gated),
        "gradient of the residual forgotten": (Backward(residual=zero), either),
        "gradient of x through constant statistics": (Backward(through_norm=without_statistics), either),
        "gradients of weights miss the last tile of tokens": (Backward(tokens=no_last_tile), [*single, GATED]),
        "gradients of weights from another token": (Backward(tokens=lambda g: g.roll(1, 0)), either),
        "gradient of the output taken for ones, network": (Backward(seen=torch.ones_like), either),
        "gradients zero, network": (Backward(seen=zero), either),
    }


def plants() -> list[Plant]:
    """All of them, and the right backward pass at the same places."""
    found = [planted("right network, backward", Backward().build, [*places(), *places(gated=True)[:2]], right=True, gradients="kernel")]
    found += [planted(title, steps.build, at, gradients="kernel") for title, (steps, at) in _made().items()]
    return found
