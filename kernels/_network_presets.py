"""Presets of feed-forward networks over numbers of tokens, and of whole layers of known models."""

from __future__ import annotations

from ._shapes import LLAMA_8B_MLP, SEED, Fields, Preset, feedforward, layer

BERT_LAYER: Fields = {"heads": 12, "dim": 768, "hidden_dim": 3072, "activation": "gelu", "epsilon": 1e-12}
BERT_MLP: Fields = {"dim": 768, "hidden_dim": 3072, "activation": "gelu", "norm": "none", "residual": True}
DECODER: Fields = {
    "norm_first": True, "norm": "rmsnorm", "activation": "silu", "gated": True, "bias": False, "mask": "causal",
}  # fmt: skip
LLAMA_8B_LAYER: Fields = {**DECODER, "dim": 4096, "heads": 32, "kv_heads": 8, "hidden_dim": 14336, "rope_theta": 5e5}
SMALL_DECODER: Fields = {**DECODER, "dim": 512, "heads": 8, "kv_heads": 2, "hidden_dim": 1408, "rope_theta": 1e4}
"""A Llama of the seed's width: what two cores go through in milliseconds."""
VIT_B_LAYER: Fields = {"norm_first": True, "dim": 768, "heads": 12, "hidden_dim": 3072, "activation": "gelu", "epsilon": 1e-12}

SMALL_MLP: Fields = {"dim": 512, "hidden_dim": 1408, "activation": "silu", "norm": "rmsnorm", "gated": True, "bias": False}

FEEDFORWARD = (
    Preset(
        name="feedforward",
        summary="the feed-forward network over 16 to 2048 tokens: the seed's, BERT's and a gated one; exact, int8 and pruned",
        at_most=(("*/compiled_tuned", 1),),
        problems=(
            *(feedforward(batch=1, seq_len=s, **SEED) for s in (512, 16, 128, 2048)),
            feedforward(batch=1, seq_len=512, **BERT_MLP),
            feedforward(batch=1, seq_len=512, **SMALL_MLP),
        ),
    ),
    Preset(
        name="feedforward",
        summary="the feed-forward network over 1 to 16384 tokens at the sizes of BERT, ViT-L, Llama-2-7B and Llama-3-8B",
        at_most=(("*/compiled_tuned", 4),),
        problems=(
            *(feedforward(batch=1, seq_len=s, **LLAMA_8B_MLP) for s in (4096, 1, 16, 128, 1024, 16384)),
            *(feedforward(batch=1, seq_len=s, **{**LLAMA_8B_MLP, "hidden_dim": 11008}) for s in (4096, 16)),
            *(feedforward(batch=1, seq_len=s, **BERT_MLP) for s in (4096, 128)),
            *(feedforward(batch=1, seq_len=s, dim=1024, hidden_dim=4096, activation="gelu") for s in (4096, 1024)),
        ),
    ),
)
"""For the CPU and for a GPU."""

LAYERS = (
    Preset(
        name="layers",
        summary="whole layers: the seed's, BERT-base in padded batches, ViT-B, and a small decoder with rotary positions and grouped heads",
        problems=(
            layer(batch=1, seq_len=512, heads=8, **SEED),
            layer(batch=4, seq_len=128, padding=True, **BERT_LAYER),
            layer(batch=1, seq_len=512, **SMALL_DECODER),
            layer(batch=1, seq_len=197, **VIT_B_LAYER),
        ),
    ),
    Preset(
        name="layers",
        summary="whole layers: the seed's, BERT-base in padded batches, ViT-B, and Llama-3-8B",
        problems=(
            layer(batch=8, seq_len=512, heads=8, **SEED),
            layer(batch=32, seq_len=384, padding=True, **BERT_LAYER),
            layer(batch=32, seq_len=197, **VIT_B_LAYER),
            *(layer(batch=1, seq_len=s, **LLAMA_8B_LAYER) for s in (4096, 512)),
        ),
    ),
)
