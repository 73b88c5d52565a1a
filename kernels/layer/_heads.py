"""A layer with some of its heads taken out of its matrices, and what the heads are chosen by.

Heads that share a key-value head go together: what is chosen are key-value heads, each with its group of query heads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .._pruning import row_norms

if TYPE_CHECKING:
    from ..attention.problem import AttentionInputs
    from .problem import Layer, LayerInputs, LayerWeights


def of_groups(problem: Layer, weights: LayerWeights, groups: torch.Tensor) -> LayerWeights:
    """The layer of these groups: their rows of q, k and v, and their columns of the output projection, in smaller matrices."""

    def kept(matrix: torch.Tensor) -> torch.Tensor:
        """Of rows that belong to the groups one after the other."""
        return matrix.view(problem.kv_heads, -1, *matrix.shape[1:])[groups].flatten(0, 1)

    def of_qkv(matrix: torch.Tensor) -> torch.Tensor:
        return torch.cat([kept(part) for part in torch.split(matrix, problem.widths)])

    return weights.replace(
        w_qkv=of_qkv(weights.w_qkv),
        b_qkv=None if weights.b_qkv is None else of_qkv(weights.b_qkv),
        w_out=kept(weights.w_out.t().contiguous()).t().contiguous(),
    )


def magnitudes(problem: Layer, weights: LayerWeights) -> torch.Tensor:
    """float32 [kv_heads]: the norms of each group's rows of the values' matrix and of its columns of the output projection, multiplied."""
    values = weights.w_qkv[-problem.kv_heads * problem.head_dim :]
    return row_norms(values.reshape(problem.kv_heads, -1)) * row_norms(weights.w_out.t().reshape(problem.kv_heads, -1))


def contributions(problem: Layer, weights: LayerWeights, inputs: LayerInputs) -> torch.Tensor:
    """float64 [kv_heads]: the norm, over the inputs' tokens, of what each group adds to the output of the attention.

    That is the output of its heads times their columns of the output projection: as Wanda (arXiv 2306.11695) does with single
    weights, activations are weighed in, from a forward pass alone. Michel et al. (arXiv 1905.10650) prune heads by the gradient
    of a loss, which a layer by itself has none of.
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
    columns = wide.w_out.t().reshape(problem.kv_heads, -1, problem.dim)
    parts = output.reshape(*output.shape[:2], problem.kv_heads, -1)
    added = [parts[:, :, group] @ columns[group] for group in range(problem.kv_heads)]
    return added[0].new_tensor([float(part.norm()) for part in added])


def attention_flops(problem: Layer, groups: int) -> int:
    """Of the projections and the attention of so many groups of heads; what a mask hides counts too."""
    width = groups * problem.heads // problem.kv_heads * problem.head_dim
    return 2 * problem.tokens * problem.projections * groups // problem.kv_heads + 4 * problem.tokens * problem.seq_len * width
