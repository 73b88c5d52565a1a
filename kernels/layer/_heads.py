"""A layer with some of its heads taken out of its matrices, and what the heads are chosen by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._pruning import row_norms

if TYPE_CHECKING:
    import torch

    from ..attention.problem import AttentionInputs
    from .problem import Layer, LayerInputs, LayerWeights


def of_heads(problem: Layer, weights: LayerWeights, heads: torch.Tensor) -> LayerWeights:
    """The layer of these heads: their rows of q, k and v, and their columns of the output projection, in smaller matrices."""

    def rows(matrix: torch.Tensor, groups: int) -> torch.Tensor:
        return matrix.view(groups, problem.heads, problem.head_dim, *matrix.shape[1:])[:, heads].flatten(0, 2).contiguous()

    return weights.replace(
        w_qkv=rows(weights.w_qkv, 3),
        b_qkv=rows(weights.b_qkv, 3),
        w_out=rows(weights.w_out.t().contiguous(), 1).t().contiguous(),
    )


def magnitudes(problem: Layer, weights: LayerWeights) -> torch.Tensor:
    """float32 [heads]: the norms of each head's rows of the values' matrix and of its columns of the output projection, multiplied."""
    size = problem.head_dim * problem.dim
    values = weights.w_qkv.chunk(3)[2]
    return row_norms(values.reshape(-1, size)) * row_norms(weights.w_out.t().reshape(-1, size))


def contributions(problem: Layer, weights: LayerWeights, inputs: LayerInputs) -> torch.Tensor:
    """float64 [heads]: the norm, over the inputs' tokens, of what each head adds to the output of the attention.

    That is the head's output times its columns of the output projection: as Wanda (arXiv 2306.11695) does with single weights,
    activations are weighed in, from a forward pass alone. Michel et al. (arXiv 1905.10650) prune heads by the gradient of a loss,
    which a layer by itself has none of.
    """
    problem = problem.at(None)  # whichever rows are asked for, all tokens count
    attended: list[torch.Tensor] = []

    def attend(given: AttentionInputs) -> torch.Tensor:
        attended.append(problem.attention.reference(given))
        return attended[0]

    wide = weights.map(lambda tensor: tensor.double())
    problem.formula(inputs.replace(x=inputs.x.double()), wide, attend=attend, feed=lambda z: z)
    output = attended[0].transpose(1, 2)  # [batch, seq_len, heads, head_dim]
    if inputs.lengths is not None:
        output = output * problem.attention.padding_mask(inputs.lengths)[:, 0, 0, :, None, None]
    columns = wide.w_out.view(problem.dim, problem.heads, problem.head_dim)
    added = [output[:, :, head] @ columns[:, head].t() for head in range(problem.heads)]
    return added[0].new_tensor([float(part.norm()) for part in added])
