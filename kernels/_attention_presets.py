"""Presets of attention alone: grids that peers publish, prefill and decode of known models, caches of every kind."""

from __future__ import annotations

from ._shapes import LLAMA_8B, Preset, attention

FA_GRID = Preset(
    name="fa-grid",
    summary="FlashAttention's published grid: 16 k tokens in all, hidden size 2048, head_dim 64/128/256, causal and not",
    problems=tuple(
        attention(batch=16384 // length, q_len=length, heads=2048 // head_dim, head_dim=head_dim, causal=causal)
        for head_dim in (64, 128, 256)
        for causal in (False, True)
        for length in (512, 1024, 2048, 4096, 8192, 16384)
    ),
)

DECODE = Preset(
    name="decode",
    summary="one or four query tokens against a long cache (Llama-3-8B heads), batch 1–64",
    problems=tuple(
        attention(batch=batch, q_len=q_len, kv_len=kv_len, causal=q_len > 1, **LLAMA_8B)
        for q_len in (1, 4)
        for kv_len in (1024, 4096, 16384, 32768)
        for batch in (1, 8, 32, 64)
    ),
)

LLAMA_70B_PREFILL = Preset(
    name="llama-70b-prefill",
    summary="Llama-3-70B prefill: 64 query and 8 key heads of 128, causal; comparable with cuDNN's published H200 table",
    problems=tuple(attention(batch=1, q_len=s, heads=64, kv_heads=8, head_dim=128, causal=True) for s in (2048, 4096, 8192, 16384, 32768)),
)

QWEN_7B = Preset(
    name="qwen-7b",
    summary="Qwen2.5-7B: 28 query heads on 4 key heads of 128, a group of 7; prefill and decode",
    problems=(
        *(attention(batch=1, q_len=s, heads=28, kv_heads=4, head_dim=128, causal=True) for s in (2048, 8192)),
        *(attention(batch=b, q_len=1, kv_len=8192, heads=28, kv_heads=4, head_dim=128) for b in (1, 16)),
    ),
)

DECODE_MODELS = Preset(
    name="decode-models",
    summary="one query token against caches of 8 k and 32 k in the heads of eight models, from Qwen2.5-0.5B to Llama-3.1-405B",
    problems=tuple(
        attention(batch=batch, q_len=1, kv_len=kv_len, heads=heads, kv_heads=kv_heads, head_dim=head_dim)
        for heads, kv_heads, head_dim in (
            (14, 2, 64),  # Qwen2.5-0.5B
            (12, 2, 128),  # Qwen2.5-1.5B
            (8, 4, 256),  # Gemma-2-2B
            (24, 8, 128),  # Llama-3.2-3B
            (28, 4, 128),  # Qwen2.5-7B
            (32, 8, 128),  # Llama-3.1-8B
            (64, 8, 128),  # Llama-3.1-70B
            (128, 8, 128),  # Llama-3.1-405B
        )
        for batch, kv_len in ((1, 32768), (16, 8192))
    ),
)

PAGED_DECODE = Preset(
    name="paged-decode",
    summary="one or four query tokens against a paged cache whose rows end at lengths of their own (Llama-3-8B heads)",
    problems=tuple(
        attention(batch=batch, q_len=q_len, kv_len=kv_len, causal=q_len > 1, ragged=True, page_size=page_size, **LLAMA_8B)
        for q_len in (1, 4)
        for page_size in (16, 256)
        for batch, kv_len in ((1, 16384), (8, 4096), (32, 4096), (32, 16384))
    ),
)

SLIDING_WINDOW = Preset(
    name="sliding-window",
    summary="windows and softcaps: Mistral-7B (4096), Gemma-2-9B (4096, scores capped at 50), gpt-oss (128); prefill and decode",
    problems=tuple(
        attention(**heads, **lengths)
        for heads in (
            {"heads": 32, "kv_heads": 8, "head_dim": 128, "window": 4096},
            {"heads": 16, "kv_heads": 8, "head_dim": 256, "window": 4096, "softcap": 50.0},
            {"heads": 64, "kv_heads": 8, "head_dim": 64, "window": 128},
        )
        for lengths in (
            {"batch": 1, "q_len": 8192, "causal": True},
            {"batch": 16, "q_len": 1, "kv_len": 8192, "ragged": True},
        )
    ),
)

ATTENTION_PRESETS = (LLAMA_70B_PREFILL, QWEN_7B, DECODE, DECODE_MODELS, PAGED_DECODE, SLIDING_WINDOW, FA_GRID)
