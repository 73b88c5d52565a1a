"""2:4 semi-structured pruning: of four neighbouring weights of a row two stay, which the tensor cores of a GPU skip by themselves."""

from __future__ import annotations

import warnings
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812

from .._cudagraph import recorded
from .._identity import sparse_products
from ..registry import Device, Kernel, Run, Setup, holding, kernel
from ._neurons import operand_norms
from .problem import EVERYTHING, FeedForward, FeedForwardInputs, FeedForwardWeights, activate

if TYPE_CHECKING:
    from collections.abc import Callable

    Factors = Callable[[FeedForward, Setup], tuple[torch.Tensor, torch.Tensor]]
    """What the size of a weight is multiplied by to tell how much it counts: [dim] for W1 and the gate, [hidden_dim] for W2."""

GROUP, KEPT = 4, 2
MULTIPLE = 16
"""Rows and columns of a sparse matrix in 16 bit, as cuSPARSELt takes them."""
MATRICES = ("w1", "w_gate", "w2")


def by_weights(problem: FeedForward, setup: Setup) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight counts as much as it is large."""
    return setup.weights.w1.new_ones(problem.dim), setup.weights.w1.new_ones(problem.hidden_dim)


def by_activations(problem: FeedForward, setup: Setup) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight counts as its size times the norm of what it meets over the calibration inputs: Wanda, arXiv 2306.11695."""
    return operand_norms(problem, setup.weights, setup.calibration or problem.inputs(setup.seed, setup.device))


def two_of_four(scores: torch.Tensor) -> torch.Tensor:
    """bool, of the shape of scores [rows, columns]: true for the two largest of each four neighbours, the earlier of equals."""
    order = scores.view(scores.shape[0], -1, GROUP).argsort(dim=2, descending=True, stable=True)
    mask = torch.zeros_like(order, dtype=torch.bool).scatter_(2, order[..., :KEPT], value=True)
    return mask.view(scores.shape)


def sparse_weights(problem: FeedForward, setup: Setup, factors: Factors = by_weights) -> FeedForwardWeights:
    """The network with zeros where weights go, in matrices of the old size."""
    weights: FeedForwardWeights = setup.weights
    first, second = (factor.double() for factor in factors(problem, setup))
    met = {"w1": first, "w_gate": first, "w2": second}
    dense = {name: tensor for name, tensor in weights.tensors().items() if name in MATRICES}
    return weights.replace(**{name: tensor * two_of_four(tensor.double().abs() * met[name]) for name, tensor in dense.items()})


def claim(problem: FeedForward, setup: Setup, inputs: FeedForwardInputs, factors: Factors = by_weights) -> torch.Tensor:
    """The network of the weights that stay, in float64."""
    return problem.reference(inputs, sparse_weights(problem, setup, factors))


def refusal(problem: FeedForward, device: Device) -> str | None:
    """Tensor cores that skip zeros came with compute capability 8.0."""
    if device.capability is not None and device.capability < (8, 0):
        return f"needs the sparse tensor cores of compute capability 8.0, not {device.capability[0]}.{device.capability[1]}"
    if problem.dim % MULTIPLE or problem.hidden_dim % MULTIPLE:
        return f"takes sizes that are multiples of {MULTIPLE}, not dim {problem.dim} and hidden_dim {problem.hidden_dim}"
    return None


def compressed(matrix: torch.Tensor) -> torch.Tensor:
    """A matrix with two zeros among each four neighbours of a row, in half of the memory and a 16th for the places."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The PyTorch API of SparseSemiStructuredTensor is in prototype stage")
        sparse: torch.Tensor = torch.sparse.to_sparse_semi_structured(matrix.contiguous())
    return sparse


def stored(sparse: torch.Tensor) -> list[torch.Tensor]:
    """The tensors that a compressed matrix is kept in."""
    names, _ = sparse.__tensor_flatten__()  # type: ignore[attr-defined]
    return [getattr(sparse, name) for name in names]


def forward(problem: FeedForward, x: torch.Tensor, weights: FeedForwardWeights) -> torch.Tensor:
    """The formula for tokens x [tokens, dim]; compressed matrices take two dimensions only."""
    h = problem.normalize(x, weights)
    a = F.linear(h, weights.w1, weights.b1)
    if weights.w_gate is None:
        a = activate(problem.activation, a)
    else:
        a = activate(problem.activation, F.linear(h, weights.w_gate, weights.b_gate)) * a
    y = F.linear(a, weights.w2, weights.b2)
    return x + y if problem.residual else y


def keeping(name: str, factors: Factors, summary: str) -> Kernel:
    """The kernel that keeps two of four weights, those that count most by their size and these factors."""

    def build(problem: FeedForward, setup: Setup) -> Run:
        weights = sparse_weights(problem, setup, factors)
        matrices = {name: compressed(tensor) for name, tensor in weights.tensors().items() if name in MATRICES}
        weights = weights.replace(**matrices)
        example = (setup.calibration or problem.inputs(setup.seed, setup.device)).x.reshape(-1, problem.dim)
        replayed = recorded(lambda x: forward(problem, x, weights), example)

        def run(inputs: FeedForwardInputs) -> torch.Tensor:
            return replayed(inputs.x.reshape(-1, problem.dim)).view(inputs.x.shape)

        others = [tensor for name, tensor in weights.tensors().items() if name not in MATRICES]
        return holding(run, *(part for matrix in matrices.values() for part in stored(matrix)), *others)

    build.__doc__ = summary
    return kernel(
        FeedForward,
        name=name,
        family="pruned",
        devices=("cuda",),
        dtypes=("bfloat16", "float16"),
        accepts=EVERYTHING,
        approximate=True,
        claim=partial(claim, factors=factors),
        refuses=refusal,
        identified=sparse_products(lambda problem: 3 if problem.gated else 2),
    )(build)


sparse_24 = keeping(
    "sparse_24",
    by_weights,
    """Two of four neighbouring weights, the larger ones, by torch's 2:4 sparse products in a CUDA graph.

    Copying inputs into the graph and the result out of it is timed; what lies between is allocated in the build.
    """,
)
sparse_24_activations = keeping(
    "sparse_24_activations",
    by_activations,
    "Two of four neighbouring weights, those that weigh most with the calibration inputs (Wanda), by the same products.",
)
