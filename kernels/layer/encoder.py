"""PyTorch's own encoder layer, on its fast path."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from .._identity import ran_operator
from ..registry import Run, Setup, kernel
from .problem import ENCODER, Layer, LayerInputs, LayerWeights

if TYPE_CHECKING:
    from ..registry import Device


def refusal(problem: Layer, device: Device) -> str | None:  # noqa: ARG001
    """What nn.TransformerEncoderLayer cannot be, or makes it leave its fast path."""
    if problem.heads * problem.head_dim != problem.dim:
        return f"nn.TransformerEncoderLayer has dim / heads features per head, not {problem.head_dim}"
    if problem.heads % 2:
        return f"nn.TransformerEncoderLayer leaves its fast path for an odd number of heads ({problem.heads})"
    return None


def module(problem: Layer, weights: LayerWeights) -> nn.TransformerEncoderLayer:
    """The module with these very weights as its parameters, not copies."""
    with torch.device("meta"):
        layer = nn.TransformerEncoderLayer(
            problem.dim, problem.heads, problem.hidden_dim, 0.0, activation=problem.activation,
            layer_norm_eps=problem.norm_epsilon, batch_first=True, norm_first=problem.norm_first,
        )  # fmt: skip
    names = {
        "self_attn.in_proj_weight": weights.w_qkv, "self_attn.in_proj_bias": weights.b_qkv,
        "self_attn.out_proj.weight": weights.w_out, "self_attn.out_proj.bias": weights.b_out,
        "linear1.weight": weights.w1, "linear1.bias": weights.b1, "linear2.weight": weights.w2, "linear2.bias": weights.b2,
        "norm1.weight": weights.norm1_weight, "norm1.bias": weights.norm1_bias,
        "norm2.weight": weights.norm2_weight, "norm2.bias": weights.norm2_bias,
    }  # fmt: skip
    layer.load_state_dict(names, assign=True)
    return layer.eval()


@kernel(
    Layer,
    name="torch",
    family="torch",
    accepts=(*ENCODER, "gelu", "norm_first"),
    refuses=refusal,
    identified=ran_operator("aten::_transformer_encoder_layer_fwd", "fast path"),
)
def encoder(problem: Layer, setup: Setup) -> Run:
    """nn.TransformerEncoderLayer in inference: one native call of its fast path."""
    layer = module(problem, setup.weights)
    # torch's masks say what to hide
    causal = ~problem.attention.position_mask(setup.device)[0, 0] if problem.mask == "causal" else None
    position = torch.arange(problem.seq_len, device=setup.device)

    def run(inputs: LayerInputs) -> torch.Tensor:
        hidden = causal if inputs.mask is None else ~inputs.mask
        padded = None if inputs.lengths is None else position >= inputs.lengths[:, None]
        with torch.no_grad():  # the fast path is for inference only
            output: torch.Tensor = layer(inputs.x, src_mask=hidden, src_key_padding_mask=padded)
        return output

    return run
